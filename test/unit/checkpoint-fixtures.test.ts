// Every file of test/fixtures/loader behaves as its expected.json says, and the model fixtures give
// the right tables.

import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { openCheckpoint } from '../../lib/checkpoint/open.js'
import { tensorSummary } from '../../lib/checkpoint/summary.js'
import type { Checkpoint } from '../../lib/checkpoint/types.js'
import { isPolyLMError } from '../../lib/errors.js'
import { hashCheckpoint } from '../malformed/read-tensor.js'

interface Expected {
  readonly ok: boolean | 'optional'
  readonly comment: string
  readonly tensors?: Readonly<Record<string, { dtype: string; shape: number[]; sha256: string }>>
}

const fixtures = join(__dirname, '..', 'fixtures')
const loader = join(fixtures, 'loader')
const expected = JSON.parse(readFileSync(join(loader, 'expected.json'), 'utf8')) as {
  readonly files: Readonly<Record<string, Expected>>
}
const dtypeNames: Readonly<Record<string, string>> = {
  bfloat16: 'BF16',
  float16: 'F16',
  float32: 'F32',
  float64: 'F64',
  int64: 'I64',
  uint8: 'U8',
  bool: 'BOOL',
}
// Which refusal each damaged or optional file gets.
const refusals: Readonly<Record<string, string>> = {
  'legacy-not-zip.bin': 'FORMAT_UNKNOWN',
  'evil.bin': 'PICKLE_GLOBAL',
  'trunc.bin': 'ZIP_FORMAT',
  'deflated.bin': 'ZIP_UNSUPPORTED',
  'overlap.safetensors': 'TENSOR_OFFSETS',
  'hole.safetensors': 'TENSOR_OFFSETS',
  'tail.safetensors': 'FILE_UNCOVERED',
  'short.safetensors': 'FILE_TRUNCATED',
  'badsize.safetensors': 'TENSOR_OFFSETS',
  'baddtype.safetensors': 'TENSOR_DTYPE',
  'hugeheader.safetensors': 'HEADER_SIZE',
  'longheader.safetensors': 'HEADER_SIZE',
  'notjson.safetensors': 'JSON_SYNTAX',
  'overflow.safetensors': 'TENSOR_OVERFLOW',
  'negative.safetensors': 'TENSOR_OFFSETS',
  'dupkeys.safetensors': 'JSON_DUPLICATE',
  'empty.safetensors': 'FILE_TRUNCATED',
  'seven.safetensors': 'FILE_TRUNCATED',
}

let scratch: string

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'polylm-loader-'))
  copyFileSync(join(fixtures, 'models', 'gpt2-tiny', 'config.json'), join(scratch, 'config.json'))
})

afterEach(() => {
  rmSync(scratch, { recursive: true })
})

// Under either name: what a file is called must not matter.
async function openAs(name: string, source: string): Promise<Checkpoint> {
  copyFileSync(source, join(scratch, name))
  return await openCheckpoint(scratch)
}

describe.each(Object.entries(expected.files))('%s', (file, { ok, comment, tensors }) => {
  const refusal = refusals[file]
  const names = ['model.safetensors', 'pytorch_model.bin'] as const

  test('is accepted or refused as expected.json says', () => {
    expect(ok === 'optional' || ok === (refusal === undefined)).toBe(true)
  })

  test.each(names)(`as %s: ${comment}`, async name => {
    const opened = openAs(name, join(loader, file))
    if (refusal !== undefined) {
      await expect(opened).rejects.toMatchObject({ name: 'PolyLMError', code: refusal })
      return
    }
    const checkpoint = await opened
    const hashes = hashCheckpoint(checkpoint)
    const found = checkpoint.tensors.map(({ name, dtype, shape }) => ({
      name,
      dtype,
      shape,
      sha256: hashes.get(name),
    }))
    const wanted = Object.entries(tensors ?? {}).map(([name, { dtype, shape, sha256 }]) => ({
      name,
      dtype: dtypeNames[dtype],
      shape,
      sha256,
    }))
    const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1)
    expect(found.sort(byName)).toEqual(wanted.sort(byName))
  })
})

test('a pickle that names os.system runs nothing and says so', async () => {
  // posix.system would run a shell; a shell started by this process would be its child and print.
  const error = await openAs('pytorch_model.bin', join(loader, 'evil.bin')).catch((e: unknown) => e)
  if (!isPolyLMError(error)) throw new Error('expected a PolyLMError')
  expect(error.message).toContain('posix.system')
  expect(error.hint).toContain('nothing was executed')
})

test('tied weights share a storage, and each storage has its checksum once', async () => {
  const checkpoint = await openAs('pytorch_model.bin', join(loader, 'bf16-shared.bin'))
  const find = (name: string) => checkpoint.tensors.find(tensor => tensor.name === name)
  const head = find('lm_head.weight')
  const table = find('transformer.wte.weight')
  expect(head?.storageId).toBe(table?.storageId)
  expect(head?.offset).toBe(table?.offset)
  expect(checkpoint.storages).toHaveLength(7)
  expect(find('transformer.h.0.mlp.c_fc.weight')?.strides).toEqual([1, 24])
  expect(new Set(checkpoint.storages.map(({ offset }) => offset)).size).toBe(7)
})

test('views of one storage keep offset, strides and span', async () => {
  const { tensors } = await openAs('pytorch_model.bin', join(loader, 'views.bin'))
  const entry = (name: string) => {
    const found = tensors.find(tensor => tensor.name === name)
    if (found === undefined) throw new Error(name)
    return found
  }
  const whole = entry('whole')
  expect(entry('expanded')).toMatchObject({ shape: [4, 12], strides: [0, 1], bytes: 24 })
  expect(entry('transposed')).toMatchObject({ strides: [1, 12], offset: whole.offset, bytes: 240 })
  expect(entry('empty').bytes).toBe(0)
  expect(entry('col_slice').storageId).toBe(whole.storageId)
  expect(entry('int64').storageId).not.toBe(whole.storageId)
})

describe('model fixtures', () => {
  const open = async (name: string) => await openCheckpoint(join(fixtures, 'models', name))

  test('gpt2-tiny: config and table', async () => {
    const checkpoint = await open('gpt2-tiny')
    expect(checkpoint.config).toEqual({
      family: 'gpt2',
      layers: 3,
      heads: 2,
      hiddenSize: 256,
      innerSize: 1024,
      contextSize: 256,
      vocabSize: 512,
      layerNormEpsilon: 1e-5,
      activation: 'gelu_tanh',
      tieWordEmbeddings: true,
      scaleAttention: true,
      bosTokenId: 1,
      eosTokenIds: [2],
      padTokenId: 0,
      dtype: 'bfloat16',
      raw: {},
    })
    expect(checkpoint.generationConfig).toEqual({
      bos_token_id: 1,
      eos_token_id: 2,
      pad_token_id: 0,
    })
    expect(checkpoint.format).toBe('safetensors')
    expect(checkpoint.storages).toEqual([])
    expect(checkpoint.warnings).toEqual([])
    const perLayer = 4 * 256 * 256 + 2 * 256 * 1024 + (3 + 1 + 1) * 256 + 1024 + 4 * 256
    const parameters = (512 + 256) * 256 + 3 * perLayer + 2 * 256
    expect(tensorSummary(checkpoint).parameters).toBe(parameters)
  })

  test('gpt2-mid: an untied head counts', async () => {
    const checkpoint = await open('gpt2-mid')
    expect(checkpoint.config).toMatchObject({ tieWordEmbeddings: false, innerSize: 1536 })
    const summary = tensorSummary(checkpoint)
    const perLayer = 4 * 512 * 512 + 2 * 512 * 1536 + (3 + 1 + 1) * 512 + 1536 + 4 * 512
    expect(summary.parameters).toBe((2000 + 2000 + 512) * 512 + 2 * perLayer + 2 * 512)
    expect(summary.bytesByDtype.BF16).toBeGreaterThanOrEqual(2 * summary.parameters)
    const [file] = checkpoint.files
    expect(summary.uniqueBytes).toBeLessThan(file?.size ?? 0)
    expect(summary.uniqueBytes).toBeGreaterThan((file?.size ?? 0) - 10_000)
  })

  test('gpt2-tiny-bin: two shards hold the tensors of gpt2-tiny', async () => {
    const bin = await open('gpt2-tiny-bin')
    const plain = await open('gpt2-tiny')
    expect(bin.format).toBe('torch')
    expect(bin.files.map(({ path }) => path.slice(-8))).toEqual(['0002.bin', '0002.bin'])
    expect(bin.warnings).toEqual([])
    const hashes = hashCheckpoint(bin)
    const wanted = hashCheckpoint(plain)
    for (const [name, hash] of wanted) expect([name, hashes.get(name)]).toEqual([name, hash])
    const extra = [...hashes.keys()].filter(name => !wanted.has(name))
    expect(extra.every(name => /attn\.(masked_)?bias$|^lm_head\.weight$/.test(name))).toBe(true)
    expect(tensorSummary(bin).parameters).toBe(tensorSummary(plain).parameters)
    const transposed = bin.tensors.filter(({ strides }) => strides.length === 2 && strides[0] === 1)
    expect(transposed.length).toBeGreaterThan(0)
  })

  test('every storage lies in its file with the checksum that the archive gives', async () => {
    const bin = await open('gpt2-tiny-bin')
    const files = bin.files.map(({ path }) => readFileSync(path))
    expect(bin.storages.length).toBeGreaterThan(0)
    for (const { file, offset, bytes, crc32 } of bin.storages) {
      const data = files[file]?.subarray(offset, offset + bytes) ?? Buffer.alloc(0)
      expect(data).toHaveLength(bytes)
      expect(slowCrc32(data)).toBe(crc32)
    }
  })
})

test('a config without weights names what is missing', async () => {
  await expect(openCheckpoint(scratch)).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' })
  await expect(openCheckpoint(join(scratch, 'config.json'))).rejects.toMatchObject({
    code: 'FILE_IO',
  })
  await expect(openCheckpoint('DAMO-NLP-MT/polylm-1.7b')).rejects.toMatchObject({
    code: 'FILE_NOT_FOUND',
    hint: expect.stringContaining('hub') as string,
  })
})

test('an aborted open rejects with the reason itself', async () => {
  const reason = new Error('changed my mind')
  const dir = join(fixtures, 'models', 'gpt2-tiny-bin')
  await expect(openCheckpoint(dir, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  writeFileSync(join(scratch, 'model.safetensors'), '')
  const controller = new AbortController()
  const opening = openCheckpoint(scratch, { signal: controller.signal })
  controller.abort(reason)
  await expect(opening).rejects.toBe(reason)
})

// Bit by bit, unlike the reader's table.
function slowCrc32(bytes: Buffer): number {
  let crc = -1
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1))
  }
  return ~crc >>> 0
}
