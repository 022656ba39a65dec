// types.test.ts: the published declarations (dist/index.d.ts, .d.cts) as programs use them: strict, checked themselves,
// with and without DOM and @types/node; and README's TypeScript. Trap: dist must be built.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import ts from 'typescript'
import { root } from './cli-program.js'

let folder = ''
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'polylm-types-'))
  const home = path.join(folder, 'node_modules/polylm')
  mkdirSync(home, { recursive: true })
  for (const name of ['package.json', 'dist']) symlinkSync(path.join(root, name), path.join(home, name))
  writeFileSync(path.join(folder, 'package.json'), '{"type":"module"}')
  for (const name of ['consumer.ts', 'platform.ts']) {
    writeFileSync(path.join(folder, name), readFileSync(path.join(root, 'test/types', name)))
  }
  writeFileSync(path.join(folder, 'consumer.cts'), readFileSync(path.join(root, 'test/types/consumer.ts')))
})
afterAll(() => { rmSync(folder, { recursive: true, force: true }) })

const strict: ts.CompilerOptions = {
  strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true, noPropertyAccessFromIndexSignature: true,
  noEmit: true, skipLibCheck: false, preserveSymlinks: true, target: ts.ScriptTarget.ES2022,
  module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext,
}

// Libraries are parsed once. They are TypeScript's and Node's own, so only ours is checked against them.
const parsed = new Map<string, ts.SourceFile | undefined>()
function hostOf(options: ts.CompilerOptions): ts.CompilerHost {
  const host = ts.createCompilerHost(options)
  const read = host.getSourceFile.bind(host)
  host.getSourceFile = (name, version, ...rest) => {
    if (!/\/(typescript\/lib|@types)\//.test(name)) return read(name, version, ...rest)
    if (!parsed.has(name)) parsed.set(name, read(name, version, ...rest))
    return parsed.get(name)
  }
  return host
}

function complaints(files: readonly string[], given: ts.CompilerOptions): string[] {
  const lib = (given.lib ?? []).map(name => `lib.${name}.d.ts`)
  const options = { ...strict, ...given, lib }
  const program = ts.createProgram(files.map(name => path.join(folder, name)), options, hostOf(options))
  const ours = program.getSourceFiles().filter(({ fileName }) => fileName.startsWith(folder))
  expect(ours.length).toBeGreaterThan(files.length)                        // the declarations are among them
  const found = [
    ...program.getGlobalDiagnostics(), ...program.getOptionsDiagnostics(),
    ...ours.flatMap(file => [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)]),
  ]
  return found.map(({ messageText, file, start }) =>
    `${path.basename(file?.fileName ?? '')}:${String(start)} ${ts.flattenDiagnosticMessageText(messageText, '\n')}`)
}

const withNode = { types: ['node'], typeRoots: [path.join(root, 'node_modules/@types')] }
const withoutTypes = { types: [], typeRoots: [] }
const all = ['consumer.ts', 'platform.ts']

test.each<[string, readonly string[], ts.CompilerOptions]>([
  ['nothing but ES2022', ['consumer.ts'], { ...withoutTypes, lib: ['es2022'] }],
  ['the same from CommonJS', ['consumer.cts'], { ...withoutTypes, lib: ['es2022'] }],
  ['DOM', ['consumer.ts'], { ...withoutTypes, lib: ['es2022', 'dom'] }],
  ['DOM and disposal', all, { ...withoutTypes, lib: ['es2022', 'dom', 'esnext.disposable'] }],
  ['@types/node', all, { ...withNode, lib: ['es2022'] }],
  ['@types/node, DOM, disposal', all, { ...withNode, lib: ['es2022', 'dom', 'esnext.disposable'] }],
  ['a bundler\'s resolution', ['consumer.ts'], {
    ...withoutTypes, lib: ['es2022'], module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler,
  }],
])('a strict program compiles with %s', (_, files, options) => {
  expect(complaints(files, options)).toEqual([])
})

test('what is wrong is found: the check itself works', () => {
  writeFileSync(path.join(folder, 'wrong.ts'), "import { Model } from 'polylm'\nexport const x: number = Model.load('a')\n")
  expect(complaints(['wrong.ts'], { ...withoutTypes, lib: ['es2022'] })).toHaveLength(1)
})

test('README\'s TypeScript compiles as it stands there', () => {
  const blocks = [...readFileSync(path.join(root, 'README.md'), 'utf8').matchAll(/```ts\n([\s\S]*?)```/g)].map(match => match[1] ?? '')
  expect(blocks.length).toBeGreaterThan(2)
  const files = blocks.map((code, i) => {
    // A snippet without imports is a part of a program; this is the rest of it.
    const rest = code.includes('import ') ? '' : `import { isPolyLMError } from 'polylm'
      declare const e: unknown
      declare function shorten(promptTokens: number, contextSize: number): void\n`
    writeFileSync(path.join(folder, `readme${i}.ts`), rest + code)
    return `readme${i}.ts`
  })
  expect(complaints(files, { ...withNode, lib: ['es2022'] })).toEqual([])
})
