// summary.ts: what the tensor table alone says about the size of a model, for `inspect` and memory
// estimates. It knows two things about names: mask buffers are not parameters, and a tied head is
// not counted twice.

import { dtypeBits, type Checkpoint, type DType, type TensorEntry } from './types.js'

/** Sizes of a checkpoint. */
export interface TensorSummary {
  /** Tensors in the table, names of one view counted each. */
  readonly tensors: number
  /**
   * Parameters of the model: each view once, without mask buffers and without a copy of a tied
   * head.
   */
  readonly parameters: number
  /** Bytes of the elements of each type, each view once, mask buffers included. */
  readonly bytesByDtype: Readonly<Partial<Record<DType, number>>>
  /** Bytes of the weight files that belong to at least one tensor, each byte once. */
  readonly uniqueBytes: number
}

const maskBuffer = /(?:^|\.)attn\.(?:bias|masked_bias)$/
const headName = 'lm_head.weight'

/** Counts parameters and bytes of a checkpoint. */
export function tensorSummary(checkpoint: Pick<Checkpoint, 'tensors' | 'config'>): TensorSummary {
  const bytesByDtype: Partial<Record<DType, number>> = {}
  let parameters = 0
  for (const tensor of distinctViews(checkpoint.tensors)) {
    const elements = tensor.shape.reduce((product, dim) => product * dim, 1)
    const bytes = (elements * dtypeBits(tensor.dtype)) / 8
    bytesByDtype[tensor.dtype] = (bytesByDtype[tensor.dtype] ?? 0) + bytes
    const isTiedCopy = checkpoint.config.tieWordEmbeddings && tensor.name.endsWith(headName)
    if (!maskBuffer.test(tensor.name) && !isTiedCopy) parameters += elements
  }
  const uniqueBytes = bytesOfUnion(checkpoint.tensors)
  return { tensors: checkpoint.tensors.length, parameters, bytesByDtype, uniqueBytes }
}

// Of the names of one view the first, but not a head when the table has another name for it.
function distinctViews(tensors: readonly TensorEntry[]): readonly TensorEntry[] {
  const seen = new Set<number>()
  const shared = new Set<number>()
  for (const { storageId } of tensors) (seen.has(storageId) ? shared : seen).add(storageId)
  const views = new Map<string, TensorEntry>()
  const distinct: TensorEntry[] = []
  for (const tensor of tensors) {
    if (!shared.has(tensor.storageId)) {
      distinct.push(tensor)
      continue
    }
    const key = [tensor.storageId, tensor.offset, tensor.shape, tensor.strides].join('/')
    const known = views.get(key)
    if (known === undefined || known.name.endsWith(headName)) views.set(key, tensor)
  }
  return [...distinct, ...views.values()]
}

// The length of the union of all ranges: begins and ends are sorted separately, and a stretch is
// covered while more ranges have begun than ended.
function bytesOfUnion(tensors: readonly TensorEntry[]): number {
  const byFile = new Map<number, TensorEntry[]>()
  for (const tensor of tensors) {
    const list = byFile.get(tensor.file)
    if (list === undefined) byFile.set(tensor.file, [tensor])
    else list.push(tensor)
  }
  let total = 0
  for (const list of byFile.values()) {
    const begins = Float64Array.from(list, ({ offset }) => offset).sort()
    const ends = Float64Array.from(list, ({ offset, bytes }) => offset + bytes).sort()
    let start = 0
    for (const [i, end] of ends.entries()) {
      // Everything that has begun has ended: a stretch is complete.
      if (end > (begins[i + 1] ?? Infinity)) continue
      total += end - (begins[start] ?? 0)
      start = i + 1
    }
  }
  return total
}
