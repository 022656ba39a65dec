// zip.ts: the directory of a zip archive as PyTorch writes it, and nothing more of zip. The central
// directory decides, and each local header must agree with it; the trap is an archive that two
// readers see differently, so everything ambiguous is refused: a second end record, a comment,
// overlapping entries, a name twice.

import { isUtf8 } from 'node:buffer'

import { PolyLMError, type ErrorCode } from '../errors.js'
import type { CheckpointFile } from './file.js'
import { maxZipEntries, maxZipNameBytes } from './limits.js'
import type { Slicer } from './slicer.js'
import { quote, quotePath } from './text.js'

/** A stored (never compressed) file of an archive. */
export interface ZipEntry {
  readonly name: string
  /** Byte position of its data in the archive. */
  readonly offset: number
  readonly bytes: number
  readonly crc32: number
}

const localSignature = 0x04034b50
const centralSignature = 0x02014b50
const endSignature = 0x06054b50
const end64Signature = 0x06064b50
const locator64Signature = 0x07064b50
const localBytes = 30
const centralBytes = 46
const endBytes = 22
const end64Bytes = 56
const locator64Bytes = 20
const windowBytes = 4096
const noComment = 'an end record without a comment, as PyTorch writes it'

const full16 = 0xffff
const full32 = 0xffffffff
// Encryption, patches, strong encryption, masked directory: another reader would see other bytes.
const refusedFlags = 0x1 | 0x20 | 0x40 | 0x2000
const flagDescriptor = 0x8

interface Directory {
  readonly entries: number
  readonly bytes: number
  readonly offset: number
}
interface Central {
  readonly name: string
  readonly flags: number
  readonly crc32: number
  readonly bytes: number
  readonly local: number
}

type Fail = (code: ErrorCode, text: string) => PolyLMError

/**
 * All entries of an archive by name, each checked to lie inside the file, apart from the others.
 *
 * @throws PolyLMError ZIP_FORMAT, ZIP_UNSUPPORTED or LIMIT.
 */
export async function readZip(
  file: CheckpointFile,
  slicer: Slicer,
): Promise<ReadonlyMap<string, ZipEntry>> {
  const { path } = file.entry
  const fail: Fail = (code, text) =>
    new PolyLMError(code, `${quotePath(path)}: ${text}`, {
      file: path,
      hint:
        code === 'ZIP_FORMAT' ? 'the file is damaged or incomplete: download it again' : undefined,
    })
  const directory = await readEnd(file, fail)
  const bytes = await file.read(directory.offset, directory.bytes)
  const central: Central[] = []
  let at = 0
  for (let i = 0; i < directory.entries; i++) {
    const { entry, next } = parseCentral(bytes, at, fail)
    central.push(entry)
    at = next
    if (slicer.due()) await slicer.pause()
  }
  if (at !== bytes.length)
    throw fail('ZIP_FORMAT', 'the central directory has bytes that belong to no entry')
  return await locate(file, central, directory.offset, slicer, fail)
}

// The end record is the last thing in the file; PyTorch writes a zip64 record and its locator
// before it.
async function readEnd(file: CheckpointFile, fail: Fail): Promise<Directory> {
  const { size } = file.entry
  if (size < endBytes) throw fail('ZIP_FORMAT', `${size} bytes are too few for an archive`)
  const tailBytes = Math.min(size, endBytes + locator64Bytes)
  const tail = await file.read(size - tailBytes, tailBytes)
  const end = tail.subarray(tailBytes - endBytes)
  if (end.readUInt32LE(0) !== endSignature || end.readUInt16LE(20) !== 0) {
    throw fail('ZIP_FORMAT', `the last ${endBytes} bytes are not ${noComment}`)
  }
  const short = {
    entries: end.readUInt16LE(10),
    bytes: end.readUInt32LE(12),
    offset: end.readUInt32LE(16),
  }
  if (
    end.readUInt16LE(4) !== 0 ||
    end.readUInt16LE(6) !== 0 ||
    end.readUInt16LE(8) !== short.entries
  ) {
    throw fail('ZIP_FORMAT', 'the archive says that it is split over several disks')
  }
  const has64 = tailBytes > endBytes && tail.readUInt32LE(0) === locator64Signature
  const needs64 = short.entries === full16 || short.bytes === full32 || short.offset === full32
  if (needs64 && !has64)
    throw fail('ZIP_FORMAT', 'the end record refers to a zip64 record that is not there')
  const directory = has64 ? await readEnd64(file, tail, short, fail) : short
  const directoryEnd = has64 ? size - endBytes - locator64Bytes - end64Bytes : size - endBytes
  if (directory.entries > maxZipEntries) {
    throw fail('LIMIT', `${directory.entries} entries, at most ${maxZipEntries} are accepted`)
  }
  if (directory.offset + directory.bytes !== directoryEnd) {
    throw fail(
      'ZIP_FORMAT',
      `the central directory ends at byte ${directory.offset + directory.bytes}, ` +
        `but its end record begins at ${directoryEnd}`,
    )
  }
  return directory
}

async function readEnd64(
  file: CheckpointFile,
  tail: Buffer,
  short: Directory,
  fail: Fail,
): Promise<Directory> {
  const at = file.entry.size - endBytes - locator64Bytes - end64Bytes
  const bad = (): PolyLMError =>
    fail('ZIP_FORMAT', 'the zip64 end record or its locator is damaged')
  if (
    at < 0 ||
    tail.readUInt32LE(4) !== 0 ||
    tail.readBigUInt64LE(8) !== BigInt(at) ||
    tail.readUInt32LE(16) > 1
  ) {
    throw bad()
  }
  const record = await file.read(at, end64Bytes)
  if (
    record.readUInt32LE(0) !== end64Signature ||
    record.readBigUInt64LE(4) !== BigInt(end64Bytes - 12)
  )
    throw bad()
  if (record.readUInt32LE(16) !== 0 || record.readUInt32LE(20) !== 0) throw bad()
  const entries = toSafe(record.readBigUInt64LE(32), fail)
  const bytes = toSafe(record.readBigUInt64LE(40), fail)
  const offset = toSafe(record.readBigUInt64LE(48), fail)
  if (record.readBigUInt64LE(24) !== BigInt(entries)) throw bad()
  const agrees = (value: number, wide: number, full: number): boolean =>
    value === full || value === wide
  if (
    !agrees(short.entries, entries, full16) ||
    !agrees(short.bytes, bytes, full32) ||
    !agrees(short.offset, offset, full32)
  ) {
    throw fail('ZIP_FORMAT', 'the end record and the zip64 end record disagree')
  }
  return { entries, bytes, offset }
}

function parseCentral(bytes: Buffer, at: number, fail: Fail): { entry: Central; next: number } {
  if (at + centralBytes > bytes.length || bytes.readUInt32LE(at) !== centralSignature) {
    throw fail('ZIP_FORMAT', 'the central directory ends in the middle of an entry')
  }
  const nameBytes = bytes.readUInt16LE(at + 28)
  const extraBytes = bytes.readUInt16LE(at + 30)
  const extraAt = at + centralBytes + nameBytes
  const next = extraAt + extraBytes + bytes.readUInt16LE(at + 32)
  if (next > bytes.length)
    throw fail('ZIP_FORMAT', 'the central directory ends in the middle of an entry')
  const name = checkName(bytes.subarray(at + centralBytes, extraAt), fail)
  const flags = bytes.readUInt16LE(at + 8)
  checkSupported(name, flags, bytes.readUInt16LE(at + 10), fail)
  const short = {
    size: bytes.readUInt32LE(at + 24),
    packed: bytes.readUInt32LE(at + 20),
    local: bytes.readUInt32LE(at + 42),
  }
  const wide = widen(short, bytes.subarray(extraAt, extraAt + extraBytes), name, fail)
  if (wide.size !== wide.packed)
    throw fail('ZIP_FORMAT', `entry ${quote(name)} is stored, but its two sizes differ`)
  const disk = bytes.readUInt16LE(at + 34)
  if (disk !== 0) throw fail('ZIP_FORMAT', `entry ${quote(name)} lies on another disk`)
  return {
    entry: { name, flags, crc32: bytes.readUInt32LE(at + 16), bytes: wide.size, local: wide.local },
    next,
  }
}

interface Sizes {
  readonly size: number
  readonly packed: number
  readonly local: number
}

// Replaces 32-bit fields that are full by those of the zip64 extra field. One that is present
// without need must repeat the sizes.
function widen(short: Sizes, extra: Buffer, name: string, fail: Fail): Sizes {
  const bad = (): PolyLMError =>
    fail('ZIP_FORMAT', `entry ${quote(name)} has a damaged zip64 field`)
  const field = findExtra(extra, 1, bad)
  const result = { ...short }
  let at = 0
  for (const key of ['size', 'packed', 'local'] as const) {
    const needed = short[key] === full32
    if (field === undefined) {
      if (needed) throw bad()
      continue
    }
    const redundant = !needed && key !== 'local' && field.length >= 16 && short.size !== full32
    if (!needed && !redundant) continue
    if (at + 8 > field.length) throw bad()
    const value = toSafe(field.readBigUInt64LE(at), fail)
    at += 8
    if (redundant && value !== short[key]) throw bad()
    result[key] = value
  }
  if (field !== undefined && at === 16 && field.length === 24 && short.local !== full32) {
    if (toSafe(field.readBigUInt64LE(16), fail) !== short.local) throw bad()
    at = 24
  }
  if (field !== undefined && at !== field.length) throw bad()
  return result
}

function findExtra(extra: Buffer, id: number, bad: () => PolyLMError): Buffer | undefined {
  let found: Buffer | undefined
  for (let at = 0; at + 4 <= extra.length;) {
    const end = at + 4 + extra.readUInt16LE(at + 2)
    if (end > extra.length) throw bad()
    if (extra.readUInt16LE(at) === id) {
      if (found !== undefined) throw bad()
      found = extra.subarray(at + 4, end)
    }
    at = end
  }
  return found
}

function checkName(bytes: Buffer, fail: Fail): string {
  if (bytes.length > maxZipNameBytes) {
    throw fail(
      'LIMIT',
      `an entry name of ${bytes.length} bytes, at most ${maxZipNameBytes} are accepted`,
    )
  }
  const name = bytes.toString('utf8')
  const parts = name.split('/')
  const plain =
    isUtf8(bytes) &&
    !/[\\\p{Cc}:]/u.test(name) &&
    parts.every(p => p !== '' && p !== '.' && p !== '..')
  if (!plain) throw fail('ZIP_FORMAT', `the entry name ${quote(name)} is not a plain relative path`)
  return name
}

function checkSupported(name: string, flags: number, method: number, fail: Fail): void {
  if ((flags & refusedFlags) !== 0) {
    throw fail(
      'ZIP_UNSUPPORTED',
      `entry ${quote(name)} has flags 0x${flags.toString(16)}: encrypted or patched`,
    )
  }
  if (method !== 0) {
    throw fail(
      'ZIP_UNSUPPORTED',
      `entry ${quote(name)} is compressed (method ${method}), expected stored`,
    )
  }
}

// Reads the local headers in file order and places the data behind them.
async function locate(
  file: CheckpointFile,
  central: readonly Central[],
  directoryOffset: number,
  slicer: Slicer,
  fail: Fail,
): Promise<ReadonlyMap<string, ZipEntry>> {
  const byOffset = new Map(central.map(entry => [entry.local, entry]))
  if (byOffset.size !== central.length) {
    throw fail('ZIP_FORMAT', 'two entries begin at the same byte')
  }
  const headers = new Window(file, directoryOffset)
  const found = new Map<string, ZipEntry>()
  let previousEnd = 0
  for (const begin of Float64Array.from(byOffset.keys()).sort()) {
    const entry = await readLocal(headers, byOffset.get(begin) as Central, fail)
    const { name } = entry
    if (begin < previousEnd || (found.size === 0 && begin !== 0)) {
      const wanted = found.size === 0 ? 'expected 0' : `expected ${previousEnd} or later`
      throw fail('ZIP_FORMAT', `entry ${quote(name)} begins at byte ${begin}, ${wanted}`)
    }
    if (found.has(name)) throw fail('ZIP_FORMAT', `two entries are named ${quote(name)}`)
    previousEnd = entry.offset + entry.bytes
    found.set(name, entry)
    slicer.check()
    if (slicer.due()) await slicer.pause()
  }
  return found
}

// The part of an archive before its directory, read forwards in small blocks: the headers of small
// entries are neighbours.
class Window {
  /** No entry reaches beyond this byte. */
  readonly limit: number
  readonly #file: CheckpointFile
  #start = 0
  #bytes: Buffer = Buffer.alloc(0)

  constructor(file: CheckpointFile, limit: number) {
    this.#file = file
    this.limit = limit
  }

  // `count` bytes from `at`; undefined when they are not all before the directory.
  async read(at: number, count: number): Promise<Buffer | undefined> {
    if (at + count > this.limit) return undefined
    if (at < this.#start || at + count > this.#start + this.#bytes.length) {
      const block = Math.min(Math.max(count, windowBytes), this.limit - at)
      this.#bytes = await this.#file.read(at, block)
      this.#start = at
    }
    return this.#bytes.subarray(at - this.#start, at - this.#start + count)
  }
}

async function readLocal(headers: Window, entry: Central, fail: Fail): Promise<ZipEntry> {
  const { name, local, bytes, crc32 } = entry
  const shown = `entry ${quote(name)}`
  const nameBytes = Buffer.byteLength(name)
  const header = await headers.read(local, localBytes + nameBytes)
  const outside = `${shown} reaches beyond the data of the archive`
  if (header === undefined) throw fail('ZIP_FORMAT', outside)
  const agrees =
    header.readUInt32LE(0) === localSignature &&
    header.readUInt16LE(26) === nameBytes &&
    header.toString('utf8', localBytes) === name &&
    header.readUInt16LE(6) === entry.flags
  if (!agrees) throw fail('ZIP_FORMAT', `${shown}: local header and central directory disagree`)
  if (header.readUInt16LE(8) !== 0) {
    throw fail('ZIP_FORMAT', `${shown} is compressed by its local header, not by the directory`)
  }
  const sizes = { size: header.readUInt32LE(22), packed: header.readUInt32LE(18), local: 0 }
  const crcAgrees = header.readUInt32LE(14) === crc32
  const extraBytes = header.readUInt16LE(28)
  const extraAt = local + localBytes + nameBytes
  const offset = extraAt + extraBytes
  if (offset + bytes > headers.limit) throw fail('ZIP_FORMAT', outside)
  if ((entry.flags & flagDescriptor) === 0) {
    const extra = (await headers.read(extraAt, extraBytes)) ?? Buffer.alloc(0)
    const wide = widen(sizes, extra, name, fail)
    if (wide.size !== bytes || wide.packed !== bytes || !crcAgrees) {
      throw fail('ZIP_FORMAT', `${shown}: sizes or checksum differ between header and directory`)
    }
  }
  return { name, offset, bytes, crc32 }
}

function toSafe(value: bigint, fail: Fail): number {
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value)
  throw fail('ZIP_FORMAT', `a size or position of ${value} bytes`)
}
