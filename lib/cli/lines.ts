// lines.ts: lines of text and of JSON. UTF-8 is checked, not repaired.
// Trap: lines end at \n only. node:readline also splits at U+2028, which JSON allows inside strings.
import { oneLine } from '../checkpoint/text.js'
import { PolyLMError } from '../errors.js'
import { decodeUtf8, fileName, inputBytes, isRegular, withoutMark } from './files.js'

const newline = 10
const maxLineBytes = 64 * 1024 * 1024

/** One line of input with its number, counted from 1. */
export interface Line {
  readonly number: number
  readonly text: string
}

/** A line and the bytes that it takes, its end included. */
export interface PlacedLine extends Line {
  readonly start: number
  readonly end: number
}

/**
 * Lines of a byte stream without their ends, \n or \r\n; a byte order mark at the start is dropped. A last line
 * without an end counts, unless only whole lines are wanted.
 */
export async function * readLines(
  source: AsyncIterable<Buffer>, name: string, last: 'any' | 'whole' = 'any',
): AsyncGenerator<PlacedLine> {
  let rest: Buffer[] = []
  let [number, start, end] = [0, 0, 0]
  for await (const chunk of source) {
    let from = 0
    for (let to = chunk.indexOf(newline); to >= 0; to = chunk.indexOf(newline, from)) {
      rest.push(chunk.subarray(from, to))
      end += to + 1 - from
      yield { number: ++number, text: decodeLine(Buffer.concat(rest), name, number), start, end }
      rest = []
      from = to + 1
      start = end
    }
    if (from < chunk.length) rest.push(chunk.subarray(from))
    end += chunk.length - from
    if (end - start > maxLineBytes) {
      throw new PolyLMError('LIMIT', `${name}:${number + 1} is longer than ${maxLineBytes} bytes`,
        { hint: 'lines end with \\n; is this a text file?' })
    }
  }
  if (rest.length === 0 || last === 'whole') return
  yield { number: ++number, text: decodeLine(Buffer.concat(rest), name, number), start, end }
}

function decodeLine(line: Buffer, name: string, number: number): string {
  const text = decodeUtf8(line, `${name}:${number}`)
  const content = text.endsWith('\r') ? text.slice(0, -1) : text
  return number === 1 ? withoutMark(content) : content
}

/** The name of a file before the number of a line. */
export const lineName = (file: string): string => (file === '-' ? fileName(file) : file)

/** Lines of a file, or of standard input for '-'. */
export function linesOf(file: string, signal?: AbortSignal): AsyncGenerator<PlacedLine> {
  return readLines(inputBytes(file, signal), lineName(file))
}

/** True when a line holds nothing but white space. */
export const isBlank = ({ text }: Pick<Line, 'text'>): boolean => text.trim() === ''

/**
 * Lines that can be read as often as needed: a file is opened each time, what can be read only once is kept in memory
 * when that is asked for; otherwise `again` is false, and so is a second reading.
 */
export class Lines {
  /** The lines can be read more than once. */
  readonly again: boolean
  readonly #file: string
  readonly #kept: readonly Line[] | undefined
  private constructor(file: string, again: boolean, kept: readonly Line[] | undefined) {
    this.#file = file
    this.again = again
    this.#kept = kept
  }

  static async open(file: string, keep: boolean): Promise<Lines> {
    const regular = await isRegular(file)
    if (regular || !keep) return new Lines(file, regular, undefined)
    const kept: Line[] = []
    for await (const line of linesOf(file)) kept.push(line)
    return new Lines(file, true, kept)
  }

  /** The lines from the first on; a file that is still being read ends with the signal. */
  async * read(signal?: AbortSignal): AsyncGenerator<Line> {
    if (this.#kept === undefined) yield * linesOf(this.#file, signal)
    else yield * this.#kept
  }
}

/** One line as JSON, with the place of the mistake in the message. */
export function parseJsonLine(line: Line, name: string, hint = 'each line must be one JSON value'): unknown {
  try {
    return JSON.parse(line.text)
  } catch (cause) {
    throw new PolyLMError('JSON_SYNTAX', `${name}:${line.number} is not JSON: ${shortReason(cause)}`, { hint, cause })
  }
}

/** Why JSON could not be read: V8 quotes the text where it failed, of any length and with any character. */
export const shortReason = (cause: unknown): string => oneLine((cause as Error).message.slice(0, 200))

/** True for an object that is neither null nor an array. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
