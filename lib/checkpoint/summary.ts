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
  const seen = new Set<string>()
  const bytesByDtype: Partial<Record<DType, number>> = {}
  let parameters = 0
  for (const tensor of checkpoint.tensors) {
    const key = [tensor.storageId, tensor.offset, tensor.shape, tensor.strides].join('/')
    if (seen.has(key)) continue
    seen.add(key)
    const elements = tensor.shape.reduce((product, dim) => product * dim, 1)
    bytesByDtype[tensor.dtype] =
      (bytesByDtype[tensor.dtype] ?? 0) + (elements * dtypeBits(tensor.dtype)) / 8
    const isTiedCopy = checkpoint.config.tieWordEmbeddings && tensor.name.endsWith(headName)
    if (!maskBuffer.test(tensor.name) && !isTiedCopy) parameters += elements
  }
  return {
    tensors: checkpoint.tensors.length,
    parameters,
    bytesByDtype,
    uniqueBytes: uniqueBytes(checkpoint.tensors),
  }
}

// The length of the union of all ranges.
function uniqueBytes(tensors: readonly TensorEntry[]): number {
  const ordered = [...tensors].sort((a, b) => a.file - b.file || a.offset - b.offset)
  let total = 0
  let file = -1
  let covered = 0
  for (const tensor of ordered) {
    const end = tensor.offset + tensor.bytes
    if (tensor.file !== file) covered = 0
    file = tensor.file
    total += Math.max(0, end - Math.max(covered, tensor.offset))
    covered = Math.max(covered, end)
  }
  return total
}
