// typescript.ts: what the tidy test knows of TypeScript, through the compiler's own parser: imports, the length and
// nesting of functions, and words that the house does not use.
import path from 'node:path'
import ts from 'typescript'
import type { Source } from './files.js'

function parse(source: Source): ts.SourceFile {
  return ts.createSourceFile(source.name, source.text, ts.ScriptTarget.Latest, true)
}

function visit(node: ts.Node, call: (node: ts.Node) => void): void {
  call(node)
  ts.forEachChild(node, child => visit(child, call))
}

/** Names of the modules that a file imports or re-exports, dynamic imports included. */
export function importsOf(source: Source): string[] {
  const found: string[] = []
  visit(parse(source), node => {
    if ((ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) && node.moduleSpecifier !== undefined) {
      found.push((node.moduleSpecifier as ts.StringLiteral).text)
    }
    const isCall = ts.isCallExpression(node) && (node.expression.kind === ts.SyntaxKind.ImportKeyword ||
      node.expression.getText() === 'require')
    const name = isCall ? node.arguments[0] : undefined
    if (name !== undefined && ts.isStringLiteral(name)) found.push(name.text)
  })
  return found
}

/** The project file that a relative import of `from` means. */
export function resolveImport(from: string, name: string): string {
  return path.posix.join(path.posix.dirname(from), name).replace(/\.js$/, '.ts')
}

/** A chain of files that import each other in a circle, or undefined. Imports of types alone do not count. */
export function importCycle(files: readonly Source[]): string[] | undefined {
  const graph = new Map(files.map(file => [file.name, valueImports(file)]))
  const state = new Map<string, 'open' | 'done'>()
  const chain: string[] = []
  const enter = (name: string): string[] | undefined => {
    if (state.get(name) === 'open') return [...chain.slice(chain.indexOf(name)), name]
    if (state.get(name) === 'done' || !graph.has(name)) return undefined
    state.set(name, 'open')
    chain.push(name)
    for (const next of graph.get(name) ?? []) {
      const cycle = enter(next)
      if (cycle !== undefined) return cycle
    }
    chain.pop()
    state.set(name, 'done')
    return undefined
  }
  for (const { name } of files) {
    const cycle = enter(name)
    if (cycle !== undefined) return cycle
  }
  return undefined
}

function valueImports(source: Source): string[] {
  const found: string[] = []
  for (const node of parse(source).statements) {
    const isImport = ts.isImportDeclaration(node) && !onlyTypes(node.importClause)
    const isExport = ts.isExportDeclaration(node) && !node.isTypeOnly && node.moduleSpecifier !== undefined
    if (!isImport && !isExport) continue
    const { text } = node.moduleSpecifier as ts.StringLiteral
    if (text.startsWith('.')) found.push(resolveImport(source.name, text))
  }
  return found
}

function onlyTypes(clause: ts.ImportClause | undefined): boolean {
  if (clause === undefined) return false
  if (clause.phaseModifier === ts.SyntaxKind.TypeKeyword) return true
  const names = clause.namedBindings
  return clause.name === undefined && names !== undefined && ts.isNamedImports(names) &&
    names.elements.every(element => element.isTypeOnly)
}

/** A function with its lines and how deeply its blocks are nested. */
export interface TsFunction {
  readonly line: number
  readonly length: number
  readonly depth: number
}

/** Every function of a file. */
export function functionsOf(source: Source): TsFunction[] {
  const file = parse(source)
  const lineOf = (position: number): number => file.getLineAndCharacterOfPosition(position).line + 1
  const found: TsFunction[] = []
  visit(file, node => {
    if (!ts.isFunctionLike(node) || !('body' in node) || node.body === undefined) return
    const line = lineOf(node.getStart())
    found.push({ line, length: lineOf(node.end) - line + 1, depth: depthOf(node.body as ts.Node) })
  })
  return found
}

/** Levels of blocks inside a body; inner functions count by themselves. */
function depthOf(body: ts.Node): number {
  let deepest = 0
  ts.forEachChild(body, child => {
    if (ts.isFunctionLike(child)) return
    const level = ts.isBlock(child) || ts.isCaseBlock(child) ? 1 : 0
    deepest = Math.max(deepest, level + depthOf(child))
  })
  return deepest
}

/** Things that the house does without, as 'line: what'. */
export function unwanted(source: Source): string[] {
  const file = parse(source)
  const found: string[] = []
  visit(file, node => {
    const what = ts.isEnumDeclaration(node) ? 'enum'
      : node.kind === ts.SyntaxKind.AnyKeyword ? 'any'
        : ts.isExportAssignment(node) || isDefault(node) ? 'default export'
          : ts.isPropertyDeclaration(node) && hasPrivateWord(node) ? 'private instead of #' : undefined
    if (what !== undefined) found.push(`${file.getLineAndCharacterOfPosition(node.getStart()).line + 1}: ${what}`)
  })
  return found
}

function isDefault(node: ts.Node): boolean {
  return ts.canHaveModifiers(node) && (ts.getModifiers(node) ?? []).some(m => m.kind === ts.SyntaxKind.DefaultKeyword)
}

function hasPrivateWord(node: ts.PropertyDeclaration): boolean {
  return (ts.getModifiers(node) ?? []).some(m => m.kind === ts.SyntaxKind.PrivateKeyword)
}
