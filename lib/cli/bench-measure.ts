// bench-measure.ts: the measurements of `polylm bench`. Rounds go over all rows in turn; before and after each run
// stands a look at the machine's limits, and runs between two looks that differ are taken again.
// Trap: the model computes nothing while a look is taken, and nobody looks while it computes.
import { cpus, totalmem } from 'node:os'
import { createHistogram, monitorEventLoopDelay } from 'node:perf_hooks'
import type { GenerateResult, LoadOptions, Model } from '../index.js'
import { LimitsProbe } from './bench-limits.js'
import {
  boundOf, bytesPerStep, describeRow, fitRows, kvBytesPerToken, kvTokens, planRows, shortPrompt, workOf,
} from './bench-plan.js'
import type { BenchPlan, BenchRow } from './bench-plan.js'
import type { BenchReport, BenchResult, LimitsReport } from './bench-report.js'
import type { BenchSource, Shape } from './bench-shapes.js'
import { isComplete, isSteady, median, settle, spread } from './bench-stats.js'
import type { Limits, Sample } from './bench-stats.js'
import { note, paint } from './terminal.js'

/** One run of a row. */
interface Run extends Sample {
  /** Of all sequences together. */
  readonly value: number
  /** Of the slowest sequence; undefined when part of its prompt was in the cache. */
  readonly timeToFirstTokenMs: number | undefined
  readonly limits: Limits | undefined
}

interface Measured {
  readonly row: BenchRow
  readonly runs: Run[]
  readonly delays: Delays
  peakMemory: number
}

/** Loads a model, measures it and disposes of it. */
export async function measure(
  source: BenchSource, plan: BenchPlan, options: LoadOptions, free: number, signal: AbortSignal,
): Promise<BenchReport> {
  const dtype = options.dtype === 'fp32' ? 'fp32' : 'bf16'
  const perToken = kvBytesPerToken(source.shape, dtype)
  const room = options.kvMemory === undefined ? free - bytesPerStep(source.shape, dtype) : Infinity
  const { rows, skipped } = fitRows(planRows(plan), source.shape, dtype, room * 0.8)
  const kvMemory = options.kvMemory ?? kvTokens(rows) * perToken
  const sequences = Math.max(options.maxSequences ?? 64, ...rows.map(row => row.batch))
  const delays = createHistogram()
  const started = performance.now()
  note(paint('dim', 'loading ...', process.stderr))
  const model = await watchLoop(delays, () => source.load({ ...options, kvMemory, maxSequences: sequences }))
  const seconds = (performance.now() - started) / 1000
  const onCpu = model.info.device.kind === 'cpu'
  const probing = { threads: threadsOf(options), dtype: model.info.dtype, smoke: plan.smoke }
  const probe = onCpu ? new LimitsProbe(probing) : undefined
  try {
    const bench = new Bench(model, source.shape, probe, signal)
    const looks = await bench.all(rows, plan.repeats, plan.smoke ? plan.repeats : 2 * plan.repeats)
    const { weights, kv, workspace } = model.stats().memory
    return {
      schema: 1,
      model: modelReport(source, model),
      machine: machineReport(model),
      limits: limitsReport(looks),
      load: { seconds, bytes: weights, bytesPerSecond: weights / seconds, eventLoopDelayMs: p99(delays) },
      memory: { peak: peakMemory(), weights, kv, workspace },
      results: bench.measured.map(one => resultOf(one, plan.repeats, source.shape, model.info.dtype)),
      skipped,
    }
  } finally {
    probe?.close()
    await model.dispose()
  }
}

/** Workers as the probe counts them: 0 is as many as a model gets. */
export const threadsOf = ({ threads }: LoadOptions): number => (typeof threads === 'number' ? threads : 0)

function modelReport({ name, shape }: BenchSource, { info }: Model): BenchReport['model'] {
  return {
    name, layers: info.layers, hiddenSize: info.hiddenSize, vocabSize: info.vocabSize, dtype: info.dtype,
    parameters: info.parameters, bytesPerStep: bytesPerStep(shape, info.dtype),
    kvBytesPerToken: kvBytesPerToken(shape, info.dtype),
  }
}

function machineReport({ info }: Model): BenchReport['machine'] {
  const { kind, isa } = info.device
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: cpus().length, memory: totalmem(),
    device: isa === undefined ? kind : `${kind} ${isa}`, platform: `${process.platform}-${process.arch}`,
    node: process.versions.node, date: new Date().toISOString(),
  }
}

/** All looks at the machine as one line of the report; null where nothing was looked at. */
export function limitsReport(looks: readonly Limits[]): LimitsReport | null {
  const [first, last] = [looks[0], looks.at(-1)]
  if (first === undefined || last === undefined) return null
  const reads = spread(looks.map(look => look.readBytesPerSecond))
  const products = spread(looks.map(look => look.matrixFlopsPerSecond))
  return {
    readBytesPerSecond: reads.median, readBytesPerSecondMin: reads.min, readBytesPerSecondMax: reads.max,
    matrixFlopsPerSecond: products.median, matrixFlopsPerSecondMin: products.min, matrixFlopsPerSecondMax: products.max,
    looks: looks.length, noisy: !isSteady(reads.min, reads.max) || !isSteady(products.min, products.max),
  }
}

/** A row with everything that was measured of it. */
export function resultOf(
  { row, runs, delays, peakMemory: peak }: Measured, repeats: number, shape: Shape, dtype: string,
): BenchResult {
  const { used, noisy } = settle(runs, repeats)
  const speed = spread(used.map(run => run.value))
  const first = runs.flatMap(run => run.timeToFirstTokenMs ?? [])
  const work = workOf(row, shape, dtype)
  const tokens = row.test === 'prefill' ? row.tokens : row.batch
  const fractions = used.flatMap(run => {
    if (run.limits === undefined) return []
    return boundOf(work, run.limits).seconds / (tokens / run.value)
  })
  const limits = used[0]?.limits
  return {
    ...row,
    tokensPerSecond: speed.median, tokensPerSecondMin: speed.min, tokensPerSecondMax: speed.max,
    bytesPerSecond: work.bytes * speed.median / tokens, flopsPerSecond: work.flops * speed.median / tokens,
    fractionOfLimit: fractions.length === 0 ? null : median(fractions),
    limitedBy: limits === undefined ? null : boundOf(work, limits).by,
    timeToFirstTokenMs: first.length === 0 ? null : median(first),
    peakMemory: peak, eventLoopDelayMs: p99(delays), runs: used.length, noisy,
  }
}

type Delays = ReturnType<typeof createHistogram>
const p99 = (delays: Delays): number => (delays.count === 0 ? 0 : delays.percentile(99) / 1e6)
const peakMemory = (): number => process.resourceUsage().maxRSS * 1024

/** Runs `work` and adds to `delays` how late a 1 ms timer was meanwhile. */
async function watchLoop<T>(delays: Delays, work: () => Promise<T>): Promise<T> {
  const monitor = monitorEventLoopDelay({ resolution: 1 })
  monitor.enable()
  try {
    const result = await work()
    await new Promise(resolve => setTimeout(resolve, 5))      // a delay is recorded when it is over
    return result
  } finally {
    monitor.disable()
    if (monitor.count > 0) delays.record(Math.max(1, Math.round(monitor.percentile(99))))
  }
}

class Bench {
  readonly measured: Measured[] = []
  readonly #model: Model
  readonly #shape: Shape
  readonly #probe: LimitsProbe | undefined
  readonly #signal: AbortSignal
  readonly #coldStarts = new Map<BenchRow, number>()
  #fresh = 0x2545f491

  constructor(model: Model, shape: Shape, probe: LimitsProbe | undefined, signal: AbortSignal) {
    this.#model = model
    this.#shape = shape
    this.#probe = probe
    this.#signal = signal
  }

  /** Measures all rows in rounds; gives every look at the machine. */
  async all(rows: readonly BenchRow[], repeats: number, most: number): Promise<Limits[]> {
    await this.#generate(this.#newTokens(shortPrompt), 2)     // first use of buffers and thread pool
    const prompts = rows.filter(row => row.test === 'prefill').map(row => row.tokens)
    if (prompts.length > 0) await this.#generate(this.#newTokens(Math.max(...prompts)), 1)
    for (const row of rows) this.measured.push({ row, runs: [], delays: createHistogram(), peakMemory: 0 })
    const looks: Limits[] = []
    let before = await this.#look(looks)
    for (let round = 1; this.measured.some(({ runs }) => !isComplete(runs, repeats, most)); round++) {
      for (const one of this.measured) {
        if (isComplete(one.runs, repeats, most)) continue
        note(paint('dim', `round ${round}: ${describeRow(one.row)}`, process.stderr))
        if (round === 1 && one.row.depth > 0) {
          await this.#warmUp(one.row)
          before = await this.#look(looks)
        }
        const run = await watchLoop(one.delays, () => this.#run(one.row))
        if (round === 1) one.peakMemory = peakMemory()
        const after = await this.#look(looks)
        one.runs.push({ ...run, ...this.#between(one.row, before, after) })
        before = after
      }
    }
    return looks
  }

  /** Computes the long prompts of a deep row; afterwards they are in the prefix cache. */
  async #warmUp(row: BenchRow): Promise<void> {
    const { timeToFirstTokenMs } = await this.#decode({ ...row, tokens: 2 })
    if (timeToFirstTokenMs !== undefined) this.#coldStarts.set(row, timeToFirstTokenMs)
  }

  async #look(looks: Limits[]): Promise<Limits | undefined> {
    if (this.#probe === undefined) return undefined
    const limits = await this.#probe.take()
    looks.push(limits)
    this.#signal.throwIfAborted()
    return limits
  }

  /** What a run is judged by: the mean of both looks, and the limit that bounds it on either side. */
  #between(
    row: BenchRow, before: Limits | undefined, after: Limits | undefined,
  ): Pick<Run, 'limits' | 'before' | 'after'> {
    if (before === undefined || after === undefined) return { limits: undefined }
    const limits = {
      readBytesPerSecond: (before.readBytesPerSecond + after.readBytesPerSecond) / 2,
      matrixFlopsPerSecond: (before.matrixFlopsPerSecond + after.matrixFlopsPerSecond) / 2,
    }
    const bound = boundOf(workOf(row, this.#shape, this.#model.info.dtype), limits)
    const key = bound.by === 'memory' ? 'readBytesPerSecond' : 'matrixFlopsPerSecond'
    return { limits, before: before[key], after: after[key] }
  }

  async #run(row: BenchRow): Promise<Pick<Run, 'value' | 'timeToFirstTokenMs'>> {
    if (row.test === 'decode') {
      const run = await this.#decode(row)
      return { ...run, timeToFirstTokenMs: run.timeToFirstTokenMs ?? this.#coldStarts.get(row) }
    }
    const { timings } = await this.#generate(this.#newTokens(row.tokens), 1)
    return { value: row.tokens / (timings.prefillMs / 1000), timeToFirstTokenMs: timings.timeToFirstTokenMs }
  }

  async #decode({ batch, depth, tokens }: BenchRow): Promise<Pick<Run, 'value' | 'timeToFirstTokenMs'>> {
    // While one prompt is computed all others arrive, so that they begin in the same step and end together.
    const gate = batch > 1 ? this.#generate(this.#newTokens(4 * shortPrompt), 1) : undefined
    const prompts = Array.from({ length: batch }, (_, i) => this.#promptAt(depth, i))
    const results = await Promise.all(prompts.map(prompt => this.#generate(prompt, tokens)))
    await gate
    const decodeMs = Math.max(...results.map(({ timings }) => timings.decodeMs))
    const cached = results.some(({ usage }) => usage.cachedTokens > 0)
    return {
      value: batch * (tokens - 1) / (decodeMs / 1000),
      timeToFirstTokenMs: cached ? undefined : Math.max(...results.map(({ timings }) => timings.prefillMs)),
    }
  }

  #generate(tokens: Int32Array, maxTokens: number): Promise<GenerateResult> {
    return this.#model.generate({ tokens }, { maxTokens, stopTokenIds: [], signal: this.#signal })
  }

  /** The prompt of one sequence: the same in every round when it is long, for the cache; else never the same. */
  #promptAt(depth: number, sequence: number): Int32Array {
    if (depth === 0) return this.#newTokens(shortPrompt)
    const state = { value: 0x9e3779b9 ^ (sequence + 1) * 0x85ebca6b }
    return Int32Array.from({ length: Math.max(shortPrompt, depth) }, () => nextToken(state, this.#shape.vocabSize))
  }

  #newTokens(count: number): Int32Array {
    const state = { value: this.#fresh }
    const tokens = Int32Array.from({ length: count }, () => nextToken(state, this.#shape.vocabSize))
    this.#fresh = state.value
    return tokens
  }
}

function nextToken(state: { value: number }, vocabSize: number): number {
  state.value ^= state.value << 13
  state.value ^= state.value >>> 17
  state.value ^= state.value << 5
  return (state.value >>> 0) % vocabSize
}
