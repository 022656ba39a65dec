// rounds.ts: engines in turns, a look at the machine before and after each, and what comes of it: medians, ranges, and
// ratios within a round. Pure functions and one loop; the loop knows engines only by their interface.
// Trap: a ratio of two medians compares different minutes; what is reported is the median of the ratios of each round.
import { isSteady, median, settle, spread } from '../../lib/cli/bench-stats.js'
import type { Limits, Sample } from '../../lib/cli/bench-stats.js'
import type { Engine, EngineRun, Speed, Task } from './engines.js'

/** One start of one engine between two looks at the machine. */
export interface Trial {
  readonly round: number
  readonly engine: string
  readonly run: EngineRun
  readonly before: Limits
  readonly after: Limits
}

/** One line of the comparison. */
export interface PeerResult {
  readonly engine: string
  readonly test: 'prefill' | 'decode'
  readonly batch: number
  readonly tokens: number
  readonly tokensPerSecond: number
  readonly tokensPerSecondMin: number
  readonly tokensPerSecondMax: number
  /** Tokens/s of the first engine over those of this one, median over the rounds; 1 for the first one itself. */
  readonly ratio: number
  readonly runs: number
  /** The machine's memory reads (decode) or products (prefill) differed by more than a tenth around too many runs. */
  readonly noisy: boolean
}

/** Which engine begins changes from round to round, so that none always runs on a machine warmed by the same other. */
export function turns<T>(engines: readonly T[], round: number): T[] {
  const first = engines.length === 0 ? 0 : round % engines.length
  return [...engines.slice(first), ...engines.slice(0, first)]
}

/** All engines, `rounds` times; `look` measures the machine. An engine that fails ends everything. */
export async function measureRounds(
  engines: readonly Engine[], task: Task, rounds: number, look: () => Promise<Limits>, tell: (text: string) => void,
): Promise<Trial[]> {
  const trials: Trial[] = []
  let before = await look()
  for (let round = 0; round < rounds; round++) {
    for (const engine of turns(engines, round)) {
      tell(`round ${round + 1}: ${engine.name}`)
      const run = await engine.run(task)
      const after = await look()
      trials.push({ round, engine: engine.name, run, before, after })
      before = after
    }
  }
  return trials
}

const key = ({ test, batch, tokens }: Speed): string => `${test} ${batch} ${tokens}`

function sampleOf({ before, after }: Trial, speed: Speed): Sample {
  const limit = speed.test === 'decode' ? 'readBytesPerSecond' : 'matrixFlopsPerSecond'
  return { value: speed.tokensPerSecond, before: before[limit], after: after[limit] }
}

/** Medians, ranges and ratios of all engines; the first engine is the one that others are compared with. */
export function summarize(trials: readonly Trial[], engines: readonly string[]): PeerResult[] {
  const rowsOf = (engine: string, name: string): { round: number; speed: Speed; sample: Sample }[] => trials
    .filter(trial => trial.engine === engine).flatMap(trial => trial.run.speeds.filter(speed => key(speed) === name)
      .map(speed => ({ round: trial.round, speed, sample: sampleOf(trial, speed) })))
  const names = [...new Set(trials.flatMap(({ run }) => run.speeds.map(key)))]
  return names.flatMap(name => {
    const ours = new Map(rowsOf(engines[0] ?? '', name).map(({ round, speed }) => [round, speed.tokensPerSecond]))
    return engines.flatMap(engine => {
      const rows = rowsOf(engine, name)
      const [first] = rows
      if (first === undefined) return []
      const { used, noisy } = settle(rows.map(({ sample }) => sample), Math.ceil(rows.length / 2))
      const speed = spread(used.map(({ value }) => value))
      const ratios = rows.flatMap(({ round, speed: { tokensPerSecond } }) => {
        const own = ours.get(round)
        return own === undefined ? [] : [own / tokensPerSecond]
      })
      return [{
        engine, test: first.speed.test, batch: first.speed.batch, tokens: first.speed.tokens,
        tokensPerSecond: speed.median, tokensPerSecondMin: speed.min, tokensPerSecondMax: speed.max,
        ratio: median(ratios), runs: used.length, noisy,
      }]
    })
  })
}

/** The most memory that an engine took in any round; null where the system does not tell. */
export function peakOf(trials: readonly Trial[], engine: string): number | null {
  const peaks = trials.filter(trial => trial.engine === engine).flatMap(({ run }) => run.peakMemory ?? [])
  return peaks.length === 0 ? null : Math.max(...peaks)
}

/** Whether the machine stayed the same through all rounds. */
export function wasSteady(trials: readonly Trial[], limit: keyof Limits): boolean {
  const looks = trials.flatMap(({ before, after }) => [before[limit], after[limit]])
  return looks.length === 0 || isSteady(Math.min(...looks), Math.max(...looks))
}
