// The malformed catalogue for tokenizer files: one generated mutation of a small valid tokenizer per
// row and the one code it must get. T08 to T10 are about merges lists, which only tokenizer.json has.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

import { isPolyLMError, type ErrorCode } from '../../lib/errors.js'
import { loadTokenizerFiles } from '../../lib/tokenizer/load.js'
import { LoadedTokenizer, Tokenizer } from '../../lib/tokenizer/tokenizer.js'
import {
  bytePieces, bytesField, charsmapOfRun, floatField, modelFile, numberField, pieceField, smallPieces, specFields,
  tag, varint,
} from '../malformed/sentencepiece-writer.js'

const fixture = path.join(__dirname, '..', 'fixtures', 'tokenizers', 'bpe', 'tokenizer.model')
const config = { add_bos_token: false, tokenizer_class: 'LlamaTokenizer' }

interface Files {
  model?: Uint8Array
  config?: object | string
  map?: object
  added?: object | string
  modelVocabSize?: number
}

const small = (extra: Parameters<typeof pieceField>[0][] = []): Buffer =>
  modelFile({ pieces: [...smallPieces, ...extra] })
const pieces = (...fields: Uint8Array[]): Buffer =>
  Buffer.concat([...smallPieces.map(pieceField), ...fields])
const text = (value: object | string): string =>
  typeof value === 'string' ? value : JSON.stringify(value)

let dir = ''
beforeEach(() => { dir = mkdtempSync(path.join(tmpdir(), 'polylm-tokenizer-')) })
afterEach(() => { rmSync(dir, { recursive: true }) })

async function open(files: Files): Promise<LoadedTokenizer> {
  const write = (name: string, content: string | Uint8Array): void => {
    writeFileSync(path.join(dir, name), content)
  }
  write('tokenizer.model', files.model ?? small())
  write('tokenizer_config.json', text(files.config ?? config))
  if (files.map !== undefined) write('special_tokens_map.json', text(files.map))
  if (files.added !== undefined) write('added_tokens.json', text(files.added))
  return new LoadedTokenizer(await loadTokenizerFiles(dir, {
    compat: 'hf-4.55', legacy: undefined, modelVocabSize: files.modelVocabSize,
  }))
}

const specs = specFields({})
const object = (content: string, more: object = {}): object =>
  ({ content, lstrip: false, rstrip: false, normalized: false, single_word: false, ...more })

const rows: ReadonlyArray<readonly [string, ErrorCode, Files]> = [
  ['T02 no pieces', 'TOKENIZER_FORMAT', { model: specs }],
  ['T03 an added id that is a string', 'TOKENIZER_FORMAT', { added: { x: '8' } }],
  ['T03 an added id of 8.5', 'TOKENIZER_FORMAT', { added: { x: 8.5 } }],
  ['T03 an added id that is null', 'TOKENIZER_FORMAT', { added: { x: null } }],
  ['T03 a bos token beyond the model that every text gets', 'TOKENIZER_RANGE',
    { config: { ...config, add_bos_token: true, bos_token: '<bos>' }, modelVocabSize: 8 }],
  ['T04 two added tokens with one id', 'TOKENIZER_DUPLICATE', { added: { x: 8, y: 8 } }],
  ['T05 a piece twice', 'TOKENIZER_DUPLICATE', { model: small([{ text: 'ab' }]) }],
  ['T05 a piece with the name of a control piece', 'TOKENIZER_DUPLICATE',
    { model: small([{ text: '<s>' }]) }],
  ['T05 an added token that is another piece', 'TOKENIZER_DUPLICATE', { added: { ab: 8 } }],
  ['T05 an added token twice', 'TOKENIZER_DUPLICATE',
    { config: { ...config, added_tokens_decoder: { 8: object('x'), 9: object('x') } } }],
  ['T07 a piece of 4097 bytes', 'LIMIT', { model: small([{ text: 'x'.repeat(4097) }]) }],
  ['T07 an empty piece', 'TOKENIZER_FORMAT', { model: small([{ text: '' }]) }],
  ['T07 a piece that is not UTF-8', 'TOKENIZER_FORMAT',
    { model: small([{ text: Buffer.from([0xe2, 0x96]) }]) }],
  ['T07 a byte piece <0xG0>', 'TOKENIZER_FORMAT', {
    model: modelFile({ pieces: [...smallPieces, { text: '<0xG0>', type: 6 }], byteFallback: true }),
  }],
  ['T07 a byte piece without byte fallback', 'TOKENIZER_FORMAT',
    { model: small([{ text: '<0x41>', type: 6 }]) }],
  ['T07 byte fallback with 255 byte pieces', 'TOKENIZER_FORMAT', {
    model: modelFile({ pieces: [...smallPieces, ...bytePieces.slice(1)], byteFallback: true }),
  }],
  ['T07 a piece of type 7', 'TOKENIZER_FORMAT', { model: small([{ text: 'x', type: 7 }]) }],
  ['T11 a score that is NaN', 'TOKENIZER_FORMAT', { model: small([{ text: 'x', score: NaN }]) }],
  ['T11 a score that is infinite', 'TOKENIZER_FORMAT',
    { model: small([{ text: 'x', score: -Infinity }]) }],
  ['T11 a score that is a string', 'PROTO_FORMAT', {
    model: pieces(bytesField(1, Buffer.concat([
      bytesField(1, Buffer.from('x')), bytesField(2, Buffer.from('1')),
    ])), specs),
  }],
  ['T12 a word model', 'TOKENIZER_UNSUPPORTED',
    { model: modelFile({ pieces: smallPieces, modelType: 3 }) }],
  ['T12 a character model', 'TOKENIZER_UNSUPPORTED',
    { model: modelFile({ pieces: smallPieces, modelType: 4 }) }],
  ['T12 another tokenizer class', 'TOKENIZER_UNSUPPORTED',
    { config: { tokenizer_class: 'BertTokenizer' } }],
  ['T13 a denormaliser', 'TOKENIZER_UNSUPPORTED',
    { model: Buffer.concat([small(), bytesField(5, bytesField(2, Buffer.from('abcd')))]) }],
  ['T13 a damaged character map', 'TOKENIZER_FORMAT',
    { model: modelFile({ pieces: smallPieces, charsmap: Buffer.from('abcdefgh') }) }],
  ['T13 a rule that leads back to its beginning', 'TOKENIZER_FORMAT',
    { model: modelFile({ pieces: smallPieces, charsmap: charsmapOfRun(3, 1) }) }],
  ['T13 a rule that leads back to itself', 'TOKENIZER_FORMAT',
    { model: modelFile({ pieces: smallPieces, charsmap: charsmapOfRun(1, 1) }) }],
  ['T13 a rule for 257 bytes', 'LIMIT',
    { model: modelFile({ pieces: smallPieces, charsmap: charsmapOfRun(257) }) }],
  ['T13 sampling', 'TOKENIZER_UNSUPPORTED',
    { config: { ...config, sp_model_kwargs: { enable_sampling: true } } }],
  ['T13 clean_up_tokenization_spaces', 'TOKENIZER_UNSUPPORTED',
    { config: { ...config, clean_up_tokenization_spaces: true } }],
  ['T13 single_word', 'TOKENIZER_UNSUPPORTED',
    { config: { ...config, bos_token: object('<s>', { single_word: true }) } }],
  ['T14 an added token on a piece\'s id', 'TOKENIZER_CONFLICT', { added: { x: 4 } }],
  ['T15 an added token of 4097 bytes', 'LIMIT', { added: { ['x'.repeat(4097)]: 8 } }],
  ['T16 a special token that is a number', 'TOKENIZER_FORMAT',
    { config: { ...config, bos_token: 1 } }],
  ['T16 a list that is none', 'TOKENIZER_FORMAT', { map: { additional_special_tokens: 'x' } }],
  ['T16 bos to be added, but none there', 'TOKENIZER_CONFLICT',
    { config: { ...config, add_bos_token: true, bos_token: null } }],
  ['T16 a flag that is a string', 'TOKENIZER_FORMAT', { config: { ...config, legacy: 'no' } }],
  ['T16 a config that is a list', 'TOKENIZER_FORMAT', { config: '[]' }],
  ['T16 a config that is no JSON', 'JSON_SYNTAX', { config: '{' }],
  ['T16 a byte piece that is special', 'TOKENIZER_CONFLICT', {
    model: modelFile({ pieces: [...smallPieces, ...bytePieces], byteFallback: true }),
    config: { ...config, eos_token: '<0x0A>' },
  }],
  ['T16 a byte piece that is an additional special token', 'TOKENIZER_CONFLICT', {
    model: modelFile({ pieces: [...smallPieces, ...bytePieces], byteFallback: true }),
    map: { additional_special_tokens: ['<0x41>'] },
  }],
  ['T17 no unknown piece', 'TOKENIZER_FORMAT', { model: modelFile({ pieces: smallPieces.slice(1) }) }],
  ['T17 two unknown pieces', 'TOKENIZER_FORMAT', { model: small([{ text: 'x', type: 2 }]) }],
  ['T18 an empty file', 'PROTO_FORMAT', { model: Buffer.alloc(0) }],
  ['T18 text', 'PROTO_FORMAT', { model: Buffer.from('version https://git-lfs.github.com/spec') }],
  ['T18 a number of 11 bytes', 'PROTO_FORMAT',
    { model: pieces(tag(9, 0), Buffer.alloc(10, 0x80), Buffer.from([0])) }],
  ['T18 a number of 65 bits', 'PROTO_FORMAT',
    { model: pieces(tag(9, 0), Buffer.alloc(9, 0x80), Buffer.from([2])) }],
  ['T18 a length beyond the file', 'PROTO_FORMAT', { model: pieces(tag(1, 2), varint(1000)) }],
  ['T18 a length of 2^32', 'PROTO_FORMAT', { model: pieces(tag(1, 2), varint(2n ** 32n)) }],
  ['T18 a length of 2^63', 'PROTO_FORMAT', { model: pieces(tag(1, 2), varint(2n ** 63n)) }],
  ['T18 a group', 'PROTO_FORMAT', { model: pieces(tag(9, 3), specs) }],
  ['T18 a deep nest of groups', 'PROTO_FORMAT',
    { model: pieces(Buffer.alloc(100_000, tag(9, 3)), specs) }],
  ['T18 wire type 7', 'PROTO_FORMAT', { model: pieces(tag(9, 7), specs) }],
  ['T18 field number 0', 'PROTO_FORMAT', { model: pieces(Buffer.from([0, 0]), specs) }],
  ['T18 a spec twice', 'PROTO_FORMAT', { model: pieces(specs, specs) }],
  ['T18 a field of a spec twice', 'PROTO_FORMAT', {
    model: pieces(bytesField(2, Buffer.concat([numberField(3, 1), numberField(3, 1)])),
      bytesField(3, Buffer.alloc(0))),
  }],
  ['T18 the text of a piece twice', 'PROTO_FORMAT', {
    model: pieces(bytesField(1, Buffer.concat([
      bytesField(1, Buffer.from('x')), bytesField(1, Buffer.from('y')), floatField(2, 0),
    ])), specs),
  }],
  ['T18 a piece that is a number', 'PROTO_FORMAT', { model: pieces(numberField(1, 5), specs) }],
  ['T18 a piece with 64 KiB beside its text', 'LIMIT', {
    model: pieces(bytesField(1, bytesField(9, Buffer.alloc(65_536))), specs),
  }],
  ['T18 a spec of more than 4 MiB', 'LIMIT', {
    model: pieces(bytesField(2, bytesField(9, Buffer.alloc(4 * 1024 * 1024)))),
  }],
  ['T18 no specs', 'PROTO_FORMAT', { model: pieces() }],
  ['T27 more pieces than the model has', 'TOKENIZER_CONFLICT', { modelVocabSize: 7 }],
]

test.each(rows)('%s: %s', async (_, code, files) => {
  const error: unknown = await open(files).then(() => 'no error', (e: unknown) => e)
  if (!isPolyLMError(error)) throw new Error(`expected ${code}`, { cause: error })
  expect([error.code, error.message]).toEqual([code, error.message])
  expect(error.message).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
  expect(error.message.length).toBeLessThan(1500)
})

test('every row has its own name', () => {
  expect(new Set(rows.map(([name]) => name)).size).toBe(rows.length)
})

test('the small tokenizer itself loads', async () => {
  const tokenizer = await open({})
  expect([...tokenizer.encode('a ab')]).toEqual([3, 4, 3, 6])
  expect(tokenizer.specialTokens.all).toHaveLength(3)
})

test('T01: no tokenizer, no directory, only tokenizer.json', async () => {
  const missing: unknown = await Tokenizer.load(dir).catch((e: unknown) => e)
  expect(missing).toMatchObject({ code: 'TOKENIZER_MISSING' })
  expect((missing as { hint: string }).hint).toContain('looked for tokenizer.model')
  await expect(Tokenizer.load(path.join(dir, 'no'))).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' })
  writeFileSync(path.join(dir, 'tokenizer.json'), '{}')
  await expect(Tokenizer.load(dir)).rejects.toMatchObject({ code: 'TOKENIZER_UNSUPPORTED' })
})

test('T06: a hole in the ids decodes to nothing, and so do the padding rows of the model', async () => {
  const tokenizer = await open({ added: { x: 11 }, modelVocabSize: 16 })
  expect(tokenizer.vocabSize).toBe(12)
  expect(tokenizer.decode([4, 9, 15, 5])).toBe('ab')
})

test('T07: pieces of 4096 bytes and with a zero byte are legal', async () => {
  const long = 'x'.repeat(4096)
  const model = small([{ text: long, score: -1 }, { text: 'a\0b', score: -1 }])
  const tokenizer = await open({ model })
  expect([...tokenizer.encode(`${long}a\0b`)]).toEqual([3, 8, 9])
  expect(tokenizer.decode([8, 9])).toBe(`${long}a\0b`)
})

test('T13: a rule for 256 bytes is legal, and is applied', async () => {
  const tokenizer = await open({ model: modelFile({ pieces: [...smallPieces, { text: 'y', score: -1 }], charsmap: charsmapOfRun(256) }) })
  expect([...tokenizer.encode('a'.repeat(256))]).toEqual([3, 8])
})

test('T18: fields that nobody knows are skipped', async () => {
  const unknown = Buffer.concat([
    numberField(9, 2n ** 63n), floatField(200, 1), bytesField(77, Buffer.from('x')),
    tag(78, 1), Buffer.alloc(8), numberField(9, 1),
  ])
  const tokenizer = await open({ model: Buffer.concat([unknown, small()]) })
  expect([...tokenizer.encode('ab')]).toEqual([3, 6])
})

test('T19: tokenizer.model cut at every hundredth of its length', async () => {
  const whole = readFileSync(fixture)
  for (let part = 0; part < 100; part++) {
    const model = whole.subarray(0, Math.floor((whole.length * part) / 100))
    const error: unknown = await open({ model }).catch((e: unknown) => e)
    expect([part, error]).toMatchObject([part, { code: 'PROTO_FORMAT' }])
  }
})

test('random damage gives a typed error or a tokenizer, never anything else', async () => {
  const whole = modelFile({ pieces: [...smallPieces, ...bytePieces], byteFallback: true })
  let seed = 20_230_711
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fff_ffff
    return seed % below
  }
  for (let round = 0; round < 400; round++) {
    const model = Buffer.from(whole)
    for (let k = 0; k <= random(3); k++) model[random(model.length)] = random(256)
    const outcome: unknown = await open({ model }).catch((e: unknown) => e)
    if (outcome instanceof LoadedTokenizer) outcome.decode(outcome.encode('a <s> é'))
    else expect(isPolyLMError(outcome)).toBe(true)
  }
})
