// A PyTorch file of more than 4 GiB, made of holes: sizes and positions that only zip64 fields can
// hold, as in the shards of the 13B model.

import { closeSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'

import { openCheckpoint } from '../../lib/checkpoint/open.js'
import { le, withScratch, writeFiles } from '../malformed/case.js'
import { crc32 } from '../malformed/crc.js'
import { op, stateDict, tensor } from '../malformed/torch-file.js'

interface Part {
  readonly name: string
  readonly bytes: number
  readonly data?: Buffer
  local: number
}

const full = le(0xffffffff, 4)
const isLarge = (value: number): boolean => value >= 0xffffffff
const short = (value: number): Buffer => (isLarge(value) ? full : le(value, 4))

// The 64-bit fields in the order of the format, only those that do not fit their 32 bits.
function wideField(...values: readonly number[]): Buffer {
  const wide = values.filter(isLarge).map(value => le(value, 8))
  return wide.length === 0 ? le(0, 0) : Buffer.concat([le(1, 2), le(8 * wide.length, 2), ...wide])
}

function writeLocal(fd: number, at: number, part: Part): number {
  part.local = at
  const name = Buffer.from(part.name)
  const extra = wideField(part.bytes, part.bytes)
  const header = Buffer.concat([
    ...[le(0x04034b50, 4), le(0, 2), le(0x0808, 2), le(0, 18), le(name.length, 2)],
    ...[le(extra.length, 2), name, extra],
  ])
  writeSync(fd, header, 0, header.length, at)
  const data = at + header.length
  if (part.data !== undefined) writeSync(fd, part.data, 0, part.data.length, data)
  return data + part.bytes + 24
}

function writeTail(fd: number, start: number, parts: readonly Part[]): void {
  const directory = Buffer.concat(
    parts.map(({ name, bytes, data, local }) => {
      const extra = wideField(bytes, bytes, local)
      return Buffer.concat([
        ...[le(0x02014b50, 4), le(0, 4), le(0x0808, 2), le(0, 6)],
        ...[le(data === undefined ? 0 : crc32(data), 4), short(bytes), short(bytes)],
        ...[le(name.length, 2), le(extra.length, 2), le(0, 10), short(local)],
        ...[Buffer.from(name), extra],
      ])
    }),
  )
  const count = le(parts.length, 8)
  const end64 = start + directory.length
  const tail = Buffer.concat([
    ...[directory, le(0x06064b50, 4), le(44, 8), le(0, 4), le(0, 8)],
    ...[count, count, le(directory.length, 8), le(start, 8)],
    ...[le(0x07064b50, 4), le(0, 4), le(end64, 8), le(1, 4)],
    ...[le(0x06054b50, 4), le(0, 4), le(parts.length, 2), le(parts.length, 2)],
    ...[le(directory.length, 4), short(start), le(0, 2)],
  ])
  writeSync(fd, tail, 0, tail.length, start)
}

test('storages larger than 4 GiB and behind 4 GiB are found', async () => {
  const rows = 2_700_000
  const elements = rows * 1000
  const type = 'BFloat16Storage'
  const big = tensor({ type, elements, size: [1000, rows], stride: [1, 1000] })
  const small = tensor({ key: '1', type, elements: 6, offset: 2, size: [4], stride: [1] })
  const pickle = stateDict({ big, small })
  expect(pickle.includes(op.int(elements))).toBe(true)
  const marker = Buffer.from(Uint16Array.from([1, 2, 3, 4, 5, 6]).buffer)
  const parts: Part[] = [
    { name: 'archive/data.pkl', bytes: pickle.length, data: pickle, local: 0 },
    { name: 'archive/data/0', bytes: 2 * elements, local: 0 },
    { name: 'archive/data/1', bytes: 12, data: marker, local: 0 },
  ]
  await withScratch(async dir => {
    writeFiles(dir, {})
    const fd = openSync(join(dir, 'pytorch_model.bin'), 'w+')
    let at = 0
    for (const part of parts) at = writeLocal(fd, at, part)
    writeTail(fd, at, parts)
    closeSync(fd)
    const { tensors, storages, files } = await openCheckpoint(dir)
    expect(tensors.map(({ name, offset, bytes }) => ({ name, offset, bytes }))).toEqual([
      { name: 'big', offset: storages[0]?.offset, bytes: 2 * elements },
      { name: 'small', offset: (storages[1]?.offset ?? 0) + 4, bytes: 8 },
    ])
    expect(storages.map(({ bytes }) => bytes)).toEqual([2 * elements, 12])
    expect(storages[1]?.offset).toBeGreaterThan(2 ** 32)
    expect(storages[1]?.crc32).toBe(crc32(marker))
    expect(files[0]?.size).toBeGreaterThan(2 * elements)
  })
})
