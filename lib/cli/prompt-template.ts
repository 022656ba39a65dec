// prompt-template.ts: --prompt-template: a text around each input, as `'{text}\nTranslate this to German.'` typed in a
// shell. Not here: the templates of chat models (lib/chat.ts).
import { InvalidArgumentError } from 'commander'

const escapes: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', '\\': '\\', '{': '{', '}': '}' }
const place = Symbol('text')

/** Puts a text into the template. */
export type PromptTemplate = (text: string) => string

/**
 * Reads a template: `{text}` is the place of the text, \n a line end, \t a tab, \\ a backslash, \{ and \} braces that
 * are meant. Other braces are what they are.
 */
export function promptTemplate(source: string): PromptTemplate {
  const parts: Array<string | typeof place> = []
  for (const [piece] of source.matchAll(/\{text\}|\\[\s\S]?|[^\\{]+|\{/g)) {
    if (piece === '{text}') parts.push(place)
    else if (piece.startsWith('\\')) parts.push(escaped(piece))
    else parts.push(piece)
  }
  if (!parts.includes(place)) throw new InvalidArgumentError('It must contain {text}, the place of the input.')
  return text => parts.map(part => (part === place ? text : part)).join('')
}

function escaped(piece: string): string {
  const char = escapes[piece.slice(1)]
  if (char === undefined) {
    throw new InvalidArgumentError(`It has '${piece}'; known are \\n, \\t, \\r, \\{, \\} and \\\\ for a backslash.`)
  }
  return char
}

// Everything that some program takes for the end of a line, among them Python's splitlines.
const lineEnds = /[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/

/** An answer as one line: its line ends become one space, white space around it goes. */
export function asOneLine(text: string): string {
  return text.split(lineEnds).map(part => part.trim()).filter(part => part !== '').join(' ')
}
