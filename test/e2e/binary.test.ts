// binary.test.ts: what the built addon asks of the system it is loaded on: an old glibc, no libstdc++, N-API of every
// supported Node, no instruction that an old processor lacks outside the files that are chosen at run time; and that it
// is opened at the first call that needs it. Trap: the development build is linked like a release on Linux with glibc,
// so the same checks hold for build/Release and for prebuilds/.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { root } from './cli-program.js'

const here = `${process.platform}-${process.arch}`
const development = path.join(root, 'build/Release/polylm.node')

/** Binaries that are there, with the platform that each is for. */
function binaries(): Array<[string, string]> {
  const folder = path.join(root, 'prebuilds')
  const prebuilt = !existsSync(folder) ? [] : readdirSync(folder)
    .flatMap(target => readdirSync(path.join(folder, target)).map((file): [string, string] =>
      [path.join('prebuilds', target, file), target]))
  return [['build/Release/polylm.node', here], ...prebuilt]
}

const check = (file: string, target: string): { status: number | null; stdout: string } =>
  spawnSync(process.execPath, ['scripts/check-binary.mjs', file, target], { cwd: root, encoding: 'utf8' })

describe('what a binary asks for', () => {
  test.each(binaries())('%s', (file, target) => {
    const { status, stdout } = check(file, target)
    expect([status, stdout.trim()]).toEqual([0, `${file}: in order for ${target}`])
  })

  test('the check sees what it is for', () => {
    if (process.platform !== 'linux') return                    // its victims are ELF files
    const node = check(process.execPath, here).stdout           // a program with libstdc++ outside, or many exports
    expect(node).toContain('exports too much')
    expect(node).toContain('does not export napi_register_module_v1')
    const other = process.arch === 'x64' ? 'linux-arm64' : 'linux-x64'
    expect(check('build/Release/polylm.node', other).stdout).toContain(`built for ${process.arch}, not`)
    expect(check('package.json', here).status).toBe(1)
  })
})

// ------------------------------------------------------------------------------------------------- instructions

const later = /%[yzt]mm|%k[0-7]\b/
const laterNames = new RegExp('^(v[a-z]|(andn|bextr|blsi|blsr|blsmsk|bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx|lzcnt|movbe)[lqw]?$' +
  '|tile|tdp|ldtilecfg|sttilecfg)')

/** Functions of a disassembly that need more than x86-64-v2. */
function laterFunctions(disassembly: string): Set<string> {
  const found = new Set<string>()
  let name = ''
  for (const line of disassembly.split('\n')) {
    const head = /^[0-9a-f]+ <(.+)>:$/.exec(line)
    if (head) name = head[1] ?? ''
    const [, mnemonic = '', operands = ''] = /^\s+[0-9a-f]+:\s+(\S+)\s*(.*)$/.exec(line) ?? []
    if (later.test(operands) || (laterNames.test(mnemonic) && !/^ver[rw]/.test(mnemonic))) found.add(name)
  }
  return found
}

// Or in with_avx2 of csrc/platform/wide.h, which no one calls who has not asked the processor.
const asksFirst = /^_ZN6polylm9with_avx2I/

test('instructions beyond x86-64-v2 stand in instruction set files alone', () => {
  const bad = '0000000000000010 <f>:\n  10:\tmovups %xmm0,(%rax)\n0000000000000020 <g>:\n  20:\tvmovups %ymm0,(%rax)\n  28:\tret\n'
  expect([...laterFunctions(bad)]).toEqual(['g'])
  if (here !== 'linux-x64') return                              // other processors have one instruction set file
  const run = (program: string, ...args: string[]): string =>
    execFileSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 30 })
  const folder = path.join(root, 'build-cmake', `${here}-Release`, 'CMakeFiles/polylm_core.dir/csrc/cpu')
  const objects = readdirSync(folder).filter(name => /^isa_.*\.o$/.test(name)).map(name => path.join(folder, name))
  const allowed = new Set(run('nm', ...objects).split('\n').map(line => line.split(' ').at(-1)))
  const used = laterFunctions(run('objdump', '-d', '--no-show-raw-insn', development))
  expect(used.size).toBeGreaterThan(20)                         // the kernels themselves
  expect([...used].filter(name => !allowed.has(name) && !asksFirst.test(name))).toEqual([])
})

// ------------------------------------------------------------------------------------------------- laziness

test('importing the package opens no binary; the first call that needs it does', () => {
  const program = `
    const opened = []
    const real = process.dlopen
    process.dlopen = (...args) => { opened.push(args[1]); return real.apply(process, args) }
    const { Model, demoModel, PolyLMError } = require(${JSON.stringify(path.join(root, 'dist/index.cjs'))})
    const before = opened.length
    void demoModel, PolyLMError
    Model.devices().then(() => { console.log(before, opened.length) })`
  const { stdout } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8' })
  expect(stdout.trim()).toBe('0 1')
})
