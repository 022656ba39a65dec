// terminal.ts: what the commands know about the streams they write to: colours, safe text, numbers for people,
// and the pipe that may close early. Not here: progress bars (progress.ts).
// Trap: text from a model may hold escape sequences; on a terminal it is shown through `printable`.
import type { WriteStream } from 'node:tty'
import { writeFailure } from './files.js'
import { printableJson } from '../checkpoint/text.js'

const codes = { red: 31, green: 32, yellow: 33, cyan: 36, bold: 1, dim: 2 } as const
type Stream = NodeJS.WriteStream | WriteStream

/** Wraps text in a colour when the stream is a terminal and NO_COLOR is not set. */
export function paint(color: keyof typeof codes, text: string, stream: Stream = process.stdout): string {
  const wanted = stream.isTTY === true && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb'
  return wanted ? `\x1b[${codes[color]}m${text}\x1b[0m` : text
}

/**
 * Model text as it may be shown on a terminal: control characters other than line ends and tabs, and marks that
 * turn the direction of whole lines, become U+FFFD. Marks inside words, which scripts need, stay.
 */
export function printable(text: string, stream: Stream = process.stdout): string {
  if (stream.isTTY !== true) return text
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]/g, '\ufffd')
}

/**
 * Writes to standard output and waits while the reader is slower than the writer.
 *
 * @throws PolyLMError DISK_FULL or FILE_IO when it cannot be written.
 */
export function print(text: string): Promise<void> {
  if (text === '') return Promise.resolve()
  return new Promise((resolve, reject) => {
    process.stdout.write(text, e => {
      if (e === undefined || e === null) return resolve()
      reject(writeFailure('-', e) as Error)
    })
  })
}

/** A value as a line of JSON for standard output; on a terminal with JSON's escapes for what it would obey. */
export function jsonLine(value: unknown): string {
  const json = JSON.stringify(value)
  return (process.stdout.isTTY ? printableJson(json) : json) + '\n'
}

/** One line of JSON on standard output. */
export const printJson = (value: unknown): Promise<void> => print(jsonLine(value))

/** A remark for people on standard error. */
export function note(text: string): void {
  process.stderr.write(text + '\n')
}

let outputFailure: unknown

/**
 * Ends the process quietly when the reader of standard output goes away, as in `polylm ... | head`: it has what it
 * wanted. Other failures are kept for `outputSettled`: whoever writes is told, but help texts are not ours to write.
 */
export function watchOutput(): void {
  process.stdout.on('error', (e: NodeJS.ErrnoException) => {
    if (e.code === 'EPIPE' || e.code === 'ERR_STREAM_DESTROYED') process.exit(0)
    outputFailure ??= writeFailure('-', e)
  })
  process.stderr.on('error', () => { /* nobody reads remarks: go on without them */ })
}

/** Throws when something that was written to standard output did not arrive. */
export async function outputSettled(): Promise<void> {
  if (process.stdout.writableLength > 0) await new Promise(resolve => { process.stdout.write('', resolve) })
  await new Promise(resolve => { setImmediate(resolve) })
  if (outputFailure !== undefined) throw outputFailure as Error
}

/** 1234567 as '1.2 MB'; powers of 1000, as disks and memory bandwidths are sold. */
export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let value = count
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${units[unit]}`
}

/** A count with thousands separators, the same in every locale. */
export function count(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+(?!\d))/g, ',')
}

/** Rows as left-aligned columns, two spaces apart; the last column is not padded. */
export function table(rows: ReadonlyArray<readonly string[]>): string {
  const widths: number[] = []
  for (const row of rows) row.forEach((cell, i) => { widths[i] = Math.max(widths[i] ?? 0, cell.length) })
  return rows
    .map(row => row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0))).join('  ') + '\n')
    .join('')
}
