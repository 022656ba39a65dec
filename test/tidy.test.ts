// tidy.test.ts: the rules of the house as tests: layers, sizes, words, first comments. Each rule is a function from
// files to violations, and is tried on a made-up bad file first, so that none can pass because it sees nothing.
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { errorCodes } from '../lib/errors.js'
import { codeOnly, functionsOf as cppFunctions, includesOf } from './tidy/cpp.js'
import { pretend, root, sources, under } from './tidy/files.js'
import type { Source } from './tidy/files.js'
import { functionsOf as tsFunctions, importCycle, importsOf, resolveImport, unwanted } from './tidy/typescript.js'

const native = under('csrc', '.h', '.cc', '.cu', '.def')
const nativeTests = under('test/native', '.h', '.cc')
const library = under('lib', '.ts')

// ------------------------------------------------------------------------------------------------ layers

/** What each folder of csrc may include beside itself. `.` is csrc itself (backends.h). */
const mayInclude: Readonly<Record<string, readonly string[]>> = {
  platform: [], text: ['platform'], ops: ['platform'],
  ref: ['ops', 'platform'], cpu: ['ops', 'platform'], cuda: ['ops', 'platform'],
  model: ['ops', 'platform'], engine: ['model', 'ops', 'text', 'platform'],
  binding: ['engine', 'model', 'text', 'platform', 'ops', '.'],
  '.': ['ops', 'ref', 'cpu', 'cuda', 'platform'],
}

const folderOf = (name: string): string => (name.includes('/') ? name.slice(0, name.indexOf('/')) : '.')

function layerViolations(files: readonly Source[]): string[] {
  return files.flatMap(file => {
    const folder = folderOf(file.name.slice('csrc/'.length))
    const allowed = [folder, ...(mayInclude[folder] ?? [])]
    return includesOf(file).filter(include => !include.system && !allowed.includes(folderOf(include.name)))
      .map(({ line, name }) => `${file.name}:${line} includes ${name}`)
  })
}

const systemRules: ReadonlyArray<{ readonly header: RegExp; readonly where: RegExp; readonly what: string }> = [
  { header: /^(napi\.h|node_api\.h|js_native_api\.h|uv\.h|node\.h|v8.*)$/, where: /^csrc\/binding\//, what: 'N-API' },
  { header: /^(cuda|cublas|nv|cooperative_groups|mma\.h|cutlass|cute)/, where: /^csrc\/cuda\//, what: 'CUDA' },
  {
    header: /^(\w*mmintrin\.h|immintrin\.h|x86intrin\.h|x86gprintrin\.h|arm_\w+\.h)$/,
    where: /^csrc\/cpu\/isa_/, what: 'intrinsics',
  },
  { header: /^(regex|ranges|format|source_location|cassert|assert\.h)$/, where: /^$/, what: 'banned header' },
]

function systemViolations(files: readonly Source[]): string[] {
  return files.flatMap(file => includesOf(file).filter(include => include.system).flatMap(({ line, name }) =>
    systemRules.filter(rule => rule.header.test(name) && !rule.where.test(file.name))
      .map(rule => `${file.name}:${line} ${rule.what}: <${name}>`)))
}

/** ISA files see no STL: an inline function of it, compiled for AVX-512, may be the copy that the linker keeps. */
const isaHeaders = /^(c(stdint|stddef|string|math|float)|(immintrin|x86intrin|arm_neon|arm_sve|stdint|stddef)\.h)$/

function isaIncludeViolations(files: readonly Source[]): string[] {
  return files.filter(({ name }) => name.startsWith('csrc/cpu/isa_')).flatMap(file => includesOf(file)
    .filter(({ name, system }) => system && !isaHeaders.test(name))
    .map(({ line, name }) => `${file.name}:${line} <${name}>`))
}

/** The packages that lib may import, and where. */
const packages: Readonly<Record<string, RegExp>> = {
  'node-gyp-build': /^lib\/native\.ts$/, 'commander': /^lib\/cli\//, 'cli-progress': /^lib\/cli\//,
}

function importViolations(files: readonly Source[]): string[] {
  const names = new Set(files.map(({ name }) => name))
  return files.flatMap(file => importsOf(file).flatMap(name => {
    if (name.startsWith('node:')) return []
    if (!name.startsWith('.')) return packages[name]?.test(file.name) === true ? [] : [`${file.name} imports ${name}`]
    const target = resolveImport(file.name, name)
    if (!name.endsWith('.js') || !names.has(target)) return [`${file.name} imports ${name}, which is no file of lib`]
    const upwards = target.startsWith('lib/cli/') && !file.name.startsWith('lib/cli/')
    return upwards ? [`${file.name} imports ${name}: the library must not know its command line`] : []
  }))
}

const addonViolations = (files: readonly Source[]): string[] => files
  .filter(({ name, text }) => name !== 'lib/native.ts' && /\.node['"`]/.test(text)).map(({ name }) => name)

describe('layers', () => {
  test('csrc folders include only what is below them', () => {
    expect(layerViolations([pretend('csrc/text/a.cc', '#include "engine/engine.h"\n#include "platform/error.h"\n')]))
      .toEqual(['csrc/text/a.cc:1 includes engine/engine.h'])
    expect(layerViolations(native)).toEqual([])
  })

  test('N-API, CUDA, intrinsics and banned headers stay where they belong', () => {
    const bad = '#include <napi.h>\n#include <immintrin.h>\n#include <cuda_runtime.h>\n#include <regex>\n#include <string>\n'
    expect(systemViolations([pretend('csrc/engine/a.cc', bad)])).toHaveLength(4)
    expect(systemViolations(native)).toEqual([])
  })

  test('ISA files include no STL', () => {
    expect(isaIncludeViolations([pretend('csrc/cpu/isa_avx2.cc', '#include <vector>\n')])).toHaveLength(1)
    expect(isaIncludeViolations(native)).toEqual([])
  })

  test('lib imports node modules, its few packages, and its own files', () => {
    const bad = pretend('lib/a.ts', "import x from 'lodash'\nimport { y } from './cli/main.js'\nimport { z } from './b'\n")
    expect(importViolations([bad, pretend('lib/cli/main.ts', '')])).toHaveLength(3)
    expect(importViolations(library)).toEqual([])
    expect(addonViolations([pretend('lib/a.ts', "require('./polylm.node')")])).toEqual(['lib/a.ts'])
    expect(addonViolations(library)).toEqual([])
  })

  test('lib has no import cycles', () => {
    const a = pretend('lib/a.ts', "import { b } from './b.js'\n")
    const b = pretend('lib/b.ts', "export { a } from './a.js'\n")
    expect(importCycle([a, b])).toEqual(['lib/a.ts', 'lib/b.ts', 'lib/a.ts'])
    expect(importCycle([a, pretend('lib/b.ts', "import type { A } from './a.js'\n")])).toBeUndefined()
    expect(importCycle(library)).toBeUndefined()
  })
})

// ------------------------------------------------------------------------------------------------- sizes

const isKernel = (name: string): boolean => /^csrc\/(cpu\/isa_|cuda\/.*\.cu$)/.test(name)

function columnViolations(files: readonly Source[], most: number): string[] {
  return files.flatMap(file => file.lines.flatMap((line, i) => {
    const columns = [...line].length
    return columns > most ? [`${file.name}:${i + 1} has ${columns} columns`] : []
  }))
}

function lengthViolations(files: readonly Source[], most: (name: string) => number): string[] {
  return files.filter(file => file.lines.length > most(file.name))
    .map(file => `${file.name} has ${file.lines.length} lines, at most ${most(file.name)}`)
}

interface Measured { readonly line: number; readonly length: number; readonly depth: number }

function functionViolations(
  files: readonly Source[], measure: (file: Source) => readonly Measured[], most: (name: string) => number,
): string[] {
  return files.flatMap(file => measure(file).flatMap(({ line, length, depth }) => [
    ...(length > most(file.name) ? [`${file.name}:${line} is ${length} lines long`] : []),
    ...(depth > 4 ? [`${file.name}:${line} is nested ${depth} levels deep`] : []),
  ]))
}

describe('sizes', () => {
  test('columns', () => {
    expect(columnViolations([pretend('a.ts', 'x'.repeat(101))], 100)).toHaveLength(1)
    const tables = native.filter(({ name }) => name.endsWith('.def'))
    const cpp = [...native, ...nativeTests].filter(file => !tables.includes(file))
    expect(columnViolations(cpp, 100)).toEqual([])
    expect(columnViolations(tables, 120)).toEqual([])
    expect(columnViolations(library, 120)).toEqual([])
    expect(columnViolations(under('test', '.ts'), 140)).toEqual([])
  })

  test('files', () => {
    const most = (name: string): number => (isKernel(name) || name.startsWith('test/') ? 800 : 500)
    expect(lengthViolations([pretend('lib/a.ts', 'x\n'.repeat(501))], most)).toHaveLength(1)
    expect(lengthViolations([...native, ...nativeTests, ...library, ...under('test', '.ts')], most)).toEqual([])
  })

  test('C++ functions', () => {
    const body = '  f();\n'.repeat(70)
    const deep = 'if (a) {'.repeat(5) + '}'.repeat(5)
    const bad = pretend('csrc/a.cc', `namespace x {\nint g() {\n${body}}\nvoid h() { ${deep} }\n` +
      'Foo::Foo(int a) : a_{a}, b_(a) {\n}\nconst int k[] = {1, {2}};\n}\n')
    expect(cppFunctions(bad).filter(({ length }) => length > 1)).toHaveLength(2)
    expect(functionViolations([bad], cppFunctions, () => 70)).toHaveLength(2)
    expect(functionViolations([...native, ...nativeTests], cppFunctions, name => (isKernel(name) ? 150 : 70))).toEqual([])
  })

  test('TypeScript functions', () => {
    const bad = pretend('lib/a.ts', `function a() {\n${'f()\n'.repeat(70)}}\nconst b = () => { ${'{'.repeat(5)}${'}'.repeat(5)} }\n`)
    expect(functionViolations([bad], tsFunctions, () => 70)).toHaveLength(2)
    expect(functionViolations(library, tsFunctions, () => 70)).toEqual([])
  })
})

// ------------------------------------------------------------------------------------------------- words

const code = [
  ...native, ...nativeTests, ...library, ...under('test', '.ts'), ...under('scripts', '.mjs', '.cjs'),
  ...under('demo', '.py', '.mjs'), ...under('cmake', '.cmake'), ...under('benchmarks', '.ts', '.cc'),
  ...sources.filter(({ name }) => name === 'CMakeLists.txt' || name === '.ci/run'),
]

function firstCommentViolations(files: readonly Source[]): string[] {
  return files.filter(file => {
    const first = file.lines.find(line => !line.startsWith('#!') && line.trim() !== '' && !/^['"]use strict/.test(line))
    return first === undefined || !/^(\/\/|\/\*|#(?!(include|pragma|define|if))|""")/.test(first.trim())
  }).map(({ name }) => name)
}

/** A line of code that must not stand anywhere: the word and what it would mean. */
function wordViolations(files: readonly Source[], pattern: RegExp, clean = codeOnly): string[] {
  return files.flatMap(file => clean(file.text).split('\n')
    .flatMap((line, i) => (pattern.test(line) ? [`${file.name}:${i + 1} ${line.trim()}`] : [])))
}

const asIs = (text: string): string => text
const bannedCalls = /(?<![\w.>])(assert|abort|exit|_exit|quick_exit|terminate|longjmp|setjmp|system)\s*\(|std::regex/
const marker = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'X' + 'XX'].join('|')})\\b(?!\\(#\\d+\\))`)
const machine = new RegExp(
  ['(^|[^A-Za-z0-9_./-])/(work|root|farm|home/[a-z]+)/', `registry\\.npm${''}js\\.org`, `deb\\.debian${''}\\.org`].join('|'))

describe('words', () => {
  test('each file begins with a comment that says what it is', () => {
    expect(firstCommentViolations([pretend('a.h', '#pragma once\n'), pretend('b.ts', '// b.ts: x\n')])).toEqual(['a.h'])
    expect(firstCommentViolations(code)).toEqual([])
  })

  test('the core neither asserts nor ends the process', () => {
    const bad = 'assert(x);\nstatic_assert(y);\n// abort()\nstd::exit(1);\na.exit();\nstd::regex r;\n'
    expect(wordViolations([pretend('csrc/a.cc', bad.replace('std::exit', 'exit'))], bannedCalls)).toHaveLength(3)
    expect(wordViolations([pretend('csrc/a.cc', 'std::abort();\n')], /std::(abort|exit|terminate)\s*\(/)).toHaveLength(1)
    expect(wordViolations(native, bannedCalls)).toEqual([])
    expect(wordViolations(native, /std::(abort|exit|quick_exit|terminate)\s*\(/)).toEqual([])
  })

  test('no marker of unfinished work without an issue', () => {
    expect(wordViolations([pretend('a.ts', '// TO' + 'DO: later\n// TO' + 'DO(#12): later\n')], marker, asIs)).toHaveLength(1)
    expect(wordViolations(code, marker, asIs)).toEqual([])
  })

  test('no path of a machine and no registry host', () => {
    expect(wordViolations([pretend('a.ts', `'/wo${''}rk/x'\n"a/work/b"\n`)], machine, asIs)).toHaveLength(1)
    expect(wordViolations(sources.filter(({ name }) => name !== 'test/tidy.test.ts'), machine, asIs)).toEqual([])
  })

  test('no skipped or focused test', () => {
    const focused = /\b(it|test|describe)\.(skip|only|todo)\b/
    expect(wordViolations([pretend('a.test.ts', 'test.' + 'only(x)\n')], focused, asIs)).toHaveLength(1)
    expect(wordViolations(under('test', '.ts').filter(({ name }) => name !== 'test/tidy.test.ts'), focused, asIs)).toEqual([])
  })

  test('TypeScript without enum, any, default exports and private', () => {
    const bad = 'enum A { b }\nlet x: any\nexport default x\nclass C { private y = 1 }\n'
    expect(unwanted(pretend('lib/a.ts', bad))).toEqual(['1: enum', '2: any', '3: default export', '4: private instead of #'])
    expect(library.filter(({ name }) => !name.endsWith('.d.ts'))
      .flatMap(file => unwanted(file).map(what => `${file.name}:${what}`))).toEqual([])
  })

  test('every row of the error table is a code of lib/errors.ts', () => {
    const table = sources.find(({ name }) => name === 'csrc/platform/error_codes.def')?.text ?? ''
    const rows = [...table.matchAll(/^ROW\(\w+, "(\w+)", "[^"]+"\)$/gm)].map(match => match[1])
    expect(rows).toEqual([...errorCodes])
  })
})

// ------------------------------------------------------------------------------------------ built objects

/** The objects of the instruction set files in the release build, if there is one. */
function isaObjects(): string[] {
  const folder = path.join(root, 'build-cmake', `${process.platform}-${process.arch}-Release`,
    'CMakeFiles/polylm_core.dir/csrc/cpu')
  if (!existsSync(folder)) return []
  return readdirSync(folder).filter(name => /^isa_.*\.(o|obj)$/.test(name)).map(name => path.join(folder, name))
}

const weakSymbols = (symbols: string): string[] => symbols.split('\n').filter(line => /^[0-9a-f ]+ [WVu] /.test(line))

test('objects of instruction set files export no weak symbols', () => {
  expect(weakSymbols('0000000000000000 W _ZSt3maxIiE\n0000000000000000 T f\n                 U memcpy\n')).toHaveLength(1)
  const objects = process.platform === 'linux' ? isaObjects() : []
  const found = objects.flatMap(object => weakSymbols(execFileSync('nm', [object], { encoding: 'utf8' }))
    .map(line => `${path.basename(object)}: ${line}`))
  expect(found).toEqual([])
})
