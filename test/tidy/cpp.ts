// cpp.ts: what the tidy test knows of C++: comments and strings apart from code, functions with their lengths and
// nesting, includes. A scanner, not a parser: it follows braces, and its own tests show what it must find.
import type { Source } from './files.js'

/** The text with comments, string and character literals replaced by blanks; line ends stay where they are. */
export function codeOnly(text: string): string {
  const pattern =
    /\/\/[^\n]*|\/\*[\s\S]*?\*\/|R"([^(\s]*)\([\s\S]*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+'/g
  return text.replace(pattern, found => found.replace(/[^\n]/g, ' '))
}

/** The same without preprocessor lines, continued ones included. */
function withoutDirectives(code: string): string {
  return code.replace(/^[ \t]*#(?:[^\n]*\\\n)*[^\n]*/gm, found => found.replace(/[^\n]/g, ' '))
}

/** A function body: where it begins, how many lines it has, and how deeply its blocks are nested. */
export interface CppFunction {
  readonly line: number
  readonly length: number
  readonly depth: number
}

type Kind = 'scope' | 'function' | 'block' | 'list'
interface Open {
  readonly kind: Kind
  readonly line: number
}

const scopeWord = /\b(namespace|class|struct|union|enum|extern)\b/

/** What an opening brace opens, told by the code since the last ; { or }. */
function kindOf(head: string, outside: Kind): Kind {
  const before = head.trim()
  if (outside === 'scope') {
    if (scopeWord.test(before) && !/\)\s*(const|noexcept|override|final|->.*)*\s*$/.test(before)) return 'scope'
    return /\)/.test(before) && !/=\s*$/.test(before) ? 'function' : 'list'
  }
  if (outside === 'list') return 'list'
  if (scopeWord.test(before) && !/[()]/.test(before)) return 'scope'
  const control = before === '' || /(\)|\belse|\bdo|\btry|\bmutable|\bnoexcept|->\s*[\w:<>*& ]+|:)$/.test(before)
  return control ? 'block' : 'list'
}

/** Every function of a source file. */
export function functionsOf(source: Source): CppFunction[] {
  const code = withoutDirectives(codeOnly(source.text))
  const found: CppFunction[] = []
  const stack: Open[] = []
  let head = ''
  let headLine = 1
  let line = 1
  let deepest = 0
  for (const char of code) {
    if (char === '\n') line++
    if (char === '{') {
      const kind = kindOf(head, stack.at(-1)?.kind ?? 'scope')
      if (kind === 'function') deepest = 0
      stack.push({ kind, line: kind === 'function' ? headLine : line })
      if (kind === 'block') deepest = Math.max(deepest, blocksOf(stack))
      head = ''
    } else if (char === '}') {
      const open = stack.pop()
      if (open?.kind === 'function') found.push({ line: open.line, length: line - open.line + 1, depth: deepest })
      // A list belongs to the expression around it: `f({1, 2}) {` must still be seen as a head with parentheses.
      head = open?.kind === 'list' ? head + '()' : ''
    } else if (char === ';') {
      head = ''
    } else {
      if (head.trim() === '') headLine = line
      head += char
    }
  }
  return found
}

function blocksOf(stack: readonly Open[]): number {
  let blocks = 0
  for (let i = stack.length - 1; i >= 0 && stack[i]?.kind !== 'function'; i--) if (stack[i]?.kind === 'block') blocks++
  return blocks
}

/** An include line: `<name>` or `"name"`. */
export interface Include {
  readonly line: number
  readonly name: string
  readonly system: boolean
}

/** Every include of a source file. */
export function includesOf(source: Source): Include[] {
  return source.lines.flatMap((line, i) => {
    const match = /^\s*#\s*include\s*([<"])([^>"]+)[>"]/.exec(line)
    return match === null ? [] : [{ line: i + 1, name: match[2] ?? '', system: match[1] === '<' }]
  })
}
