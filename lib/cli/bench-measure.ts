// bench-measure.ts: the measurements of `polylm bench`. Medians over rounds; the memory probe runs before and
// after, so that a machine that changed its speed in between shows.
import { cpus } from 'node:os'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { probeBandwidth } from '../bench-support.js'
import type { GenerateResult, Model } from '../index.js'
import { bytesPerStep } from './bench-shapes.js'
import type { BenchModel } from './bench-shapes.js'

/** How much to measure. */
export interface BenchPlan {
  readonly prefill: readonly number[]
  readonly batch: readonly number[]
  /** New tokens of each sequence. */
  readonly tokens: number
  /** How often each number is taken; the median is reported. */
  readonly rounds: number
}

interface PrefillRow {
  readonly promptTokens: number
  readonly tokensPerSecond: number
  readonly timeToFirstTokenMs: number
}

interface DecodeRow {
  readonly batch: number
  /** Of all sequences together. */
  readonly tokensPerSecond: number
  readonly stepsPerSecond: number
  /** Weights read per second. */
  readonly weightGBps: number
  /** That, divided by what the memory delivers. */
  readonly ofBandwidth: number
}

/** What `--json` prints. */
export interface BenchReport {
  readonly model: {
    readonly name: string
    readonly layers: number
    readonly hiddenSize: number
    readonly vocabSize: number
    readonly dtype: string
    readonly parameters: number
    readonly bytesPerStep: number
  }
  readonly machine: {
    readonly cpu: string
    readonly cores: number
    readonly device: string
    readonly node: string
    readonly readGBps: number
    readonly readGBpsAfter: number
  }
  readonly load: { readonly seconds: number; readonly bytes: number; readonly GBps: number }
  readonly prefill: readonly PrefillRow[]
  readonly decode: readonly DecodeRow[]
  readonly memory: {
    readonly peakRss: number
    readonly weights: number
    readonly kv: number
    readonly workspace: number
  }
  /** Delay of a 1 ms timer, the millisecond included. */
  readonly eventLoop: { readonly loadP99Ms: number; readonly generateP99Ms: number }
}

/** Loads the model, measures it and disposes of it. `readRate` is what the memory delivers, in bytes per second. */
export async function measure(
  open: () => Promise<BenchModel>, plan: BenchPlan, readRate: number, signal: AbortSignal,
): Promise<BenchReport> {
  const started = performance.now()
  const [loadP99Ms, loaded] = await watchLoop(open)
  const seconds = (performance.now() - started) / 1000
  const { model, name, shape } = loaded
  try {
    const { info } = model
    const stepBytes = bytesPerStep(shape, info.dtype)
    const runner = new Runner(model, shape.vocabSize, signal)
    const [generateP99Ms, rows] = await watchLoop(() => runner.all(plan, stepBytes, readRate))
    const { memory } = model.stats()
    return {
      model: {
        name, layers: info.layers, hiddenSize: info.hiddenSize, vocabSize: info.vocabSize, dtype: info.dtype,
        parameters: info.parameters, bytesPerStep: stepBytes,
      },
      machine: { ...machine(model), readGBps: readRate / 1e9, readGBpsAfter: await probeBandwidth(0) / 1e9 },
      load: { seconds, bytes: memory.weights, GBps: memory.weights / seconds / 1e9 },
      ...rows,
      memory: {
        peakRss: process.resourceUsage().maxRSS * 1024,
        weights: memory.weights, kv: memory.kv, workspace: memory.workspace,
      },
      eventLoop: { loadP99Ms, generateP99Ms },
    }
  } finally {
    await model.dispose()
  }
}

function machine(model: Model): { cpu: string; cores: number; device: string; node: string } {
  const { kind, isa } = model.info.device
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: cpus().length,
    device: isa === undefined ? kind : `${kind} ${isa}`, node: process.versions.node,
  }
}

/** Runs `work` and tells how late a 1 ms timer was at the 99th percentile meanwhile. */
async function watchLoop<T>(work: () => Promise<T>): Promise<[number, T]> {
  const histogram = monitorEventLoopDelay({ resolution: 1 })
  histogram.enable()
  try {
    const result = await work()
    await new Promise(resolve => setTimeout(resolve, 5))      // a delay is recorded when it is over
    return [histogram.percentile(99) / 1e6, result]
  } finally {
    histogram.disable()
  }
}

class Runner {
  readonly #model: Model
  readonly #vocabSize: number
  readonly #signal: AbortSignal
  #state = 0x2545f491

  constructor(model: Model, vocabSize: number, signal: AbortSignal) {
    this.#model = model
    this.#vocabSize = vocabSize
    this.#signal = signal
  }

  async all(plan: BenchPlan, stepBytes: number, readRate: number): Promise<Pick<BenchReport, 'prefill' | 'decode'>> {
    const room = this.#model.info.contextSize
    await this.#generate(Math.min(16, room - 2), 2)           // first use of buffers and thread pool
    const prefill: PrefillRow[] = []
    for (const length of plan.prefill.filter(tokens => tokens < room)) {
      prefill.push(await this.#prefill(length, plan.rounds))
    }
    const decode: DecodeRow[] = []
    const tokens = Math.min(plan.tokens, room - promptOfDecode)
    for (const batch of plan.batch) decode.push(await this.#decode(batch, tokens, plan.rounds, stepBytes, readRate))
    return { prefill, decode }
  }

  async #prefill(promptTokens: number, rounds: number): Promise<PrefillRow> {
    const results: GenerateResult[] = []
    for (let i = 0; i < rounds; i++) results.push(await this.#generate(promptTokens, 1))
    const prefillMs = median(results.map(result => result.timings.prefillMs))
    return {
      promptTokens, tokensPerSecond: promptTokens / (prefillMs / 1000),
      timeToFirstTokenMs: median(results.map(result => result.timings.timeToFirstTokenMs)),
    }
  }

  async #decode(
    batch: number, tokens: number, rounds: number, stepBytes: number, readRate: number,
  ): Promise<DecodeRow> {
    const stepMs: number[] = []
    for (let i = 0; i < rounds; i++) {
      const all = await Promise.all(Array.from({ length: batch }, () => this.#generate(promptOfDecode, tokens)))
      // The sequences start together and end together; the slowest one says how long the steps took.
      stepMs.push(Math.max(...all.map(result => result.timings.decodeMs)) / Math.max(1, tokens - 1))
    }
    const stepsPerSecond = 1000 / median(stepMs)
    const weightRate = stepsPerSecond * stepBytes
    return {
      batch, stepsPerSecond, tokensPerSecond: stepsPerSecond * batch,
      weightGBps: weightRate / 1e9, ofBandwidth: weightRate / readRate,
    }
  }

  #generate(promptTokens: number, maxTokens: number): Promise<GenerateResult> {
    const tokens = Int32Array.from({ length: promptTokens }, () => this.#token())
    return this.#model.generate({ tokens }, { maxTokens, stopTokenIds: [], signal: this.#signal })
  }

  /** A token id from a fixed sequence of pseudo-random ones, so that no prompt repeats an earlier one. */
  #token(): number {
    this.#state ^= this.#state << 13
    this.#state ^= this.#state >>> 17
    this.#state ^= this.#state << 5
    return (this.#state >>> 0) % this.#vocabSize
  }
}

/** Prompt of the decode measurements: one KV block, so that prompts of a batch are computed in one step. */
const promptOfDecode = 16

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? NaN
}
