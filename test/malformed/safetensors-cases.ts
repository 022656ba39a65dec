// safetensors-cases.ts: the rows S01 to S49 of the catalogue, and the files they are made of.

import { le, type Case } from './case.js'

/** One tensor of a header; unknown, since most rows break something. */
export type Entry = Readonly<Record<string, unknown>>

/** The two tensors of the valid file. */
export const tinyHeader: Readonly<Record<string, Entry>> = {
  a: { dtype: 'F32', shape: [2, 3], data_offsets: [0, 24] },
  b: { dtype: 'BF16', shape: [4], data_offsets: [24, 32] },
}

/** Their bytes. */
export const tinyData = Buffer.from(Array.from({ length: 32 }, (_, i) => i + 1))

/** A file of this header, whose length may be told wrongly. */
export function safetensors(
  header: Readonly<Record<string, unknown>> | string | Buffer,
  data: Buffer = tinyData,
  length?: bigint,
): Buffer {
  const text =
    typeof header === 'string' || Buffer.isBuffer(header) ? header : JSON.stringify(header)
  const bytes = Buffer.from(text as string)
  return Buffer.concat([le(length ?? BigInt(bytes.length), 8), bytes, data])
}

const tiny = safetensors(tinyHeader)
const headerText = JSON.stringify(tinyHeader)

// Tensor `a` changed, or a text in the header replaced.
const withA = (change: Entry): Buffer =>
  safetensors({ ...tinyHeader, a: { ...tinyHeader['a'], ...change } })
const withText = (from: string, to: string): Buffer => {
  if (!headerText.includes(from)) throw new Error(`no ${from} in the header`)
  return safetensors(headerText.replace(from, to))
}
const without = (key: string): Buffer => {
  const { [key]: _, ...rest } = tinyHeader['a'] ?? {}
  return safetensors({ ...tinyHeader, a: rest })
}
const empties = (count: number): Buffer => {
  const names = Array.from({ length: count }, (_, i) => `t${i}`)
  const entry = { dtype: 'F32', shape: [0], data_offsets: [0, 0] }
  return safetensors(Object.fromEntries(names.map(name => [name, entry])), Buffer.alloc(0))
}
const escapes = (...bytes: number[]): Buffer =>
  safetensors(
    Buffer.concat([Buffer.from('{"'), Buffer.from(bytes), Buffer.from(headerText.slice(2))]),
  )

type Row = readonly [id: string, what: string, expected: Case['expected'], file: () => Buffer]

const shapeRows: readonly Row[] = [
  ['S19', 'dimension -1', 'TENSOR_SHAPE', () => withA({ shape: [-1, 3] })],
  ...['1.5', '1.0', '1e3', '-0', '01', '2.0'].map((dim): Row => [
    'S20',
    `dimension ${dim}`,
    'JSON_NUMBER',
    () => withText('"shape":[2,3]', `"shape":[${dim},3]`),
  ]),
  ...['"2"', 'null', 'true', '[]', '{}'].map((dim): Row => [
    'S21',
    `dimension ${dim}`,
    'TENSOR_SHAPE',
    () => withText('"shape":[2,3]', `"shape":[${dim},3]`),
  ]),
  ['S22', 'dimension 2^40 + 1', 'TENSOR_OVERFLOW', () => withA({ shape: [2 ** 40 + 1] })],
  ...['18446744073709551616', '9'.repeat(40)].map((dim): Row => [
    'S23',
    `dimension ${dim}`,
    'JSON_NUMBER',
    () => withText('[2,3]', `[${dim}]`),
  ]),
  ['S24', '[2^32, 2^32]', 'TENSOR_OVERFLOW', () => withA({ shape: [2 ** 32, 2 ** 32] })],
  ['S24', 'eight times 2^40', 'TENSOR_OVERFLOW', () => withA({ shape: Array(8).fill(2 ** 40) })],
  ['S25', '[2^62] F32', 'TENSOR_OVERFLOW', () => withText('[2,3]', '[4611686018427387904]')],
  ['S25', '[-2^62]', 'TENSOR_SHAPE', () => withText('[2,3]', '[-4611686018427387904]')],
  ['S26', 'rank 9', 'TENSOR_SHAPE', () => withA({ shape: Array(9).fill(1) })],
  ['S26', 'rank 100,000', 'TENSOR_SHAPE', () => withA({ shape: Array(100_000).fill(1) })],
  ['S26', 'rank 8', 'ok', () => withA({ shape: [2, 3, 1, 1, 1, 1, 1, 1] })],
  ['S27', 'shape missing', 'TENSOR_SHAPE', () => without('shape')],
  ['S27', 'shape an object', 'TENSOR_SHAPE', () => withA({ shape: { 0: 2 } })],
]

const entryRows: readonly Row[] = [
  ...['F12', 'f32', '', 'toString', '__proto__'].map((dtype): Row => [
    'S28',
    `dtype "${dtype}"`,
    'TENSOR_DTYPE',
    () => withA({ dtype }),
  ]),
  ['S29', 'dtype missing', 'TENSOR_DTYPE', () => without('dtype')],
  ['S29', 'dtype a number', 'TENSOR_DTYPE', () => withA({ dtype: 32 })],
  ['S30', 'F4 with an odd count', 'TENSOR_DTYPE', () => withA({ dtype: 'F4', shape: [5] })],
  ['S30', 'F4 with an even count', 'ok', () => withA({ dtype: 'F4', shape: [48] })],
  ['S31', 'data_offsets missing', 'TENSOR_OFFSETS', () => without('data_offsets')],
  ...[[0], [0, 24, 24], ['0', '24'], [null, 24], 24].map((offsets): Row => [
    'S31',
    `data_offsets ${JSON.stringify(offsets)}`,
    'TENSOR_OFFSETS',
    () => withA({ data_offsets: offsets }),
  ]),
  ['S31', 'data_offsets [0.0, 24]', 'JSON_NUMBER', () => withText('[0,24]', '[0.0,24]')],
  ['S31', 'data_offsets beyond 2^53', 'TENSOR_OFFSETS', () => withText('24]', '9007199254740993]')],
  ['S32', 'begin > end', 'TENSOR_OFFSETS', () => withA({ data_offsets: [24, 0] })],
  ['S33', 'end beyond the file', 'TENSOR_OFFSETS', () => withA({ data_offsets: [0, 2400] })],
  ['S35', 'one byte less', 'TENSOR_OFFSETS', () => withA({ data_offsets: [0, 23] })],
  ['S35', 'one byte more', 'TENSOR_OFFSETS', () => withA({ data_offsets: [0, 25] })],
  ['S47', 'unknown key in an entry', 'JSON_SYNTAX', () => withA({ strides: [3, 1] })],
  ['S47', 'entry not an object', 'JSON_SYNTAX', () => safetensors({ ...tinyHeader, c: 7 })],
]

const f32 = (count: number, begin: number): Entry => ({
  dtype: 'F32',
  shape: [count],
  data_offsets: [begin, begin + 4 * count],
})
const u8 = (count: number, begin: number): Entry => ({
  dtype: 'U8',
  shape: [count],
  data_offsets: [begin, begin + count],
})

const tilingRows: readonly Row[] = [
  [
    'S34',
    'overlap by one byte',
    'TENSOR_OFFSETS',
    () => safetensors({ a: u8(17, 0), b: u8(16, 16) }),
  ],
  ['S34', 'overlap fully', 'TENSOR_OFFSETS', () => safetensors({ a: f32(8, 0), b: f32(8, 0) })],
  [
    'S34',
    'one inside another',
    'TENSOR_OFFSETS',
    () => safetensors({ a: f32(8, 0), b: f32(1, 8) }),
  ],
  [
    'S34',
    'crossed, with equal sums',
    'TENSOR_OFFSETS',
    () => safetensors({ a: f32(4, 0), b: f32(4, 8), c: f32(2, 24) }),
  ],
  [
    'S34',
    'empty tensor inside another',
    'TENSOR_OFFSETS',
    () => safetensors({ a: f32(8, 0), b: f32(0, 8) }),
  ],
  ['S36', 'hole', 'TENSOR_OFFSETS', () => safetensors({ a: f32(2, 0), b: f32(4, 16) })],
  ['S37', 'first tensor not at 0', 'TENSOR_OFFSETS', () => safetensors({ a: f32(6, 8) })],
  ['S38', '1 byte after the last tensor', 'FILE_UNCOVERED', () => Buffer.concat([tiny, le(0, 1)])],
  [
    'S38',
    'a zip appended',
    'FILE_UNCOVERED',
    () => Buffer.concat([tiny, Buffer.from('PK\x05\x06'), Buffer.alloc(18)]),
  ],
  ['S39', 'last tensor cut by 1 byte', 'FILE_TRUNCATED', () => tiny.subarray(0, -1)],
  [
    'S40',
    'header order is not offset order',
    'ok',
    () => safetensors({ b: f32(4, 16), a: f32(4, 0) }),
  ],
  [
    'S41',
    'empty tensor and scalar',
    'ok',
    () =>
      safetensors(
        {
          a: { dtype: 'F32', shape: [0, 5], data_offsets: [0, 0] },
          b: { dtype: 'F32', shape: [], data_offsets: [0, 4] },
          c: { dtype: 'F32', shape: [5, 0], data_offsets: [4, 4] },
        },
        Buffer.alloc(4),
      ),
  ],
  ['S42', 'zero tensors', 'WEIGHTS_MISSING', () => safetensors({}, Buffer.alloc(0))],
  ['S42', 'only metadata', 'WEIGHTS_MISSING', () => safetensors({ __metadata__: {} }, le(0, 0))],
]

const sizeRows: readonly Row[] = [
  ['S01', '0 bytes', 'FILE_TRUNCATED', () => Buffer.alloc(0)],
  ['S02', '7 bytes', 'FILE_TRUNCATED', () => tiny.subarray(0, 7)],
  ['S03', 'N = 0', 'HEADER_SIZE', () => safetensors('', tinyData, 0n)],
  ['S04', 'N = 1, body {', 'JSON_SYNTAX', () => safetensors('{', le(0, 0))],
  ['S05', 'N = file size - 7', 'HEADER_SIZE', () => withLength(BigInt(tiny.length - 7))],
  ['S05', 'N = the rest of the file', 'JSON_SYNTAX', () => withLength(BigInt(tiny.length - 8))],
  ['S06', 'N = 2^63', 'HEADER_SIZE', () => withLength(2n ** 63n)],
  ['S07', 'N = 2^64 - 1', 'HEADER_SIZE', () => withLength(2n ** 64n - 1n)],
  ['S08', 'N = 100,000,001', 'HEADER_SIZE', () => withLength(100_000_001n)],
  [
    'S09',
    'N big-endian',
    'HEADER_SIZE',
    () => Buffer.concat([le(tiny.length, 8).reverse(), tiny.subarray(8)]),
  ],
]

function withLength(length: bigint): Buffer {
  return safetensors(tinyHeader, tinyData, length)
}

const textRows: readonly Row[] = [
  ['S10', 'header starts with a space', 'JSON_SYNTAX', () => safetensors(` ${headerText}`)],
  ['S10', 'header starts with a BOM', 'JSON_SYNTAX', () => safetensors(`\ufeff${headerText}`)],
  ['S11', 'lone continuation byte', 'HEADER_UTF8', () => escapes(0x80)],
  ['S11', 'overlong slash', 'HEADER_UTF8', () => escapes(0xc0, 0xaf)],
  ['S11', 'surrogate D800', 'HEADER_UTF8', () => escapes(0xed, 0xa0, 0x80)],
  ['S11', 'F5', 'HEADER_UTF8', () => escapes(0xf5, 0x80, 0x80, 0x80)],
  ['S12', 'NUL padding', 'JSON_SYNTAX', () => safetensors(`${headerText}\0\0\0`)],
  ['S12', 'space padding', 'ok', () => safetensors(`${headerText}   `)],
  ['S13', 'text after the closing brace', 'JSON_SYNTAX', () => safetensors(`${headerText} {}`)],
  ...['[1,2]', '"text"', '42', 'null', 'true'].map((text): Row => [
    'S14',
    `top level is ${text}`,
    'JSON_SYNTAX',
    () => safetensors(text),
  ]),
  ['S15', '1,000,000 nested [', 'JSON_DEPTH', () => withText('[2,3]', '['.repeat(1_000_000))],
  ['S16', 'one tensor name twice', 'JSON_DUPLICATE', () => withText('"b":', '"a":')],
  [
    'S17',
    'shape twice in one entry',
    'JSON_DUPLICATE',
    () => withText('"shape":[2,3]', '"shape":[2,3],"shape":[2,3]'),
  ],
  ['S18', 'names equal after escapes', 'JSON_DUPLICATE', () => withText('"b":', '"\\u0061":')],
  ['S18', 'names that differ after escapes', 'ok', () => withText('"b":', '"\\u0062":')],
]

const metadataRows: readonly Row[] = [
  ...[7, null, ['x'], { y: 'z' }].map((value): Row => [
    'S43',
    `__metadata__ value ${JSON.stringify(value)}`,
    'METADATA_TYPE',
    () => safetensors({ __metadata__: { key: value }, ...tinyHeader }),
  ]),
  ...['text', 7, ['x']].map((value): Row => [
    'S43',
    `__metadata__ is ${JSON.stringify(value)}`,
    'METADATA_TYPE',
    () => safetensors({ __metadata__: value, ...tinyHeader }),
  ]),
  [
    'S44',
    '__metadata__ with 10 MB of text',
    'ok',
    () => safetensors({ __metadata__: { text: 'x\n'.repeat(5_000_000) }, ...tinyHeader }),
  ],
  ['S45', 'tensor name of 512 bytes', 'ok', () => withText('"b":', `"${'n'.repeat(512)}":`)],
  ['S45', 'tensor name of 513 bytes', 'LIMIT', () => withText('"b":', `"${'n'.repeat(513)}":`)],
  ['S45', '257 two-byte characters', 'LIMIT', () => withText('"b":', `"${'é'.repeat(257)}":`)],
  ['S46', '65,536 tensors of 0 bytes', 'ok', () => empties(65_536)],
  ['S46', '65,537 tensors of 0 bytes', 'LIMIT', () => empties(65_537)],
]

const rows = [sizeRows, textRows, shapeRows, entryRows, tilingRows, metadataRows].flat()

/** S01 to S49. */
export const safetensorsCases: readonly Case[] = [
  ...rows.map(([id, what, expected, file]): Case => ({
    id,
    what,
    expected,
    files: () => ({ 'model.safetensors': file() }),
  })),
  {
    id: 'S48',
    what: 'Git LFS pointer',
    expected: 'FORMAT_UNKNOWN',
    hint: 'git lfs pull',
    files: () => ({
      'model.safetensors':
        'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3680000000\n',
    }),
  },
  ...['<!DOCTYPE html>\n<html></html>', '<html><body>404</body></html>', '\n <HTML>'].map(
    (page): Case => ({
      id: 'S49',
      what: `web page ${JSON.stringify(page.slice(0, 8))}`,
      expected: 'FORMAT_UNKNOWN',
      hint: 'download again',
      files: () => ({ 'model.safetensors': page }),
    }),
  ),
]
