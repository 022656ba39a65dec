// torch-file.ts: PyTorch files made by hand: pickles opcode by opcode, archives record by record,
// with the places of all records so that a test can break exactly one of them.

import { crc32 } from './crc.js'
import { le } from './case.js'

/** A file of an archive. */
export interface Member {
  readonly name: string
  readonly data: Buffer
}

/** An archive and where its records begin. */
export interface Archive {
  readonly bytes: Buffer
  readonly locals: readonly number[]
  readonly centrals: readonly number[]
  readonly end64: number
  readonly end: number
}

/** Settings of {@link archive}. */
export interface ArchiveOptions {
  /** General-purpose flags; PyTorch writes 0x0808. */
  readonly flags?: number
  /** Write the zip64 end record and locator, as PyTorch always does. */
  readonly zip64?: boolean
}

/**
 * An archive as PyTorch writes it: stored, sizes in descriptors, data aligned by an extra field.
 */
export function archive(members: readonly Member[], options: ArchiveOptions = {}): Archive {
  const { flags = 0x0808, zip64 = true } = options
  const parts: Buffer[] = []
  let at = 0
  const add = (...buffers: Buffer[]): number => {
    const start = at
    for (const buffer of buffers) {
      parts.push(buffer)
      at += buffer.length
    }
    return start
  }
  const described = (flags & 8) !== 0
  const crcs = members.map(({ data }) => crc32(data))
  const locals = members.map(({ name, data }, i) => {
    const sizes = [le(crcs[i] ?? 0, 4), le(data.length, 4), le(data.length, 4)]
    const pad = le(0x4246, 2)
    const start = add(
      ...[le(0x04034b50, 4), le(0, 2), le(flags, 2), le(0, 6)],
      ...(described ? [le(0, 12)] : sizes),
      ...[le(Buffer.byteLength(name), 2), le(8, 2), Buffer.from(name), pad, le(4, 2), le(0, 4)],
      data,
    )
    if (described) add(le(0x08074b50, 4), ...sizes)
    return start
  })
  const centrals = members.map(({ name, data }, i) =>
    add(
      ...[le(0x02014b50, 4), le(0, 4), le(flags, 2), le(0, 6), le(crcs[i] ?? 0, 4)],
      ...[le(data.length, 4), le(data.length, 4), le(Buffer.byteLength(name), 2)],
      ...[le(0, 12), le(locals[i] ?? 0, 4), Buffer.from(name)],
    ),
  )
  const directory = centrals[0] ?? 0
  const size = at - directory
  const end64 = at
  if (zip64) {
    const count = le(members.length, 8)
    const tail = [count, count, le(size, 8), le(directory, 8)]
    add(le(0x06064b50, 4), le(44, 8), le(798, 2), le(45, 2), le(0, 8), ...tail)
    add(le(0x07064b50, 4), le(0, 4), le(end64, 8), le(1, 4))
  }
  const short = le(Math.min(members.length, 0xffff), 2)
  const end = add(
    le(0x06054b50, 4),
    le(0, 4),
    short,
    short,
    le(size, 4),
    le(directory, 4),
    le(0, 2),
  )
  return { bytes: Buffer.concat(parts), locals, centrals, end64, end }
}

/** Opcodes and small pieces of protocol 2. */
export const op = {
  proto: Buffer.from([0x80, 2]),
  stop: Buffer.from('.'),
  mark: Buffer.from('('),
  pop: Buffer.from('0'),
  dict: Buffer.from('}'),
  list: Buffer.from(']'),
  unit: Buffer.from(')'),
  tuple: Buffer.from('t'),
  tuple1: Buffer.from([0x85]),
  tuple2: Buffer.from([0x86]),
  tuple3: Buffer.from([0x87]),
  setItem: Buffer.from('s'),
  setItems: Buffer.from('u'),
  append: Buffer.from('a'),
  appends: Buffer.from('e'),
  reduce: Buffer.from('R'),
  build: Buffer.from('b'),
  persId: Buffer.from('Q'),
  none: Buffer.from('N'),
  no: Buffer.from([0x89]),
  yes: Buffer.from([0x88]),
  text: (text: string | Buffer) => {
    const bytes = Buffer.from(text as string)
    return Buffer.concat([Buffer.from('X'), le(bytes.length, 4), bytes])
  },
  int: (value: number) =>
    value >= -(2 ** 31) && value < 2 ** 31
      ? Buffer.concat([Buffer.from('J'), le(value, 4)])
      : Buffer.concat([Buffer.from([0x8a, 8]), le(value, 8)]),
  global: (module: string, name: string) => Buffer.from(`c${module}\n${name}\n`, 'latin1'),
  put: (i: number) => Buffer.from([0x71, i]),
  get: (i: number) => Buffer.from([0x68, i]),
} as const

/** A tensor of a pickle; every part can be replaced by other opcodes. */
export interface TensorParts {
  readonly key?: string
  readonly type?: string
  readonly elements?: number
  readonly offset?: number
  readonly size?: readonly number[]
  readonly stride?: readonly number[]
}

const ints = (values: readonly number[]): Buffer =>
  Buffer.concat([op.mark, ...values.map(op.int), op.tuple])

/** An empty OrderedDict, as PyTorch writes for the hooks. */
export const noHooks = Buffer.concat([op.global('collections', 'OrderedDict'), op.unit, op.reduce])

/** The persistent id of a storage. */
export function storage(parts: TensorParts = {}): Buffer {
  const { key = '0', type = 'FloatStorage', elements = 6 } = parts
  const location = op.text('cpu')
  return Buffer.concat([
    ...[op.mark, op.text('storage'), op.global('torch', type), op.text(key), location],
    ...[op.int(elements), op.tuple, op.persId],
  ])
}

/** A call of _rebuild_tensor_v2. */
export function tensor(parts: TensorParts = {}): Buffer {
  const { offset = 0, size = [2, 3], stride = [3, 1] } = parts
  return Buffer.concat([
    ...[op.global('torch._utils', '_rebuild_tensor_v2'), op.mark, storage(parts), op.int(offset)],
    ...[ints(size), ints(stride), op.no, noHooks, op.tuple, op.reduce],
  ])
}

/** A state dict of these values. */
export function stateDict(values: Readonly<Record<string, Buffer>>): Buffer {
  const items = Object.entries(values).flatMap(([name, value]) => [op.text(name), value])
  return pickle(op.dict, op.mark, ...items, op.setItems)
}

/** A pickle of these pieces. */
export function pickle(...pieces: readonly Buffer[]): Buffer {
  return Buffer.concat([op.proto, ...pieces, op.stop])
}

/** Storage bytes of the valid file: six floats. */
export const tinyStorage = Buffer.from(new Float32Array([1, 2, 3, 4, 5, 6]).buffer)

/** The members of a PyTorch file with this pickle. */
export function members(
  data: Buffer,
  storages: Readonly<Record<string, Buffer>> = { 0: tinyStorage },
): Member[] {
  return [
    { name: 'archive/data.pkl', data },
    { name: 'archive/byteorder', data: Buffer.from('little') },
    ...Object.entries(storages).map(([key, bytes]) => ({
      name: `archive/data/${key}`,
      data: bytes,
    })),
    { name: 'archive/version', data: Buffer.from('3\n') },
  ]
}

/** A PyTorch file with this pickle. */
export function torchFile(data: Buffer, storages?: Readonly<Record<string, Buffer>>): Buffer {
  return archive(members(data, storages)).bytes
}

/** The valid file: a weight and a transposed view of it. */
export const tinyTorch = archive(
  members(stateDict({ w: tensor(), wt: tensor({ size: [3, 2], stride: [1, 3] }) })),
)
