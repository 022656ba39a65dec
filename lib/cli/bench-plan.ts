// bench-plan.ts: which rows `polylm bench` measures, how much memory they need, and the least work that each of them
// asks of the machine. Pure functions of a shape and a plan.
import type { Shape } from './bench-shapes.js'
import type { Limits } from './bench-stats.js'

/** How much to measure. */
export interface BenchPlan {
  /** Lengths of prompts. */
  readonly prompt: readonly number[]
  /** Sequences decoded together. */
  readonly batch: readonly number[]
  /** Tokens before the measured ones; undefined: 0 for every batch, and {@link deep} for a single sequence. */
  readonly depth: readonly number[] | undefined
  /** New tokens of each sequence. */
  readonly tokens: number
  /** Runs of each row; the median is reported. */
  readonly repeats: number
  /** A test of the bench itself: look at the machine as briefly as possible, repeat nothing. */
  readonly smoke: boolean
}

/** What one row measures. Of prefill, `tokens` are those of the prompt; of decode, the new ones of each sequence. */
export interface BenchRow {
  readonly test: 'prefill' | 'decode'
  readonly batch: number
  readonly depth: number
  readonly tokens: number
}

/** A row that was not measured, and why. */
export interface SkippedRow extends BenchRow {
  readonly reason: string
}

/** Tokens already there in the deep row that is measured without being asked for. */
export const deep = 1900

/** A generated token needs one before it: at depth 0 each sequence has this short prompt. */
export const shortPrompt = 16

const promptLength = (row: BenchRow): number => (row.test === 'prefill' ? row.tokens : Math.max(shortPrompt, row.depth))
const generated = (row: BenchRow): number => (row.test === 'prefill' ? 1 : row.tokens)

/** All rows of a plan, small ones first. */
export function planRows({ prompt, batch, depth, tokens }: BenchPlan): BenchRow[] {
  const prefill = prompt.map(length => ({ test: 'prefill', batch: 1, depth: 0, tokens: length }) as const)
  const pairs = depth === undefined
    ? [...batch.map(size => [size, 0] as const), [1, deep] as const]
    : depth.flatMap(length => batch.map(size => [size, length] as const))
  const decode = pairs.map(([size, length]) => ({ test: 'decode', batch: size, depth: length, tokens }) as const)
  return [...prefill, ...decode]
}

/** Tokens of KV that the measured rows need: what deep rows keep between rounds, and what the largest row adds. */
export function kvTokens(rows: readonly BenchRow[]): number {
  const block = 64                                        // no device has larger ones; a last block is never full
  const kept = rows.filter(row => row.depth > 0).reduce((sum, row) => sum + row.batch * (row.depth + block), 0)
  const largest = Math.max(0, ...rows.map(row => row.batch * (promptLength(row) + generated(row) + block)))
  return kept + largest + 4 * block
}

/** Rows that fit the context and `kvBytes` of memory, and the others with the reason. */
export function fitRows(
  rows: readonly BenchRow[], shape: Shape, dtype: string, kvBytes: number,
): { rows: BenchRow[]; skipped: SkippedRow[] } {
  const fitting: BenchRow[] = []
  const skipped: SkippedRow[] = []
  for (const row of rows) {
    const length = promptLength(row) + generated(row)
    const need = kvTokens([...fitting, row]) * kvBytesPerToken(shape, dtype)
    if (length > shape.contextSize) {
      skipped.push({ ...row, reason: `${length} tokens, the context has ${shape.contextSize}` })
    } else if (need > kvBytes) {
      skipped.push({ ...row, reason: `keys and values need ${need} bytes of memory, there are ${Math.floor(kvBytes)}` })
    } else {
      fitting.push(row)
    }
  }
  return { rows: fitting, skipped }
}

const elementBytes = (dtype: string): number => (dtype === 'fp32' ? 4 : 2)

/** Parameters of all matrices of all layers. */
const layerParameters = ({ layers, hiddenSize: c, innerSize: f }: Shape): number => layers * (4 * c * c + 2 * c * f)

/**
 * Bytes of weights that a decode step reads at least: every matrix of every layer and the output layer.
 * Embeddings are gathered, a row per token.
 */
export function bytesPerStep(shape: Shape, dtype: string): number {
  return elementBytes(dtype) * (layerParameters(shape) + shape.vocabSize * shape.hiddenSize)
}

/** Keys and values of one token in all layers. */
export function kvBytesPerToken({ layers, hiddenSize }: Shape, dtype: string): number {
  return 2 * layers * hiddenSize * elementBytes(dtype)
}

/** Least bytes read and least floating point operations of a prompt, or of one step of decode. */
export function workOf(row: BenchRow, shape: Shape, dtype: string): { bytes: number; flops: number } {
  const { layers, hiddenSize, vocabSize } = shape
  const head = vocabSize * hiddenSize
  const weights = bytesPerStep(shape, dtype)
  if (row.test === 'prefill') {
    const attention = 2 * layers * hiddenSize * row.tokens * (row.tokens + 1)
    return { bytes: weights, flops: 2 * row.tokens * layerParameters(shape) + 2 * head + attention }
  }
  const positions = promptLength(row) + row.tokens / 2
  return {
    bytes: weights + row.batch * positions * kvBytesPerToken(shape, dtype),
    flops: row.batch * (2 * layerParameters(shape) + 2 * head + 4 * layers * hiddenSize * positions),
  }
}

/** Which limit bounds some work, and the least seconds it takes. */
export function boundOf(
  { bytes, flops }: { bytes: number; flops: number }, limits: Limits,
): { by: 'memory' | 'matrix'; seconds: number } {
  const [reading, multiplying] = [bytes / limits.readBytesPerSecond, flops / limits.matrixFlopsPerSecond]
  return reading >= multiplying ? { by: 'memory', seconds: reading } : { by: 'matrix', seconds: multiplying }
}

/** A row in words. */
export function describeRow({ test, batch, depth, tokens }: BenchRow): string {
  if (test === 'prefill') return `prompt of ${tokens} tokens`
  const sequences = batch === 1 ? '1 sequence' : `${batch} sequences`
  return depth === 0 ? sequences : `${sequences} after ${depth} tokens`
}
