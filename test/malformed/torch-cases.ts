// torch-cases.ts: the rows P01 to P13, P30 and P31 of the catalogue: the archive around the pickle.

import { le, patched, type Case } from './case.js'
import {
  archive,
  members,
  op,
  pickle,
  stateDict,
  tensor,
  tinyStorage,
  tinyTorch,
  torchFile,
  type Member,
} from './torch-file.js'

/** A row of a `.bin` file. */
export type Row = readonly [
  id: string,
  what: string,
  expected: Case['expected'],
  file: () => Buffer,
  hint?: string,
]

/** Rows as cases. */
export function torchRows(rows: readonly Row[]): readonly Case[] {
  return rows.map(([id, what, expected, file, hint]) => ({
    id,
    what,
    expected,
    files: () => ({ 'pytorch_model.bin': file() }),
    ...(hint === undefined ? {} : { hint }),
  }))
}

const { bytes: tiny, locals, centrals, end, end64 } = tinyTorch
const valid = stateDict({ w: tensor() })
const local = (member: number, field: number): number => (locals[member] ?? 0) + field
const central = (member: number, field: number): number => (centrals[member] ?? 0) + field
// Member 0 is data.pkl, 2 the storage.
const renamed = (name: string): Buffer => {
  const [first, ...rest] = members(valid)
  return archive([{ ...(first as Member) }, ...rest, { name, data: Buffer.from('x') }]).bytes
}
const many = (count: number): Buffer => {
  const base = members(valid)
  const extra = Array.from({ length: count - base.length }, (_, i): Member => ({
    name: `archive/extra/${i}`,
    data: Buffer.alloc(0),
  }))
  return archive([...base, ...extra]).bytes
}

const formatRows: readonly Row[] = [
  ['P01', 'not a zip', 'FORMAT_UNKNOWN', () => Buffer.from('no archive at all, but some text')],
  [
    'P01',
    'legacy magic',
    'FORMAT_UNKNOWN',
    () => Buffer.concat([op.proto, Buffer.from('8a0a6cfc9c46f9206aa850192e80024de903', 'hex')]),
    'convert',
  ],
  ['P02', 'valid', 'ok', () => tiny],
  ['P02', 'valid without zip64', 'ok', () => archive(members(valid), { zip64: false }).bytes],
  ['P02', 'valid without descriptors', 'ok', () => archive(members(valid), { flags: 0 }).bytes],
  [
    'P02',
    'other name in the local header',
    'ZIP_FORMAT',
    () => patched(tiny, local(2, 30), [0x62]),
  ],
  ['P02', 'other method in the local header', 'ZIP_FORMAT', () => patched(tiny, local(2, 8), [8])],
  ['P02', 'other flags in the local header', 'ZIP_FORMAT', () => patched(tiny, local(2, 6), [0])],
  ['P02', 'other size in the local header', 'ZIP_FORMAT', () => withoutDescriptor(22, le(23, 4))],
  [
    'P02',
    'other checksum in the local header',
    'ZIP_FORMAT',
    () => withoutDescriptor(14, le(1, 4)),
  ],
  ...[0x1, 0x20, 0x40, 0x2000].map((flag): Row => [
    'P03',
    `flag 0x${flag.toString(16)}`,
    'ZIP_UNSUPPORTED',
    () => archive(members(valid), { flags: 0x0808 | flag }).bytes,
  ]),
  ['P03', 'flags 0x8 and 0x800', 'ok', () => archive(members(valid), { flags: 0x808 }).bytes],
  ...[0, 2].map((member): Row => [
    'P04',
    `deflate on ${member === 0 ? 'data.pkl' : 'a storage'}`,
    'ZIP_UNSUPPORTED',
    () => patched(patched(tiny, central(member, 10), [8]), local(member, 8), [8]),
  ]),
  [
    'P05',
    'two entries with one name',
    'ZIP_FORMAT',
    () => archive([...members(valid), ...members(valid).slice(2, 3)]).bytes,
  ],
  [
    'P06',
    'two entries at one place',
    'ZIP_FORMAT',
    () => patched(tiny, central(2, 42), le(local(0, 0), 4)),
  ],
  [
    'P06',
    'an entry reaches into the next',
    'ZIP_FORMAT',
    () => patched(tiny, central(0, 20), Buffer.concat([le(9999, 4), le(9999, 4)])),
  ],
  [
    'P06',
    'an entry overlaps the next header',
    'ZIP_FORMAT',
    () => {
      const size = (locals[3] ?? 0) - (locals[2] ?? 0)
      return patched(tiny, central(2, 20), Buffer.concat([le(size, 4), le(size, 4)]))
    },
  ],
  [
    'P06',
    'an entry beyond the file',
    'ZIP_FORMAT',
    () => patched(tiny, central(2, 42), le(1e6, 4)),
  ],
  ['P06', 'stored sizes differ', 'ZIP_FORMAT', () => patched(tiny, central(2, 20), le(4, 4))],
]

function withoutDescriptor(field: number, value: Buffer): Buffer {
  const plain = archive(members(valid), { flags: 0 })
  return patched(plain.bytes, (plain.locals[2] ?? 0) + field, value)
}

const endRows: readonly Row[] = [
  ['P07', 'end record missing', 'ZIP_FORMAT', () => tiny.subarray(0, end)],
  ['P07', 'cut in half', 'ZIP_FORMAT', () => tiny.subarray(0, tiny.length / 2)],
  [
    'P07',
    'a comment hides a second end record',
    'ZIP_FORMAT',
    () => patched(Buffer.concat([tiny, tiny.subarray(end)]), end + 20, le(22, 2)),
  ],
  ['P07', 'two end records', 'ZIP_FORMAT', () => Buffer.concat([tiny, tiny.subarray(end)])],
  [
    'P07',
    'two end records, the last one short',
    'ZIP_FORMAT',
    () => {
      const plain = archive(members(valid), { zip64: false })
      return Buffer.concat([plain.bytes, plain.bytes.subarray(plain.end)])
    },
  ],
  ['P07', 'a comment that is not there', 'ZIP_FORMAT', () => patched(tiny, end + 20, [4])],
  ['P07', 'bytes after the end record', 'ZIP_FORMAT', () => Buffer.concat([tiny, le(0, 1)])],
  ['P07', 'an empty archive', 'ZIP_FORMAT', () => archive([]).bytes],
  ['P07', 'several disks', 'ZIP_FORMAT', () => patched(tiny, end + 4, [1])],
  ['P08', 'zip64 size 2^63', 'ZIP_FORMAT', () => patched(tiny, end64 + 40, le(2n ** 63n, 8))],
  ['P08', 'zip64 offset 2^63', 'ZIP_FORMAT', () => patched(tiny, end64 + 48, le(2n ** 63n, 8))],
  ['P08', 'zip64 count differs', 'ZIP_FORMAT', () => patched(tiny, end64 + 24, le(7, 8))],
  [
    'P08',
    'zip64 not needed, other offset',
    'ZIP_FORMAT',
    () => patched(tiny, end64 + 48, le(3, 8)),
  ],
  ['P08', 'zip64 needed and absent', 'ZIP_FORMAT', () => zip64Wanted()],
  ['P08', 'zip64 locator elsewhere', 'ZIP_FORMAT', () => patched(tiny, end64 + 56 + 8, le(1, 8))],
  ['P08', 'zip64 size of an entry 2^63', 'ZIP_FORMAT', () => wideEntry(2n ** 63n)],
  ['P08', 'zip64 size of an entry differs', 'STORAGE_MISMATCH', () => wideEntry(23n)],
  ['P08', 'zip64 size of an entry, needed', 'ok', () => wideEntry(24n)],
  ['P08', 'zip64 size of an entry, repeated', 'ok', () => wideEntry(24n, false)],
  ['P08', 'zip64 size of an entry, contradicted', 'ZIP_FORMAT', () => wideEntry(25n, false)],
]

function zip64Wanted(): Buffer {
  const plain = archive(members(valid), { zip64: false })
  return patched(plain.bytes, plain.end + 16, le(0xffffffff, 4))
}

// The storage's sizes in a zip64 field of its directory entry; in the 32-bit fields too unless
// `full`.
function wideEntry(size: bigint, full = true): Buffer {
  const at = central(2, 0)
  const next = central(3, 0)
  const field = Buffer.concat([le(1, 2), le(16, 2), le(size, 8), le(size, 8)])
  const grown = Buffer.concat([tiny.subarray(0, next), field, tiny.subarray(next)])
  const sizes = full ? Buffer.alloc(8, 0xff) : tiny.subarray(at + 20, at + 28)
  const directory = end64 - (centrals[0] ?? 0) + field.length
  const moved = end64 + field.length
  const patches: readonly (readonly [number, Buffer])[] = [
    [at + 20, sizes],
    [at + 30, le(field.length, 2)],
    [moved + 40, le(directory, 8)],
    [moved + 56 + 8, le(moved, 8)],
    [end + field.length + 12, le(directory, 4)],
  ]
  for (const [where, value] of patches) value.copy(grown, where)
  return grown
}

const contentRows: readonly Row[] = [
  ['P09', 'checksum of data.pkl', 'ZIP_CRC', () => patched(tiny, central(0, 16), le(7, 4))],
  ['P09', 'a byte of data.pkl', 'ZIP_CRC', () => patched(tiny, local(0, 90), [0xaa])],
  ...['archive/../x', '/etc/x', 'archive\\x', '../x', 'archive//x', 'archive/./x', 'archive/'].map(
    (name): Row => ['P10', `entry ${name}`, 'ZIP_FORMAT', () => renamed(name)],
  ),
  ['P10', 'entry with NUL', 'ZIP_FORMAT', () => renamed('archive/x\0y')],
  ['P10', 'two archive roots', 'ZIP_FORMAT', () => renamed('other/x')],
  ['P10', 'an entry without a folder', 'ZIP_FORMAT', () => renamed('x')],
  ['P10', 'hidden folder of newer versions', 'ok', () => renamed('archive/.data/serialization_id')],
  ['P11', 'data.pkl missing', 'ZIP_FORMAT', () => archive(members(valid).slice(1)).bytes],
  [
    'P11',
    'data.pkl twice',
    'ZIP_FORMAT',
    () => archive([...members(valid), ...members(valid).slice(0, 1)]).bytes,
  ],
  ['P12', 'byteorder big', 'ZIP_UNSUPPORTED', () => ordered('big')],
  ['P12', 'byteorder too long', 'LIMIT', () => ordered('little'.repeat(100))],
  ['P13', '65,537 entries', 'LIMIT', () => many(65_537)],
  ['P13', '65,536 entries', 'ok', () => many(65_536)],
  [
    'P30',
    'one storage shared by two tensors',
    'ok',
    () => torchFile(stateDict({ wte: tensor(), lm_head: tensor() })),
  ],
  ['P31', 'views that repeat little, 2^24 elements in all', 'ok', () => repeating(4, 2 ** 22)],
  ['P31', 'views that repeat little, many of them', 'LIMIT', () => repeating(5, 2 ** 22)],
  ['P31', 'one storage under 4,000 names', 'ok', () => repeating(4000, 6)],
  ['P31', 'a storage of 1 MiB under 60 names', 'ok', () => named(60)],
  ['P31', 'a storage of 1 MiB under 80 names', 'LIMIT', () => named(80)],
  [
    'P30',
    'no tensors at all',
    'WEIGHTS_MISSING',
    () => torchFile(pickle(op.dict), { 0: tinyStorage }),
  ],
]

// So many tensors of so many float32 elements, all the same element of one storage.
function repeating(tensors: number, elements: number): Buffer {
  const one = tensor({ size: [elements], stride: [0] })
  return torchFile(manyTimes(tensors, one))
}

// So many names of one tensor of a mebibyte.
function named(names: number): Buffer {
  const one = tensor({ elements: 2 ** 18, size: [2 ** 18], stride: [1] })
  return torchFile(manyTimes(names, one), { 0: Buffer.alloc(2 ** 20) })
}

const manyTimes = (count: number, one: Buffer): Buffer =>
  stateDict(Object.fromEntries(Array.from({ length: count }, (_, i) => [`t${i}`, one])))

function ordered(order: string): Buffer {
  const all = members(valid)
  return archive(
    all.map(member =>
      member.name.endsWith('byteorder') ? { ...member, data: Buffer.from(order) } : member,
    ),
  ).bytes
}

/** P01 to P13, P30 and P31. */
export const torchCases: readonly Case[] = torchRows([...formatRows, ...endRows, ...contentRows])
