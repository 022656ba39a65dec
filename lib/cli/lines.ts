// lines.ts: text and JSON lines in, JSON lines out. UTF-8 is checked, not repaired.
// Trap: lines end at \n only. node:readline also splits at U+2028, which JSON allows inside strings.
import { createReadStream } from 'node:fs'
import { open, readFile, stat, truncate } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { UsageError } from './failure.js'

const newline = 10

/** One line of input with its number, counted from 1. */
export interface Line {
  readonly number: number
  readonly text: string
}

/** The bytes of a file, or of standard input for '-'; they end when the signal aborts, also in the middle. */
export function inputStream(file: string, signal?: AbortSignal): AsyncIterable<Buffer> {
  const stream = file === '-' ? process.stdin : createReadStream(file)
  signal?.addEventListener('abort', () => { stream.destroy() }, { once: true })
  return stream
}

/** Lines of a byte stream without their ends; a byte order mark at the start is dropped. */
export async function * readLines(source: AsyncIterable<Buffer>, name: string): AsyncGenerator<Line> {
  let rest: Buffer[] = []
  let number = 0
  for await (const chunk of source) {
    let start = 0
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
      rest.push(chunk.subarray(start, end))
      yield { number: ++number, text: decodeLine(Buffer.concat(rest), name, number) }
      rest = []
      start = end + 1
    }
    if (start < chunk.length) rest.push(chunk.subarray(start))
  }
  if (rest.length > 0) yield { number: ++number, text: decodeLine(Buffer.concat(rest), name, number) }
}

function decodeLine(line: Buffer, name: string, number: number): string {
  const text = decodeUtf8(line, `${name}:${number}`)
  return text.endsWith('\r') ? text.slice(0, -1) : text
}

/** Strict UTF-8; a byte order mark is dropped. */
export function decodeUtf8(data: Uint8Array, where: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(data)
  } catch (cause) {
    throw Object.assign(new Error(`${where} is not valid UTF-8`), { cause })
  }
}

/** A whole file, or standard input for '-', as text. */
export async function readText(file: string): Promise<string> {
  if (file !== '-') return decodeUtf8(await readFile(file), file)
  const chunks: Buffer[] = []
  for await (const chunk of inputStream('-')) chunks.push(chunk)
  return decodeUtf8(Buffer.concat(chunks), 'standard input')
}

/** One line as JSON, with the place of the mistake in the message. */
export function parseJsonLine(line: Line, name: string): unknown {
  try {
    return JSON.parse(line.text)
  } catch (cause) {
    throw Object.assign(new Error(`${name}:${line.number} is not JSON: ${(cause as Error).message}`), { cause })
  }
}

/** True for an object that is neither null nor an array. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** How many lines of a file hold something other than white space. */
export async function countLines(file: string): Promise<number> {
  let found = 0
  for await (const line of readLines(createReadStream(file), file)) if (line.text.trim() !== '') found++
  return found
}

/** A file that grows by whole JSON lines: each is one write at the end, so that a crash leaves whole lines. */
export class JsonLinesFile {
  readonly #file: FileHandle
  readonly #name: string
  private constructor(file: FileHandle, name: string) {
    this.#file = file
    this.#name = name
  }

  /**
   * Opens the output. A file that has content is an error unless it is to be resumed; then a last line that
   * was cut by a crash is removed.
   */
  static async open(name: string, resume: boolean): Promise<JsonLinesFile> {
    const size = await sizeOf(name)
    if (size > 0 && !resume) {
      throw new UsageError(`${name} already exists and holds ${size} bytes`, 'add --resume to go on, or remove it')
    }
    if (size > 0) await dropCutLine(name)
    return new JsonLinesFile(await open(name, 'a'), name)
  }

  async append(value: unknown): Promise<void> {
    const line = Buffer.from(JSON.stringify(value) + '\n')
    const { bytesWritten } = await this.#file.write(line)
    if (bytesWritten !== line.length) throw new Error(`${this.#name}: wrote ${bytesWritten} of ${line.length} bytes`)
  }

  async close(): Promise<void> {
    await this.#file.sync().catch((e: NodeJS.ErrnoException) => {
      if (e.code !== 'EINVAL' && e.code !== 'ENOTSUP') throw e     // a pipe or a device cannot be synced
    })
    await this.#file.close()
  }
}

async function sizeOf(name: string): Promise<number> {
  try {
    return (await stat(name)).size
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return 0
    throw e
  }
}

async function dropCutLine(name: string): Promise<void> {
  const content = await readFile(name)
  const end = content.lastIndexOf(newline) + 1
  if (end < content.length) await truncate(name, end)
}

/** The `index` of every line of an earlier output. */
export async function writtenIndices(name: string): Promise<Set<number>> {
  const indices = new Set<number>()
  if (await sizeOf(name) === 0) return indices
  for await (const line of readLines(createReadStream(name), name)) {
    const value = parseJsonLine(line, name)
    const index = isRecord(value) ? value['index'] : undefined
    if (!Number.isSafeInteger(index)) {
      throw new UsageError(
        `${name}:${line.number} has no whole number "index"`, 'is this an output of polylm generate?')
    }
    indices.add(index as number)
  }
  return indices
}
