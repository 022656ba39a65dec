// bench-report.ts: what `polylm bench --json` prints, as types, and the same as people read it. The JSON schema is
// benchmarks/bench-report.schema.json; a test holds a report against it.
// Trap: the report is a contract. A new member is added to the schema too; a changed one raises `schema`.
import { oneLine } from '../checkpoint/text.js'
import { describeRow } from './bench-plan.js'
import type { BenchRow, SkippedRow } from './bench-plan.js'
import { bytes, table } from './terminal.js'

/** One measured row. Rates are medians over the runs. */
export interface BenchResult extends BenchRow {
  /** Prompt tokens, or new tokens of all sequences together. */
  readonly tokensPerSecond: number
  readonly tokensPerSecondMin: number
  readonly tokensPerSecondMax: number
  /** Weights, keys and values that have to be read at least, per second. */
  readonly bytesPerSecond: number
  /** Floating point operations that have to be done at least, per second. */
  readonly flopsPerSecond: number
  /** The least time that the machine's limits allow, over the measured time; null where no limit is known. */
  readonly fractionOfLimit: number | null
  /** Which limit that is. */
  readonly limitedBy: 'memory' | 'matrix' | null
  /** Of the slowest sequence, its prompt computed and not found in the cache. */
  readonly timeToFirstTokenMs: number | null
  /** Of the process until then, Node included. */
  readonly peakMemory: number
  /** How late a 1 ms timer was, the millisecond included, 99th percentile. */
  readonly eventLoopDelayMs: number
  /** How many runs the medians are of. */
  readonly runs: number
  /** The machine's limits before and after the runs differed by more than a tenth, also when repeated. */
  readonly noisy: boolean
}

/** The machine's limits over all looks at it. */
export interface LimitsReport {
  readonly readBytesPerSecond: number
  readonly readBytesPerSecondMin: number
  readonly readBytesPerSecondMax: number
  readonly matrixFlopsPerSecond: number
  readonly matrixFlopsPerSecondMin: number
  readonly matrixFlopsPerSecondMax: number
  readonly looks: number
  /** Whether they differed by more than a tenth. */
  readonly noisy: boolean
}

/** What `--json` prints. Bytes, seconds and counts are plain numbers. */
export interface BenchReport {
  readonly schema: 1
  readonly model: {
    readonly name: string
    readonly layers: number
    readonly hiddenSize: number
    readonly vocabSize: number
    readonly dtype: string
    readonly parameters: number
    /** Weights that one step of decode reads at least. */
    readonly bytesPerStep: number
    readonly kvBytesPerToken: number
  }
  readonly machine: {
    readonly cpu: string
    readonly cores: number
    readonly memory: number
    readonly device: string
    readonly platform: string
    readonly node: string
    readonly date: string
  }
  /** null where the model does not run on the CPU. */
  readonly limits: LimitsReport | null
  readonly load: {
    readonly seconds: number
    readonly bytes: number
    readonly bytesPerSecond: number
    readonly eventLoopDelayMs: number
  }
  readonly memory: {
    /** Of the process, Node included. */
    readonly peak: number
    readonly weights: number
    readonly kv: number
    readonly workspace: number
  }
  readonly results: readonly BenchResult[]
  readonly skipped: readonly SkippedRow[]
}

/** Three digits, never with an exponent. */
export const rate = (value: number): string => (value >= 1000 ? value.toFixed(0) : value.toPrecision(3))

/** The limits as people call them; `limitedBy` in the JSON keeps its values. */
export const limitNames = { memory: 'memory bandwidth', matrix: 'compute' } as const

/** A fraction of a limit as `94 % of memory bandwidth`. */
export function ofLimit({ fractionOfLimit, limitedBy }: Pick<BenchResult, 'fractionOfLimit' | 'limitedBy'>): string {
  if (fractionOfLimit === null || limitedBy === null) return ''
  return `${(100 * fractionOfLimit).toFixed(0)} % of ${limitNames[limitedBy]}`
}

function limitsText(limits: LimitsReport): string {
  const { readBytesPerSecond: reads, matrixFlopsPerSecond: products } = limits
  return `memory bandwidth ${rate(reads / 1e9)} GB/s ` +
    `(${rate(limits.readBytesPerSecondMin / 1e9)}..${rate(limits.readBytesPerSecondMax / 1e9)}), compute ` +
    `${rate(products / 1e12)} TFLOP/s (${rate(limits.matrixFlopsPerSecondMin / 1e12)}..` +
    `${rate(limits.matrixFlopsPerSecondMax / 1e12)})${limits.noisy ? ', noisy' : ''}`
}

/** The report as people read it. */
export function asText({ model, machine, limits, load, memory, results, skipped }: BenchReport): string {
  const head = table([
    ['model', `${oneLine(model.name)}: ${model.layers} layers, hidden ${model.hiddenSize}, ` +
      `vocabulary ${model.vocabSize}, ${model.dtype}`],
    ['machine', `${machine.cpu}, ${machine.cores} cores, ${bytes(machine.memory)}, ${machine.device}, ` +
      `Node ${machine.node}`],
    ...(limits === null ? [] : [['limits', limitsText(limits)]]),
    ['load', `${load.seconds.toFixed(2)} s for ${bytes(load.bytes)}, ${rate(load.bytesPerSecond / 1e9)} GB/s`],
    ['weights/step', bytes(model.bytesPerStep)],
    ['peak memory', `${bytes(memory.peak)}: weights ${bytes(memory.weights)}, keys and values at most ` +
      `${bytes(memory.kv)}, workspace ${bytes(memory.workspace)}`],
    ['event loop', `p99 delay ${load.eventLoopDelayMs.toFixed(1)} ms while loading`],
  ])
  const rows = results.map(row => [
    describeRow(row), rate(row.tokensPerSecond), `${rate(row.tokensPerSecondMin)}..${rate(row.tokensPerSecondMax)}`,
    ofLimit(row), row.timeToFirstTokenMs === null ? '' : `${row.timeToFirstTokenMs.toFixed(0)} ms`,
    bytes(row.peakMemory), `${row.eventLoopDelayMs.toFixed(1)} ms`, row.noisy ? 'noisy' : ''])
  const left = skipped.map(row => `not measured: ${describeRow(row)}: ${row.reason}\n`).join('')
  const title = ['', 'tokens/s', 'min..max', 'limit', 'first token', 'peak memory', 'event loop', '']
  return head + '\n' + table([title, ...rows]) + left
}
