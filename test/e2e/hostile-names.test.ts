// hostile-names.test.ts: a model whose directory, tensors, metadata and settings carry terminal escapes, on every way
// to a person: warnings, errors of the library and the core, and what the command line prints.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { isPolyLMError, Model } from '../../lib/index.js'
import { polylm } from './cli-program.js'
import { failure, tinyDir } from './models.js'

const attack = '\x1b[2J\x1b]0;title\x07\x9b31m\u202egpj.exe\u2028'
const active = /(?!\n|\t)[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u
let folder: string
beforeAll(() => { folder = mkdtempSync(path.join(tmpdir(), 'polylm-names-')) })
afterAll(() => { rmSync(folder, { recursive: true, force: true }) })

type Header = Record<string, { dtype?: string; shape?: number[]; data_offsets?: number[] }>

/** The fixture in a directory with a hostile name, its header and config changed. */
function variant(name: string, edit: (header: Header, end: number) => number, config: object = {}): string {
  const dir = path.join(folder, `${name}${attack}`)
  mkdirSync(dir)
  cpSync(tinyDir, dir, { recursive: true })
  const bytes = readFileSync(path.join(tinyDir, 'model.safetensors'))
  const size = Number(bytes.readBigUInt64LE(0))
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + size)) as Header
  const added = edit(header, bytes.length - 8 - size)
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  writeFileSync(path.join(dir, 'model.safetensors'), Buffer.concat([length, text, bytes.subarray(8 + size), Buffer.alloc(added)]))
  const file = path.join(dir, 'config.json')
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')) as object, ...config }))
  return dir
}

const withUnused = (header: Header, end: number): number => {
  header[`unused${attack}`] = { dtype: 'F32', shape: [1], data_offsets: [end, end + 4] }
  return 4
}

test('a model that loads: warnings, logger, inspect', async () => {
  const dir = variant('loads', withUnused)
  const said: string[] = []
  const model = await Model.load(dir, { device: 'cpu', logger: (_, text) => { said.push(text) } })
  expect(model.info.warnings.join('\n')).toContain('unused\\u001b[2J')
  await model.dispose()
  expect(said.length).toBeGreaterThan(0)
  expect([...model.info.warnings, ...said].join('\n')).not.toMatch(active)
  const { status, stdout, stderr } = await polylm(['inspect', dir, '--tensors'])
  expect([status, stderr]).toEqual([0, ''])
  expect(stdout).toContain('unused\\u001b[2J')
  expect(stdout).not.toMatch(active)
  const generated = await polylm(['generate', dir, 'text'])
  expect(generated.stderr).toContain('warning:')
  expect(generated.stderr).not.toMatch(active)
})

test.each<[string, (header: Header, end: number) => number, object]>([
  ['a type', header => { Object.assign(header['transformer.wpe.weight'] ?? {}, { dtype: attack }); return 0 }, {}],
  ['a family', () => 0, { model_type: attack }],
  ['an activation', () => 0, { activation_function: attack }],
  ['a missing layer', withUnused, { n_layer: 9 }],
])('a model that is refused for %s: error, inspect, generate', async (name, edit, config) => {
  const dir = variant(name, edit, config)
  const error = await failure(Model.load(dir, { device: 'cpu' }))
  expect(isPolyLMError(error)).toBe(true)
  expect(`${error.message}\n${error.hint}`).not.toMatch(active)
  for (const command of ['inspect', 'generate']) {
    const { stdout, stderr } = await polylm([command, dir, ...(command === 'generate' ? ['x'] : [])])
    expect(stdout + stderr).not.toMatch(active)
  }
})

test('paths and flags that do not exist', async () => {
  for (const args of [
    ['inspect', `/no/${attack}`], ['generate', '--demo', `--${attack}`], ['generate', '--demo', 'x', '--device', attack],
    ['generate', '--demo', '--messages', `/no/${attack}`], ['score', '--demo', `/no/${attack}`], [attack],
  ]) {
    const { status, stdout, stderr } = await polylm(args)
    expect(status).not.toBe(0)
    expect(stderr).not.toBe('')
    expect(stdout + stderr).not.toMatch(active)
  }
})
