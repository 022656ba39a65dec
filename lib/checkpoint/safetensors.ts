// safetensors.ts: the header of a safetensors file as a tensor table. Three stages in this order:
// parse the JSON, check every entry by itself, check that the entries tile the data exactly. The
// trap is arithmetic: every product is checked before it is used, and a byte range must equal shape
// times type before anything else is believed.

import { PolyLMError, type ErrorCode } from '../errors.js'
import type { CheckpointFile } from './file.js'
import { JsonNumber } from './json-number.js'
import { isJsonArray, isJsonObject, parseJson, type JsonObject, type JsonValue } from './json.js'
import {
  maxDimension,
  maxHeaderBytes,
  maxRank,
  maxTensorNameBytes,
  maxTensorsPerFile,
} from './limits.js'
import { Slicer } from './slicer.js'
import { describe, quote, quotePath } from './text.js'
import { dtypeBits, isDType, type DType, type FileTable, type TensorEntry } from './types.js'

/** Where the tables of one file go in those of the whole checkpoint. */
export interface FileContext {
  /** Index of the file in the checkpoint. */
  readonly file: number
  /** First storage id that is free. */
  readonly firstStorageId: number
  readonly signal?: AbortSignal | undefined
}

const lengthBytes = 8
const metadataKey = '__metadata__'

// A checked entry of the header, its range still relative to the data.
interface Range {
  readonly name: string
  readonly begin: number
  readonly end: number
}
interface HeaderEntry extends Range {
  readonly dtype: DType
  readonly shape: readonly number[]
}

/**
 * Reads and checks the header of an open safetensors file.
 *
 * @throws PolyLMError with the code of the first violation, `file` and, where it applies, `tensor`.
 */
export async function readSafetensors(
  file: CheckpointFile,
  context: FileContext,
): Promise<FileTable> {
  const { path, size } = file.entry
  const slicer = new Slicer(context.signal)
  const headerBytes = checkHeaderLength(await file.read(0, lengthBytes), path, size)
  const dataStart = lengthBytes + headerBytes
  const root = await readHeader(file, headerBytes, context.signal)

  const entries: HeaderEntry[] = []
  for (const [name, value] of root) {
    if (name === metadataKey) await checkMetadata(value, path, slicer)
    else entries.push(checkEntry(name, value, path))
    if (entries.length > maxTensorsPerFile) {
      throw problem(
        'LIMIT',
        path,
        `${quotePath(path)} holds more than ${maxTensorsPerFile} tensors`,
      )
    }
    if (slicer.due()) await slicer.pause()
  }
  if (entries.length === 0)
    throw problem('WEIGHTS_MISSING', path, `${quotePath(path)} holds no tensors`)
  await checkTiling(entries, size - dataStart, path, slicer)

  const tensors: TensorEntry[] = []
  for (const { name, dtype, shape, begin, end } of entries) {
    const storageId = context.firstStorageId + tensors.length
    const strides = contiguousStrides(shape)
    const offset = dataStart + begin
    tensors.push({
      name,
      dtype,
      shape,
      strides,
      storageId,
      file: context.file,
      offset,
      bytes: end - begin,
    })
    if (slicer.due()) await slicer.pause()
  }
  return { tensors, storages: [] }
}

/** Strides, in elements, of a tensor in row-major order. */
export function contiguousStrides(shape: readonly number[]): number[] {
  const strides = new Array<number>(shape.length).fill(1)
  for (let axis = shape.length - 2; axis >= 0; axis--) {
    // A zero dimension makes every stride meaningless; 1 keeps them positive.
    strides[axis] = (strides[axis + 1] ?? 1) * Math.max(1, shape[axis + 1] ?? 1)
  }
  return shape.includes(0) ? strides.fill(1) : strides
}

function checkHeaderLength(prefix: Buffer, path: string, size: number): number {
  const length = prefix.readBigUInt64LE(0)
  const room = size - lengthBytes
  const shown = `${quotePath(path)}: the header length is ${length}`
  const hint = 'the file is damaged or incomplete: download it again'
  if (length === 0n) throw problem('HEADER_SIZE', path, `${shown}, expected at least 2`, { hint })
  if (length > BigInt(maxHeaderBytes)) {
    throw problem('HEADER_SIZE', path, `${shown}, at most ${maxHeaderBytes} is allowed`, { hint })
  }
  if (length > BigInt(room)) {
    throw problem('HEADER_SIZE', path, `${shown}, but only ${room} bytes follow it in the file`, {
      hint,
    })
  }
  return Number(length)
}

async function readHeader(
  file: CheckpointFile,
  headerBytes: number,
  signal: AbortSignal | undefined,
): Promise<JsonObject> {
  const { path } = file.entry
  const bytes = await file.read(lengthBytes, headerBytes, signal)
  if (bytes[0] !== 0x7b && bytes[0] !== undefined && bytes[0] < 0x80) {
    throw problem('JSON_SYNTAX', path, `${quotePath(path)}: the header must start with '{'`, {
      offset: lengthBytes,
    })
  }
  const root = await parseJson(bytes, {
    file: path,
    maxBytes: maxHeaderBytes,
    // The tensors and the metadata; a header of millions ends here, not after it is read.
    maxMembers: maxTensorsPerFile + 1,
    opaque: metadataKey,
    signal,
  })
  if (isJsonObject(root)) return root
  throw problem(
    'JSON_SYNTAX',
    path,
    `${quotePath(path)}: the header is ${describe(root)}, expected an object`,
  )
}

async function checkMetadata(value: JsonValue, path: string, slicer: Slicer): Promise<void> {
  const where = `${quotePath(path)}: ${metadataKey}`
  if (!isJsonObject(value))
    throw problem('METADATA_TYPE', path, `${where} is ${describe(value)}, expected an object`)
  for (const [key, text] of value) {
    if (typeof text !== 'string') {
      throw problem(
        'METADATA_TYPE',
        path,
        `${where}: ${quote(key)} is ${describe(text)}, expected a string`,
      )
    }
    if (slicer.due()) await slicer.pause()
  }
}

function checkEntry(name: string, value: JsonValue, path: string): HeaderEntry {
  if (Buffer.byteLength(name) > maxTensorNameBytes) {
    throw problem(
      'LIMIT',
      path,
      `${quotePath(path)}: the tensor name ${quote(name)} has ` +
        `${Buffer.byteLength(name)} bytes, at most ${maxTensorNameBytes} are accepted`,
    )
  }
  const fail = (code: ErrorCode, text: string): PolyLMError =>
    problem(code, path, `${quotePath(path)}: tensor ${quote(name)}: ${text}`, { tensor: name })
  if (!isJsonObject(value))
    throw fail('JSON_SYNTAX', `its entry is ${describe(value)}, expected an object`)
  for (const key of value.keys()) {
    if (key !== 'dtype' && key !== 'shape' && key !== 'data_offsets') {
      throw fail('JSON_SYNTAX', `unknown key ${quote(key)}, expected dtype, shape and data_offsets`)
    }
  }
  const dtype = value.get('dtype')
  if (typeof dtype !== 'string' || !isDType(dtype)) {
    throw fail(
      'TENSOR_DTYPE',
      `dtype is ${describe(dtype)}, expected one of safetensors' types such as "BF16"`,
    )
  }
  const shape = checkShape(value.get('shape'), fail)
  const bytes = checkedBytes(shape, dtype, fail)
  const { begin, end } = checkOffsets(value.get('data_offsets'), fail)
  if (end - begin !== bytes) {
    throw fail(
      'TENSOR_OFFSETS',
      `data_offsets span ${end - begin} bytes, but ${dtype} [${shape.join(', ')}] takes ${bytes}`,
    )
  }
  return { name, dtype, shape, begin, end }
}

type Fail = (code: ErrorCode, text: string) => PolyLMError

function checkShape(value: JsonValue | undefined, fail: Fail): readonly number[] {
  if (!isJsonArray(value))
    throw fail('TENSOR_SHAPE', `shape is ${describe(value)}, expected an array`)
  if (value.length > maxRank)
    throw fail('TENSOR_SHAPE', `shape has ${value.length} axes, at most ${maxRank} are accepted`)
  return value.map(dim => {
    if (dim instanceof JsonNumber)
      throw fail('JSON_NUMBER', `dimension ${describe(dim)} is not an exact integer`)
    if ((typeof dim !== 'number' && typeof dim !== 'bigint') || dim < 0) {
      throw fail('TENSOR_SHAPE', `dimension ${describe(dim)}, expected an integer from 0`)
    }
    if (dim > maxDimension)
      throw fail('TENSOR_OVERFLOW', `dimension ${dim} is above ${maxDimension}`)
    return Number(dim)
  })
}

function checkedBytes(shape: readonly number[], dtype: DType, fail: Fail): number {
  let elements = shape.includes(0) ? 0 : 1
  for (const dim of shape) {
    elements *= dim
    // The product of an exact integer and one up to 2^40 is inexact only beyond 2^53, which is
    // refused.
    if (elements > Number.MAX_SAFE_INTEGER / 64) {
      throw fail(
        'TENSOR_OVERFLOW',
        `shape [${shape.join(', ')}] has more elements than any file can hold`,
      )
    }
  }
  const bits = elements * dtypeBits(dtype)
  if (bits % 8 !== 0)
    throw fail('TENSOR_DTYPE', `${elements} elements of ${dtype} do not fill whole bytes`)
  return bits / 8
}

function checkOffsets(value: JsonValue | undefined, fail: Fail): { begin: number; end: number } {
  if (!isJsonArray(value) || value.length !== 2) {
    throw fail(
      'TENSOR_OFFSETS',
      `data_offsets is ${describe(value)}, expected an array of two integers`,
    )
  }
  const [begin, end] = value
  for (const offset of value) {
    if (offset instanceof JsonNumber)
      throw fail('JSON_NUMBER', `offset ${describe(offset)} is not an exact integer`)
  }
  if (typeof begin !== 'number' || typeof end !== 'number' || begin < 0) {
    throw fail(
      'TENSOR_OFFSETS',
      `data_offsets are ${describe(begin)} and ${describe(end)}, expected byte positions`,
    )
  }
  if (begin > end)
    throw fail('TENSOR_OFFSETS', `data_offsets begin at ${begin} and end before it, at ${end}`)
  return { begin, end }
}

// Non-empty ranges tile [0, E) exactly when, begins and ends sorted separately, the first begin is
// 0 and every other begin is the end before it: then at each byte one more range has begun than has
// ended. Sorting two typed arrays takes a few milliseconds where sorting 65,536 objects would hold
// the event loop for tens.
async function checkTiling(
  entries: readonly HeaderEntry[],
  dataBytes: number,
  path: string,
  slicer: Slicer,
) {
  const filled = entries.filter(({ begin, end }) => begin < end)
  const begins = Float64Array.from(filled, entry => entry.begin)
  const ends = Float64Array.from(filled, entry => entry.end)
  if (slicer.due()) await slicer.pause()
  begins.sort()
  if (slicer.due()) await slicer.pause()
  ends.sort()
  if (slicer.due()) await slicer.pause()
  let covered = 0
  for (let i = 0; i < filled.length; i++) {
    const begin = begins[i] ?? 0
    if (begin !== covered) {
      const name = filled.find(entry => entry.begin === begin)?.name ?? ''
      const reason = begin < covered ? 'inside another tensor' : 'after a hole'
      throw problem(
        'TENSOR_OFFSETS',
        path,
        `${quotePath(path)}: tensor ${quote(name)} begins at byte ${begin} of the data, ` +
          `${reason}; expected ${covered}`,
        { tensor: name },
      )
    }
    covered = ends[i] ?? 0
  }
  if (slicer.due()) await slicer.pause()
  const empty = entries.filter(({ begin, end }) => begin === end)
  const boundaries = new Set(empty.length > 0 ? ends : []).add(0)
  const stray = empty.find(({ begin }) => !boundaries.has(begin))
  if (stray !== undefined) {
    throw problem(
      'TENSOR_OFFSETS',
      path,
      `${quotePath(path)}: the empty tensor ${quote(stray.name)} lies at byte ` +
        `${stray.begin} of the data, inside another tensor or behind all of them`,
      { tensor: stray.name },
    )
  }
  if (covered > dataBytes) {
    throw problem(
      'FILE_TRUNCATED',
      path,
      `${quotePath(path)} has ${dataBytes} bytes of data, its header describes ` + `${covered}`,
      { hint: 'the file is incomplete: download it again' },
    )
  }
  if (covered < dataBytes) {
    throw problem(
      'FILE_UNCOVERED',
      path,
      `${quotePath(path)} has ${dataBytes - covered} bytes that belong to no tensor`,
    )
  }
}

function problem(code: ErrorCode, file: string, text: string, data: object = {}): PolyLMError {
  return new PolyLMError(code, text, { file, ...data })
}
