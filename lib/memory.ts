// memory.ts: how much memory a model takes, from its config alone, and how much of it goes to the KV
// cache. The core reports what it really took (stats().memory); a test compares the two.
import { availableParallelism, freemem } from 'node:os'
import type { Checkpoint, ModelConfig } from './checkpoint/types.js'
import { PolyLMError } from './errors.js'
import type { CheckedEstimate } from './load-options.js'
import { fromCore, loadNative, type NativeDevice } from './native.js'

/** What `Model.estimate` gives, in bytes. */
export interface MemoryEstimate {
  readonly weights: number
  /** The KV cache, as `kvMemory` says. */
  readonly kv: number
  /** Activations of a step. */
  readonly workspace: number
  readonly total: number
  /** Whether that much is free now. */
  readonly fits: boolean
  /** Where it would run. */
  readonly device: string
}

/** Sizes that do not depend on the KV cache. */
export interface ModelSizes {
  readonly weights: number
  readonly workspace: number
  /** Of one token in all layers. */
  readonly kvPerToken: number
}

// Of the engine: rows of a step, rows whose scores are wanted beside the sequences, tokens that a row may
// list beyond its context. Of the CPU device: padding of a row, scratch memory of a worker.
const stepRows = 2048
const scoreRows = 128
const extraListed = 4096
const rowPadding = 32
const workerBytes = 1.5 * 2 ** 20

/** Instruction sets that multiply bfloat16: only there are activations kept in it. A GPU's name begins with sm_. */
const halfActivations = /^(avx512bf16|amx|neonbf16|sm_\d+)$/

/** Bytes of weights. */
export function weightBytes(config: ModelConfig, matrixBytes: number): number {
  const { layers, hiddenSize: c, innerSize: f, vocabSize: v } = config
  const outputHeads = config.tieWordEmbeddings ? 1 : 2
  const matrices = layers * (4 * c * c + 2 * c * f) + outputHeads * v * c + config.contextSize * c
  const vectors = layers * (9 * c + f) + 2 * c
  return matrices * matrixBytes + vectors * 4
}

/** Bytes of weights, workspace and of one token of KV cache; `isa` is the instruction set of the device. */
export function modelSizes(
  config: ModelConfig, matrixBytes: number, checked: CheckedEstimate, contextSize: number, isa: string,
): ModelSizes {
  const { layers, heads, hiddenSize: c, innerSize: f, vocabSize: v } = config
  const kvBytes = checked.precision === 'fp32' ? 4 : 2
  const actBytes = checked.precision === 'fp32' || !halfActivations.test(isa) ? 4 : 2
  const headSize = Math.ceil(c / heads / 32) * 32
  return {
    weights: weightBytes(config, matrixBytes),
    workspace: workspaceBytes(c, f, v, actBytes, checked.maxSequences, contextSize),
    kvPerToken: 2 * layers * heads * headSize * kvBytes,
  }
}

function workspaceBytes(
  c: number, f: number, v: number, actBytes: number, sequences: number, contextSize: number,
): number {
  const workers = availableParallelism()
  const row = (columns: number): number => Math.ceil(columns / rowPadding) * rowPadding + rowPadding
  const activations = stepRows * (4 * row(c) + actBytes * (3 * row(c) + row(f)))
  const wanted = sequences + scoreRows
  const listed = sequences * Math.min(v, contextSize + extraListed) * 12
  const candidates = wanted * (row(f) * 4 + 64 * 8 * (workers + 1) + Math.ceil(v / 1024) * 24)
  return Math.ceil(activations + listed + candidates + sequences * v * 4 + workers * workerBytes)
}

/** Bytes of an element of the big matrices: bf16 stays bf16 even when the arithmetic is float32. */
export function matrixBytesOf(checkpoint: Checkpoint, precision: 'bf16' | 'fp32'): number {
  if (precision === 'bf16') return 2
  return checkpoint.tensors.some(({ dtype, shape }) => shape.length === 2 && dtype !== 'BF16') ? 4 : 2
}

/** Tokens of KV cache: as `kvMemory` says, never more than all sequences at full length. */
export function kvTokens(
  checked: CheckedEstimate, contextSize: number, kvPerToken: number, freeBytes: number | undefined,
): number {
  const most = contextSize * checked.maxSequences
  if (checked.kvMemory !== undefined) return Math.min(most, Math.floor(checked.kvMemory / kvPerToken))
  const quarter = freeBytes === undefined ? Infinity : Math.floor(freeBytes / 4 / kvPerToken)
  return Math.min(most, Math.max(contextSize, Math.min(4 * contextSize, quarter)))
}

/** The devices of this machine as the core found them. */
export function nativeDevices(): Promise<NativeDevice[]> {
  return fromCore(() => loadNative().devices())
}

/**
 * The device that `device` means for a model whose weights take so many bytes: for 'auto' the rule of choose_device in
 * csrc/backends.h.
 */
export function deviceFor(
  devices: readonly NativeDevice[], device: string, weights: number,
): { kind: string; found: NativeDevice | undefined } {
  const cpu = devices.find(({ kind }) => kind === 'cpu')
  const gpus = devices.filter(({ kind }) => kind === 'cuda')
  if (device === 'auto') {
    const best = gpus.reduce<NativeDevice | undefined>((most, gpu) =>
      gpu.usable && gpu.proven && gpu.freeBytes > (most?.freeBytes ?? -1) ? gpu : most, undefined)
    if (best !== undefined && best.freeBytes >= weights) return { kind: `cuda:${gpus.indexOf(best)}`, found: best }
    return { kind: 'cpu', found: cpu }
  }
  if (device.startsWith('cuda')) return { kind: device, found: gpus[Number(device.split(':')[1] ?? 0)] }
  return { kind: device, found: cpu }    // 'cpu', and 'ref', which computes there
}

/** Where `device` would run a model whose weights take so many bytes, and what is free there. */
export async function freeMemory(
  device: string, weights: number,
): Promise<{ kind: string; isa: string; free: number | undefined }> {
  const { kind, found } = deviceFor(await nativeDevices(), device, weights)
  const free = found !== undefined && found.memoryBytes > 0 ? found.freeBytes : undefined   // 0: none is free
  return { kind, isa: found?.isa ?? '', free: free ?? (kind === 'cpu' ? freeHere() : undefined) }
}

function freeHere(): number {
  const process_ = process as { availableMemory?: () => number }
  return process_.availableMemory?.() ?? freemem()
}

/** The estimate for a checkpoint. */
export async function estimateMemory(
  checkpoint: Checkpoint, checked: CheckedEstimate, contextSize: number,
): Promise<MemoryEstimate> {
  const bytes = matrixBytesOf(checkpoint, checked.precision)
  const { free: _, ...found } = await estimate(checkpoint.config, bytes, checked, contextSize)
  return found
}

async function estimate(
  config: ModelConfig, matrixBytes: number, checked: CheckedEstimate, contextSize: number,
): Promise<MemoryEstimate & { free: number | undefined }> {
  const { kind, isa, free } = await freeMemory(checked.device, weightBytes(config, matrixBytes))
  const sizes = modelSizes(config, matrixBytes, checked, contextSize, isa)
  const afterWeights = free === undefined ? undefined : Math.max(0, free - sizes.weights - sizes.workspace)
  const kv = kvTokens(checked, contextSize, sizes.kvPerToken, afterWeights) * sizes.kvPerToken
  const total = sizes.weights + sizes.workspace + kv
  const fits = free === undefined || total <= free
  return { weights: sizes.weights, kv, workspace: sizes.workspace, total, fits, device: kind, free }
}

/**
 * Refuses a model that cannot fit before its weights are read.
 *
 * @throws PolyLMError INSUFFICIENT_MEMORY with `required`, `available` and `suggestions`.
 */
export async function checkMemory(
  config: ModelConfig, matrixBytes: number, checked: CheckedEstimate, contextSize: number,
): Promise<void> {
  const { total, weights, kv, workspace, fits, free } = await estimate(config, matrixBytes, checked, contextSize)
  if (fits || free === undefined) return
  const suggestions = [
    ...(checked.precision === 'fp32' ? ["dtype: 'bf16'"] : []),
    'a smaller contextSize',
    ...(checked.kvMemory === undefined ? [] : ['a smaller kvMemory']),
    'a machine or control group with more memory',
  ]
  throw new PolyLMError(
    'INSUFFICIENT_MEMORY',
    `the model needs ${total} bytes (weights ${weights}, KV cache ${kv}, ` +
      `workspace ${workspace}), of which ${free} are free`,
    { required: total, available: free, suggestions, hint: `try ${suggestions[0] ?? ''}` },
  )
}
