// error-fields.test.ts: the data that the types promise for each code (lib/error-fields.ts) is what is thrown: by every
// place of lib that makes an error, by every place of the core that attaches a field, and by errors met in real calls.
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import ts from 'typescript'
import { errorCodes, PolyLMError, type ErrorCode } from '../../lib/errors.js'
import { demoModel, Model, Tokenizer } from '../../lib/index.js'
import { fromNative } from '../../lib/native.js'
import { noBinary } from '../../lib/binary.js'

const root = path.join(__dirname, '../..')

interface Field { readonly optional: boolean; readonly type: string }
type Fields = ReadonlyMap<string, Field>

/** The interface ErrorFields as the compiler sees it. */
const declared: ReadonlyMap<string, Fields> = (() => {
  const file = path.join(root, 'lib/error-fields.ts')
  const program = ts.createProgram([file], { strict: true, target: ts.ScriptTarget.ES2022, types: [], noEmit: true })
  const checker = program.getTypeChecker()
  const source = program.getSourceFile(file) as ts.SourceFile
  const node = source.statements.find(s => ts.isInterfaceDeclaration(s) && s.name.text === 'ErrorFields') as ts.Node
  const fieldOf = (field: ts.Symbol): [string, Field] => [field.name, {
    optional: (field.flags & ts.SymbolFlags.Optional) !== 0,
    type: checker.typeToString(checker.getNonNullableType(checker.getTypeOfSymbol(field))),
  }]
  return new Map(checker.getTypeAtLocation(node).getProperties()
    .map(code => [code.name, new Map(checker.getTypeOfSymbol(code).getProperties().map(fieldOf))]))
})()

const common = new Set(['hint', 'cause'])

// `unknown` without null and undefined.
const isAnything = (type: string): boolean => type === '{}'

/** What an error has beyond its code's fields, and what it lacks or has with another type. */
function differences(e: unknown): string[] {
  const { code, message, retryable, fatal, ...data } = e as PolyLMError
  const fields = declared.get(code) ?? new Map<string, Field>()
  const extra = Object.keys(data).filter(name => !fields.has(name) && !common.has(name)).map(name => `${code}: ${name} is not declared`)
  const wrong = [...fields].flatMap(([name, { optional, type }]) => {
    const value = data[name]
    if (value === undefined) return optional || isAnything(type) ? [] : [`${code}: ${name} is missing`]
    return fits(value, type) ? [] : [`${code}: ${name} is ${typeof value}, declared ${type}`]
  })
  return [...extra, ...wrong, ...(e instanceof PolyLMError ? [] : ['no PolyLMError'])]
}

function fits(value: unknown, type: string): boolean {
  if (type === 'readonly string[]') return Array.isArray(value) && value.every(item => typeof item === 'string')
  if (type.startsWith('"')) return type.split(' | ').includes(JSON.stringify(value))
  return isAnything(type) || typeof value === type
}

test('every code has its row and no other', () => {
  expect([...declared.keys()].sort()).toEqual([...errorCodes].sort())
  expect(declared.get('CONTEXT_OVERFLOW')?.get('promptTokens')).toEqual({ optional: false, type: 'number' })
  expect(differences(new PolyLMError('CONTEXT_OVERFLOW', 'x', { maxTokens: 'a', other: 1, contextSize: 1 }))).toHaveLength(3)
})

// ------------------------------------------------------------------------------------------------- what lib makes

const sources = readdirSync(path.join(root, 'lib'), { recursive: true, encoding: 'utf8' })
  .filter(name => name.endsWith('.ts') && !name.endsWith('.d.ts')).map(name => path.join('lib', name))

function visit(node: ts.Node, call: (node: ts.Node) => void): void {
  call(node)
  ts.forEachChild(node, child => { visit(child, call) })
}

/** Every `new PolyLMError(code, message, { ... })` with the names in its data; code undefined: a variable. */
function made(file: string): Array<{ where: string; code: string | undefined; names: string[]; open: boolean }> {
  const source = ts.createSourceFile(file, readFileSync(path.join(root, file), 'utf8'), ts.ScriptTarget.Latest, true)
  const found: ReturnType<typeof made> = []
  visit(source, node => {
    if (!ts.isNewExpression(node) || node.expression.getText() !== 'PolyLMError') return
    const [code, , data] = node.arguments ?? []
    const members = data !== undefined && ts.isObjectLiteralExpression(data) ? [...data.properties] : []
    found.push({
      where: `${file}:${source.getLineAndCharacterOfPosition(node.getStart()).line + 1}`,
      code: code !== undefined && ts.isStringLiteral(code) ? code.text : undefined,
      names: members.flatMap(member => (member.name === undefined ? [] : [member.name.getText()])),
      open: (data !== undefined && !ts.isObjectLiteralExpression(data)) || members.some(ts.isSpreadAssignment),
    })
  })
  return found
}

test('every error that lib makes has the fields of its code', () => {
  const all = sources.flatMap(made)
  expect(all.length).toBeGreaterThan(50)
  const anywhere = new Set([...declared.values()].flatMap(fields => [...fields.keys()]))
  expect(all.flatMap(({ where, code, names, open }) => {
    const fields = code === undefined ? undefined : declared.get(code)
    const extra = names.filter(name => !common.has(name) && !(fields?.has(name) ?? anywhere.has(name)))
    const missing = open ? [] : [...fields ?? []]
      .filter(([name, { optional, type }]) => !optional && !isAnything(type) && !names.includes(name)).map(([name]) => `without ${name}`)
    return [...extra, ...missing].map(what => `${where} ${code ?? ''} ${what}`)
  })).toEqual([])
})

// ------------------------------------------------------------------------------------------------- what the core makes

test('every field that the core attaches is one of its code', () => {
  const table = readFileSync(path.join(root, 'csrc/platform/error_codes.def'), 'utf8')
  const names = new Map([...table.matchAll(/^ROW\((\w+), "(\w+)"/gm)].map(([, name = '', code = '']) => [name, code]))
  const files = readdirSync(path.join(root, 'csrc'), { recursive: true, encoding: 'utf8' }).filter(name => /\.(cc|h)$/.test(name))
  const found = files.flatMap(name => {
    const text = readFileSync(path.join(root, 'csrc', name), 'utf8')
    return text.split(/\bfail\(/).slice(1).flatMap(call => {
      const body = call.slice(0, call.search(/\);\n/))
      const codes = [...body.matchAll(/Code::k(\w+)/g)].map(match => names.get(match[1] ?? '') ?? '')
      const fields = [...body.matchAll(/\{"(\w+)", /g)].map(match => match[1] ?? '')
      return codes.flatMap(code => fields.map(field => ({ name, code, field })))
    })
  })
  expect(found.length).toBeGreaterThan(15)
  expect(found.filter(({ code, field }) => declared.get(code)?.has(field) !== true)).toEqual([])
})

test.each<[ErrorCode, string, Record<string, unknown>]>([
  ['INVALID_OPTION', 'no option is named here', {}], ['INVALID_OPTION', 'topK: is odd', {}], ['INVALID_PROMPT', 'odd', {}],
  ['INSUFFICIENT_MEMORY', 'an allocation failed', { hint: 'free memory' }],
  ['INSUFFICIENT_MEMORY', 'x', { required: 1, available: 0, suggestions: 'a\nb\n' }],
  ['QUEUE_TIMEOUT', 'x', { waiting: 1, retryAfterMs: 2 }], ['FILE_CHANGED', 'x', { file: 'a' }],
])('%s of the core arrives complete', (code, message, fields) => {
  expect(differences(fromNative(Object.assign(new Error(message), { code }, fields)))).toEqual([])
})

// ------------------------------------------------------------------------------------------------- what calls meet

test('errors of real calls have exactly what is declared', async () => {
  const model = await Model.load(demoModel, { device: 'cpu', maxQueue: 1, kvMemory: '1MiB', contextSize: 64 })
  const stream = await model.stream('Rome', { maxTokens: 2 })
  void stream.textStream
  const calls: Array<[ErrorCode, () => unknown]> = [
    ['INVALID_OPTION', () => model.generate('a', { topK: -1 })],
    ['INVALID_OPTION', () => model.generate('a', { numBeams: 32, n: 33 })],
    ['INVALID_OPTION', () => model.generate('a', { nope: 1 } as object)],
    ['INVALID_OPTION', () => Model.load(demoModel, { kvMemory: 1 })],
    ['INVALID_PROMPT', () => model.generate({ tokens: [-1] })],
    ['INVALID_PROMPT', () => model.generate({ messages: [{ role: 'user', content: '<|user|>' }] })],
    ['CONTEXT_OVERFLOW', () => model.generate('a', { maxTokens: 64 })],
    ['INSUFFICIENT_MEMORY', () => model.generate('a', { maxTokens: 60, numBeams: 32 })],
    ['QUEUE_FULL', () => Promise.all(Array.from({ length: 200 }, () => model.generate('a', { maxTokens: 50 })))],
    ['STREAM_USED', () => stream.textStream],
    ['TOKENIZER_MISSING', () => Tokenizer.load(path.join(root, 'test/fixtures/models/gpt2-tiny'))],
    ['FILE_NOT_FOUND', () => Model.load('no/such/directory')],
    ['SESSION_FILE', () => model.restoreSession(path.join(root, 'README.md'))],
    ['NO_BINARY', () => { throw noBinary(root, undefined, 'No native build was found') }],
  ]
  for (const [code, call] of calls) {
    const e: unknown = await (async () => await call())().catch((thrown: unknown) => thrown)
    expect([code, (e as PolyLMError).code, differences(e)]).toEqual([code, code, []])
  }
  await model.dispose()
  const disposed: unknown = await model.generate('a').catch((e: unknown) => e)
  expect([(disposed as PolyLMError).code, differences(disposed)]).toEqual(['DISPOSED', []])
})
