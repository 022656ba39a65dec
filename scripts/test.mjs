#!/usr/bin/env node
// The whole test run (`npm test`): native build with its tests, typecheck, bundle, jest, the fast part of the consumer
// matrix, and one closing line that sums them. Anything that does not build or typecheck counts as one failure. For developers:
//   npm test -- --only native|js     one half
//   npm test -- sampling             only test files and native tests whose name contains the word
// Trap: warnings are errors only when CI is set, as in .ci/run; a user's newer compiler may know new warnings.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { flatten } from './flatten-fixture.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const total = { passed: 0, failed: 0, skipped: 0 }
const broken = []
const longest = 30 * 60_000        // a test that hangs is a failure, not a run without end

/** Runs a command, shows what it prints, resolves with its status and its standard output. */
function run(name, command, args, env = {}) {
  process.stdout.write(`\n== ${name}\n`)
  return new Promise(resolve => {
    const child = spawn(command, args, {
      cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'], timeout: longest,
    })
    let output = ''
    child.stdout.setEncoding('utf8').on('data', text => { output += text; process.stdout.write(text) })
    child.on('error', e => { console.error(`${command}: ${e.message}`); resolve({ status: 1, output }) })
    child.on('close', (code, signal) => {
      if (signal !== null) console.error(`${name} was ended by ${signal}`)
      resolve({ status: code ?? 1, output })
    })
  })
}

/** A step that has no tests of its own: it is in order or it is one failure. */
async function step(name, args, env) {
  const { status } = await run(name, process.execPath, args, env)
  if (status !== 0) fail(name)
  return status === 0
}

function fail(name) {
  total.failed++
  broken.push(name)
}

/** Adds the totals that a runner printed as `label: N passed, N failed, N skipped`. */
function count(label, name, { status, output }) {
  const found = [...output.matchAll(new RegExp(`^${label}: (\\d+) passed, (\\d+) failed, (\\d+) skipped$`, 'gm'))].at(-1)
  if (found === undefined) return fail(name)
  const [passed, failed, skipped] = found.slice(1).map(Number)
  total.passed += passed
  total.failed += failed
  total.skipped += skipped
  if (status !== 0 && failed === 0) fail(name)
}

/** Model fixtures as the flat files that native tests read; returns their folder. */
function flatFixtures() {
  const models = path.join(root, 'test/fixtures/models')
  const folder = path.join(root, 'build-cmake/flat')
  for (const name of readdirSync(models)) {
    const complete = ['config.json', 'expected.json', 'model.safetensors'].every(file => existsSync(path.join(models, name, file)))
    if (complete) flatten(path.join(models, name), path.join(folder, `${name}.flat`))
  }
  return folder
}

/** A native test program of the release build, wherever the generator put it. */
function nativeTests(program = 'polylm_tests', folder = '.') {
  const name = process.platform === 'win32' ? `${program}.exe` : program
  const dir = path.join(root, 'build-cmake', `${process.platform}-${process.arch}-Release`, folder)
  return [dir, path.join(dir, 'Release')].map(d => path.join(d, name)).find(f => existsSync(f))
}

const args = process.argv.slice(2)
const onlyAt = args.indexOf('--only')
const only = onlyAt < 0 ? undefined : args.splice(onlyAt, 2)[1]
if (onlyAt >= 0 && only !== 'native' && only !== 'js') {
  console.error(`--only takes native or js, got ${only}`)
  process.exit(2)
}
const bin = (...parts) => path.join(root, 'node_modules', ...parts)
if (!existsSync(bin('jest')) || readdirSync(bin()).length === 0) {
  console.error('the development dependencies are missing: run npm ci first')
  process.exit(1)
}

const built = await step('native build', [path.join(root, 'scripts/build-native.mjs')], {
  POLYLM_CMAKE_POLYLM_TESTS: only === 'js' ? 'OFF' : 'ON',
  ...(process.env.CI ? { POLYLM_CMAKE_POLYLM_WERROR: 'ON' } : {}),
})
if (built && only !== 'js') {
  const program = nativeTests()
  if (program === undefined) fail('native tests (program not found)')
  else count('native', 'native tests', await run('native tests', program, args.slice(0, 1), { POLYLM_FLAT: flatFixtures() }))
  for (const bench of args.length === 0 ? ['polylm_bench', 'polylm_limits', 'polylm_load_bench'] : []) {
    const file = nativeTests(bench)
    if (file === undefined || (await run(`${bench} --smoke`, file, ['--smoke', '--json'])).status !== 0) fail(bench)
  }
  const emulated = nativeTests('polylm_cuda_emulated', 'test/cuda_emulator')
  if (emulated !== undefined && (args.length === 0 || args[0].includes('cuda'))) {
    count('native', 'CUDA on an emulator', await run('CUDA on an emulator', emulated, args.slice(0, 1), { POLYLM_FLAT: flatFixtures() }))
  }
}
if (only !== 'native') {
  await step('typecheck', [bin('typescript/bin/tsc'), '--noEmit'])
  const bundled = await step('bundle', [bin('tsup/dist/cli-default.js'), '--silent'])
  if (built && bundled) count('jest', 'jest', await run('jest', process.execPath, [bin('jest/bin/jest.js'), ...args]))
  // The matrix calls npm, tar and sh by name, which Windows does not have as such.
  if (built && bundled && process.platform !== 'win32' && (args.length === 0 || args[0] === 'consumers')) {
    count('consumers', 'consumers', await run('consumers', process.execPath, [path.join(root, 'scripts/consumers.mjs'), '--fast']))
  }
}

const nothing = total.passed + total.failed === 0
if (broken.length > 0) console.log(`\nnot in order: ${broken.join(', ')}`)
if (nothing) console.log('\nno test ran')
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`)
process.exitCode = total.failed > 0 || nothing ? 1 : 0
