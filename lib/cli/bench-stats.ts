// bench-stats.ts: what makes measurements on a shared machine comparable: medians with their range, and samples
// taken between two looks at the machine's limits. Pure functions; nothing here measures.
// Trap: a sample whose two looks differ is not wrong, only not comparable: it counts when there is nothing better.

/** What the machine can do at best: bytes read from memory and multiply-adds of the products, per second. */
export interface Limits {
  readonly readBytesPerSecond: number
  readonly matrixFlopsPerSecond: number
}

/** The middle of several runs, with the range they fell into. */
export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
}

/** Two looks at a limit may differ by so much, as a share of the larger one, and still be the same machine. */
export const tolerance = 0.1

/** The middle one; of an even number of values the mean of the two in the middle; NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const [low, high] = [sorted[Math.ceil(sorted.length / 2) - 1], sorted[Math.floor(sorted.length / 2)]]
  return low === undefined || high === undefined ? NaN : (low + high) / 2
}

/** Median and range of at least one value. */
export function spread(values: readonly number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) }
}

/** Whether the machine was the same before and after. */
export function isSteady(before: number, after: number): boolean {
  return Math.abs(before - after) <= tolerance * Math.max(before, after)
}

/** One run between two looks at the limit that bounds it. Without a limit there is nothing to compare. */
export interface Sample {
  readonly value: number
  readonly before?: number
  readonly after?: number
}

/** Whether a sample may be compared with others. */
export function isQuiet({ before, after }: Sample): boolean {
  return before === undefined || after === undefined || isSteady(before, after)
}

/** Whether a row has all it needs: the quiet samples that are wanted, or as many samples as are worth the time. */
export function isComplete(samples: readonly Sample[], wanted: number, most: number): boolean {
  return samples.filter(isQuiet).length >= wanted || samples.length >= most
}

/** The samples to report: the quiet ones if there are enough of them, else all, marked as noisy. */
export function settle<T extends Sample>(
  samples: readonly T[], wanted: number,
): { used: readonly T[]; noisy: boolean } {
  const quiet = samples.filter(isQuiet)
  return quiet.length >= wanted ? { used: quiet, noisy: false } : { used: samples, noisy: true }
}
