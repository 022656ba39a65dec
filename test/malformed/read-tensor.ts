// read-tensor.ts: the elements of a tensor as float32, in row-major order, for tests. Reads element
// by element and honours strides; slow on purpose, since it is what faster readers are compared
// with.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

import type { Checkpoint, TensorEntry } from '../../lib/checkpoint/types.js'

type Decode = (bytes: DataView, at: number) => number

const decoders: Readonly<Record<string, { readonly bytes: number; readonly decode: Decode }>> = {
  F64: { bytes: 8, decode: (view, at) => view.getFloat64(at, true) },
  F32: { bytes: 4, decode: (view, at) => view.getFloat32(at, true) },
  F16: { bytes: 2, decode: (view, at) => halfToFloat(view.getUint16(at, true)) },
  BF16: { bytes: 2, decode: (view, at) => bfloatToFloat(view.getUint16(at, true)) },
  I64: { bytes: 8, decode: (view, at) => Number(view.getBigInt64(at, true)) },
  U8: { bytes: 1, decode: (view, at) => view.getUint8(at) },
  BOOL: { bytes: 1, decode: (view, at) => (view.getUint8(at) === 0 ? 0 : 1) },
}

/** All elements of `tensor`. */
export function readTensor(file: Buffer, tensor: TensorEntry): Float32Array {
  const decoder = decoders[tensor.dtype]
  if (decoder === undefined) throw new Error(`no decoder for ${tensor.dtype}`)
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength)
  const count = tensor.shape.reduce((product, dim) => product * dim, 1)
  const values = new Float32Array(count)
  const index = tensor.shape.map(() => 0)
  for (let i = 0; i < count; i++) {
    let element = 0
    for (let axis = 0; axis < index.length; axis++) {
      element += (index[axis] ?? 0) * (tensor.strides[axis] ?? 0)
    }
    const at = tensor.offset + element * decoder.bytes
    if (at + decoder.bytes > tensor.offset + tensor.bytes) throw new Error('outside the span')
    values[i] = decoder.decode(view, at)
    advance(index, tensor.shape)
  }
  return values
}

/** SHA-256 of the little-endian float32 elements. */
export function hashTensor(file: Buffer, tensor: TensorEntry): string {
  return createHash('sha256')
    .update(Buffer.from(readTensor(file, tensor).buffer))
    .digest('hex')
}

/** Hash of every tensor of a checkpoint by name. */
export function hashCheckpoint(
  checkpoint: Pick<Checkpoint, 'files' | 'tensors'>,
): Map<string, string> {
  const files = checkpoint.files.map(({ path }) => readFileSync(path))
  return new Map(
    checkpoint.tensors.map(tensor => [
      tensor.name,
      hashTensor(files[tensor.file] ?? Buffer.alloc(0), tensor),
    ]),
  )
}

function advance(index: number[], shape: readonly number[]): void {
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    const next = (index[axis] ?? 0) + 1
    if (next < (shape[axis] ?? 0)) {
      index[axis] = next
      return
    }
    index[axis] = 0
  }
}

const scratch = new DataView(new ArrayBuffer(4))

function bfloatToFloat(bits: number): number {
  scratch.setUint32(0, bits << 16)
  return scratch.getFloat32(0)
}

function halfToFloat(bits: number): number {
  const sign = bits >> 15 === 0 ? 1 : -1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}
