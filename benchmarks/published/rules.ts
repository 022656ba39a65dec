// rules.ts: how measured numbers are rounded wherever they are published. One rule for each kind of number, so that two
// pages never show the same measurement differently. Not here: which numbers are published.
import { count } from '../../lib/cli/terminal.js'

/** Three significant digits with thousands separators: 12.0, 169, 30,700. */
export function three(value: number): string {
  const rounded = Number(value.toPrecision(3))
  return rounded >= 1000 ? count(rounded) : value.toPrecision(3)
}

/** Median with its range: `616 (334 to 756)`. */
export const ranged = (value: number, from: number, to: number): string => `${three(value)} (${three(from)} to ${three(to)})`

/** A range of values, one number where both ends round to the same. */
export function between(values: readonly number[], show: (value: number) => string = three): string {
  const [from, to] = [show(Math.min(...values)), show(Math.max(...values))]
  return from === to ? from : `${from} to ${to}`
}

/** Whole percent; less than ten percent with one digit. */
export const percent = (share: number): string => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`

/** How many times as much: two significant digits. */
export const times = (ratio: number): string => (ratio >= 9.95 ? ratio.toFixed(0) : ratio.toPrecision(2))

/** Milliseconds below one second (below ten of them with one digit), else seconds with one digit. */
export const duration = (ms: number): string => (ms < 1000 ? `${ms.toFixed(ms < 9.95 ? 1 : 0)} ms` : `${(ms / 1000).toFixed(1)} s`)

/** Memory as it is planned: binary units, without needless digits. */
export function binary(size: number): string {
  const [value, unit] = size >= 2 ** 30 ? [size / 2 ** 30, 'GiB'] : size >= 2 ** 20 ? [size / 2 ** 20, 'MiB'] : [size / 1024, 'KiB']
  return `${Number(value.toFixed(1))} ${unit}`
}

/** Memory as it was measured: gigabytes with one digit. */
export const gigabytes = (size: number): string => `${(size / 1e9).toFixed(1)} GB`

/** A Markdown table. */
export function markdown(head: readonly string[], rows: ReadonlyArray<readonly string[]>): string {
  return [head, head.map(() => '---'), ...rows].map(row => `| ${row.join(' | ')} |\n`.replace(/ {2,}/g, ' ')).join('')
}
