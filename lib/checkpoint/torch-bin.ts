// torch-bin.ts: a PyTorch `.bin` file (since 1.6: a zip archive) as a tensor table: `data.pkl` says
// which tensors are views of which storages, `data/KEY` are the storages. Views keep their strides,
// since the authors' converter left several weights transposed. The trap is a view that reaches
// beyond its storage: here every corner is computed.

import { PolyLMError, type ErrorCode } from '../errors.js'
import { crc32 } from './crc32.js'
import type { CheckpointFile } from './file.js'
import {
  maxDimension,
  maxPickleBytes,
  maxRank,
  maxRepeatedElements,
  maxStorageKeyBytes,
  maxTensorNameBytes,
  maxTensorsPerFile,
} from './limits.js'
import { kindOf, type PickleStorage, type PickleTensor, type PickleValue } from './pickle-values.js'
import { readPickle } from './pickle.js'
import type { FileContext } from './safetensors.js'
import { Slicer } from './slicer.js'
import { quote, quotePath } from './text.js'
import { dtypeBits, type FileTable, type StorageCheck, type TensorEntry } from './types.js'
import { readZip, type ZipEntry } from './zip.js'

interface PlacedStorage {
  readonly id: number
  readonly entry: ZipEntry
}

/**
 * Reads the table of an open `.bin` file. Nothing in the file is executed.
 *
 * @throws PolyLMError with the code of the first violation, `file` and, where it applies, `tensor`.
 */
export async function readTorchBin(file: CheckpointFile, context: FileContext): Promise<FileTable> {
  const { path } = file.entry
  const slicer = new Slicer(context.signal)
  const entries = await readZip(file, slicer)
  const root = findRoot(entries, path)
  await checkByteOrder(file, entries.get(`${root}/byteorder`), slicer)
  const pickle = entries.get(`${root}/data.pkl`)
  if (pickle === undefined)
    throw problem('ZIP_FORMAT', path, 'the archive has no data.pkl: it is not a PyTorch file')
  const value = await readPickle(
    await readChecked(file, pickle, maxPickleBytes, slicer),
    path,
    slicer,
  )

  const placed = new Map<string, PlacedStorage>()
  const tensors: TensorEntry[] = []
  for (const [name, tensor] of stateDict(value, path)) {
    const storage = place(tensor.storage, name, placed, entries, root, context.firstStorageId, path)
    tensors.push(view(name, tensor, storage, context.file, path))
    if (tensors.length > maxTensorsPerFile) {
      throw problem('LIMIT', path, `more than ${maxTensorsPerFile} tensors`)
    }
    if (slicer.due()) await slicer.pause()
  }
  if (tensors.length === 0) throw problem('WEIGHTS_MISSING', path, 'it holds no tensors')
  const storages = Array.from(placed.values(), ({ entry }): StorageCheck => ({
    file: context.file,
    offset: entry.offset,
    bytes: entry.bytes,
    crc32: entry.crc32,
  }))
  return { tensors, storages }
}

// All names of an archive lie in one folder, named after the file or "archive".
function findRoot(entries: ReadonlyMap<string, ZipEntry>, path: string): string {
  let root: string | undefined
  for (const name of entries.keys()) {
    const folder = name.slice(0, Math.max(0, name.indexOf('/')))
    if (folder === '' || (root !== undefined && folder !== root)) {
      throw problem(
        'ZIP_FORMAT',
        path,
        `the entry ${quote(name)} lies outside the folder of the archive`,
      )
    }
    root = folder
  }
  return root ?? ''
}

async function checkByteOrder(
  file: CheckpointFile,
  entry: ZipEntry | undefined,
  slicer: Slicer,
): Promise<void> {
  if (entry === undefined) return
  const order = (await readChecked(file, entry, 16, slicer)).toString('latin1')
  if (order !== 'little') {
    throw problem(
      'ZIP_UNSUPPORTED',
      file.entry.path,
      `its byte order is ${quote(order)}, expected "little"`,
    )
  }
}

async function readChecked(
  file: CheckpointFile,
  entry: ZipEntry,
  limit: number,
  slicer: Slicer,
): Promise<Buffer> {
  const { path } = file.entry
  if (entry.bytes > limit) {
    throw problem(
      'LIMIT',
      path,
      `the entry ${quote(entry.name)} has ${entry.bytes} bytes, at most ${limit} are accepted`,
    )
  }
  const bytes = await file.read(entry.offset, entry.bytes)
  if ((await crc32(bytes, slicer)) !== entry.crc32) {
    throw new PolyLMError(
      'ZIP_CRC',
      `${quotePath(path)}: the checksum of ${quote(entry.name)} does not match`,
      { file: path, offset: entry.offset, hint: 'the file is damaged: download it again' },
    )
  }
  return bytes
}

function* stateDict(value: PickleValue, path: string): Generator<readonly [string, PickleTensor]> {
  if (typeof value !== 'object' || value === null || value.kind !== 'dict') {
    throw problem(
      'PICKLE_TYPE',
      path,
      `its pickle is a ${kindOf(value)}, expected a dict of tensors`,
    )
  }
  for (const [name, tensor] of value.items) {
    if (typeof name !== 'string')
      throw problem('PICKLE_TYPE', path, `a tensor has the name ${String(name)}, expected text`)
    const bytes = Buffer.byteLength(name)
    if (bytes > maxTensorNameBytes) {
      throw problem(
        'LIMIT',
        path,
        `the tensor name ${quote(name)} has ${bytes} bytes, at most ${maxTensorNameBytes}`,
      )
    }
    if (typeof tensor !== 'object' || tensor === null || tensor.kind !== 'tensor') {
      throw problem(
        'PICKLE_TYPE',
        path,
        `the value of ${quote(name)} is a ${kindOf(tensor)}, expected a tensor`,
      )
    }
    yield [name, tensor]
  }
}

// Finds the archive entry of a storage, once per key: tied weights share one.
function place(
  storage: PickleStorage,
  tensor: string,
  placed: Map<string, PlacedStorage>,
  entries: ReadonlyMap<string, ZipEntry>,
  root: string,
  firstId: number,
  path: string,
): PlacedStorage {
  const { key, dtype, elements } = storage
  const plain = key.length <= maxStorageKeyBytes && /^\w+$/.test(key)
  const entry = plain ? entries.get(`${root}/data/${key}`) : undefined
  if (entry === undefined) {
    throw mismatch(path, tensor, `its storage ${quote(key)} is not in the archive`)
  }
  if (elements * (dtypeBits(dtype) / 8) !== entry.bytes) {
    throw mismatch(
      path,
      tensor,
      `its storage ${quote(key)} has ${entry.bytes} bytes, but ${elements} x ${dtype} is declared`,
    )
  }
  const known = placed.get(key)
  if (known !== undefined) return known
  const fresh = { id: firstId + placed.size, entry }
  placed.set(key, fresh)
  return fresh
}

// Checks that every element of a view lies in its storage and gives its place in the file.
function view(
  name: string,
  tensor: PickleTensor,
  storage: PlacedStorage,
  file: number,
  path: string,
): TensorEntry {
  const { shape, strides, offset } = tensor
  const { dtype, elements } = tensor.storage
  const axes = `shape [${shape.join(', ')}], strides [${strides.join(', ')}]`.slice(0, 500)
  const shown = `a view of ${axes}, offset ${offset}`
  if (
    shape.length !== strides.length ||
    offset < 0 ||
    [...shape, ...strides].some(n => n < 0 || n > maxDimension)
  ) {
    throw mismatch(path, name, `${shown} is impossible`)
  }
  if (shape.length > maxRank) {
    throw new PolyLMError(
      'TENSOR_SHAPE',
      `${quotePath(path)}: tensor ${quote(name)} has ${shape.length} axes, at most ` +
        `${maxRank} are accepted`,
      { file: path, tensor: name },
    )
  }
  let count = shape.includes(0) ? 0 : 1
  let last = count === 0 ? offset - 1 : offset
  for (const [axis, dim] of shape.entries()) {
    count *= dim
    // Up to 2^80, so inexact, but never small when it should be large.
    if (count > 0) last += (dim - 1) * (strides[axis] ?? 0)
  }
  const repeats = count > elements && count > maxRepeatedElements
  if (last >= elements || repeats)
    throw mismatch(path, name, `${shown} does not fit a storage of ${elements} elements`)
  const elementBytes = dtypeBits(dtype) / 8
  return {
    name,
    dtype,
    shape,
    strides,
    storageId: storage.id,
    file,
    offset: storage.entry.offset + offset * elementBytes,
    bytes: (last - offset + 1) * elementBytes,
  }
}

function mismatch(path: string, tensor: string, text: string): PolyLMError {
  return new PolyLMError(
    'STORAGE_MISMATCH',
    `${quotePath(path)}: tensor ${quote(tensor)}: ${text}`,
    { file: path, tensor },
  )
}

function problem(code: ErrorCode, path: string, text: string): PolyLMError {
  return new PolyLMError(code, `${quotePath(path)}: ${text}`, { file: path })
}
