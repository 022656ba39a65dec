// errors.test.ts: errors of the built package where they are met outside of a test: printed by Node, inside of somebody's
// bundle, where Node may not load addons or read files. Trap: dist and build/Release must be built.
import { execFileSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { demoModel } from '../../lib/index.js'
import { execute, root } from './cli-program.js'

const bundle = path.join(root, 'dist/index.cjs')
const load = `const { Model, demoModel } = require(${JSON.stringify(bundle)})
  Model.load(process.argv[1] ?? demoModel).then(model => model.generate('a', { topK: -1 }))
    .catch(e => { console.log(JSON.stringify(e)) })`

interface Shown { readonly code: string; readonly message: string; readonly hint: string }
const node = async (...args: string[]): Promise<Shown> => {
  const { stdout, stderr } = await execute(process.execPath, args)
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout) as Shown
}

test('what nobody catches is printed with code, message, hint and data', async () => {
  const program = `const { PolyLMError } = require(${JSON.stringify(bundle)})
    throw new PolyLMError('INVALID_OPTION', 'topK: found -1', { hint: 'use 0', option: 'topK', value: -1, reason: 'small' })`
  const { status, stderr } = await execute(process.execPath, ['-e', program])
  expect(status).toBe(1)
  expect(stderr).toMatch(/^PolyLMError \[INVALID_OPTION\]: topK: found -1\n +at \[eval\]/m)
  for (const part of ["hint: 'use 0'", "option: 'topK'", 'value: -1']) expect(stderr).toContain(part)
})

describe('where Node may not load addons', () => {
  const version = process.versions.node.split('.').map(Number)
  const flag = (version[0] ?? 0) >= 24 ? '--permission' : '--experimental-permission'
  const hasModel = process.allowedNodeEnvironmentFlags.has('--allow-addons')

  test('--no-addons is named', async () => {
    expect(await node('--no-addons', '-e', load)).toMatchObject({
      code: 'NO_BINARY', hint: expect.stringContaining('without --no-addons') as string,
    })
  })

  test('the permission model\'s flags are named: for the addon, its folder, and the model\'s', async () => {
    if (!hasModel) return                                        // older than Node 20.12
    const readable = [bundle, `${root}/node_modules/node-gyp-build/*`, `${root}/package.json`].map(file => `--allow-fs-read=${file}`)
    for (const allowed of [['--allow-fs-read=*'], readable, [...readable, '--allow-addons']]) {
      const { code, hint } = await node(flag, '--no-warnings', ...allowed, '-e', load)
      expect([code, hint]).toEqual(['NO_BINARY', expect.stringContaining(`--allow-addons --allow-fs-read=${root}/*`)])
    }
    const elsewhere = mkdtempSync(path.join(realpathSync(tmpdir()), 'polylm-model-'))
    cpSync(demoModel, elsewhere, { recursive: true })
    const right = ['--allow-addons', `--allow-fs-read=${root}/*`, '--allow-fs-read=/etc/alpine-release']
    const shown = await node(flag, '--no-warnings', ...right, '-e', load, elsewhere)
    rmSync(elsewhere, { recursive: true })
    expect(shown.hint).toContain(`--allow-fs-read=${elsewhere}`)
    // What the hints say is enough.
    expect((await node(flag, '--no-warnings', ...right, '-e', load)).code).toBe('INVALID_OPTION')
  })
})

// esbuild comes with tsup. A program of its own for each, as users have them.
describe('a bundle that took polylm in', () => {
  let folder = ''
  const esbuild = createRequire(createRequire(path.join(root, 'package.json')).resolve('tsup')).resolve('esbuild/bin/esbuild')
  const use = `Model.load(demoModel).catch(e => { console.log(JSON.stringify(e)) })`
  const entries = {
    'entry.mjs': `import { demoModel, Model } from 'polylm'\n${use}`,
    'entry.cjs': `const { demoModel, Model } = require('polylm')\n${use}`,
  }

  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'polylm-bundle #100% '))
    for (const name of ['package.json', 'dist/index.js', 'dist/index.cjs']) {
      const to = path.join(folder, 'node_modules/polylm', name)
      mkdirSync(path.dirname(to), { recursive: true })
      cpSync(path.join(root, name), to)
    }
    cpSync(path.join(root, 'node_modules/node-gyp-build'), path.join(folder, 'node_modules/node-gyp-build'), { recursive: true })
    for (const [name, text] of Object.entries(entries)) writeFileSync(path.join(folder, name), text)
  })
  afterAll(() => { rmSync(folder, { recursive: true, force: true }) })

  function build(entry: string, format: string, to: string, ...more: string[]): string {
    const file = path.join(folder, to, `${entry.replace('.', '-')}.${format === 'esm' ? 'mjs' : 'cjs'}`)
    const args = [entry, '--bundle', '--platform=node', `--format=${format}`, `--outfile=${file}`, '--log-level=error', ...more]
    execFileSync(esbuild, args, { cwd: folder, shell: process.platform === 'win32' })
    expect(existsSync(file)).toBe(true)
    return file
  }

  test.each([
    ['entry.mjs', 'esm', []], ['entry.mjs', 'cjs', []], ['entry.cjs', 'cjs', []], ['entry.mjs', 'esm', ['--minify']],
  ])('%s as %s %p says so', async (entry, format, more) => {
    const shown = await node(build(entry, format, 'out', ...more))
    expect(shown).toMatchObject({ code: 'NO_BINARY', hint: expect.stringContaining('leave it out of the bundle') as string })
    expect(shown.message).toContain('looked in')
  })

  test('moved to where there is no package at all, it still says so', async () => {
    const away = mkdtempSync(path.join(tmpdir(), 'polylm-away-'))
    for (const format of ['esm', 'cjs']) {
      const file = path.join(away, path.basename(build('entry.mjs', format, 'out')))
      cpSync(path.join(folder, 'out', path.basename(file)), file)
      expect(await node(file)).toMatchObject({ code: 'NO_BINARY', hint: expect.stringContaining('leave it out of the bundle') as string })
    }
    rmSync(away, { recursive: true })
  })
})
