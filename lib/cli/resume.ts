// resume.ts: what an earlier run left in its output, and whether it belongs to the run that continues it. Each answer
// carries the hash of its input line, of the options, and of the model: one that does not match is refused, so that an
// output never mixes answers to different questions.
// Trap: the last line may be cut, and a line that failed and was tried again is there twice; the later one counts.
import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { PolyLMError } from '../errors.js'
import type { GenerateOptions, LoadOptions, Model } from '../index.js'
import { fileName, inputBytes, readFailure, sizeOf } from './files.js'
import { isRecord, parseJsonLine, readLines } from './lines.js'

/** Options that decide when an answer comes, or how fast, but not which. */
const indifferent: ReadonlySet<string> = new Set(['queueTimeoutMs', 'speculate'])

function digest(text: string, length: number): string {
  return createHash('sha256').update(text).digest('hex').slice(0, length)
}

/** The same text for equal values, whatever the order of their members; JSON would make null of -Infinity. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) => {
    if (typeof inner === 'number' && !Number.isFinite(inner)) return String(inner)
    if (!isRecord(inner)) return inner
    return Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
  })
}

/** Hash of an input line. */
export const lineHash = (text: string): string => digest(text, 16)

/** Hash of what the command line says about every answer. */
export function optionsHash(decoding: GenerateOptions, load: LoadOptions, frame: Record<string, unknown>): string {
  const { compat, legacyTokenizer } = load
  const deciding = Object.entries(decoding).filter(([name]) => !indifferent.has(name))
  return digest(canonical({ decoding: Object.fromEntries(deciding), compat, legacyTokenizer, ...frame }), 12)
}

/** Hash of the model: its weights and how they are used. No device: a job may move to another machine. */
export function modelHash({ info }: Pick<Model, 'info'>): string {
  const { weightsFingerprint, dtype, contextSize, vocabSize, stopTokenIds } = info
  return digest(canonical({ weightsFingerprint, dtype, contextSize, vocabSize, stopTokenIds }), 12)
}

/** One line that an earlier run wrote. */
interface EarlierRow {
  readonly number: number
  readonly ok: boolean
  readonly hash: readonly [line: string, options: string, model: string]
  /** The answer, when texts are wanted. */
  readonly text: string
}

/** The answers of earlier runs, by their index. */
export class Earlier {
  /** Bytes of whole lines: what stands behind them was cut. */
  readonly wholeBytes: number
  readonly #file: string
  readonly #rows: ReadonlyMap<number, EarlierRow>

  private constructor(file: string, rows: ReadonlyMap<number, EarlierRow>, wholeBytes: number) {
    this.#file = file
    this.#rows = rows
    this.wholeBytes = wholeBytes
  }

  /** Reads an output; one that does not exist has no answers. */
  static async read(file: string | undefined, keepTexts: boolean): Promise<Earlier> {
    const rows = new Map<number, EarlierRow>()
    let wholeBytes = 0
    if (file === undefined || (await sizeOf(file) ?? 0) === 0) return new Earlier(file ?? '', rows, wholeBytes)
    for await (const line of readLines(inputBytes(file), file, 'whole')) {
      wholeBytes = line.end
      const hint = 'the line is damaged: remove it, then continue with --resume'
      const [index, row] = earlierRow(parseJsonLine(line, file, hint), file, line.number, keepTexts)
      const before = rows.get(index)
      if (before === undefined || !before.ok) rows.set(index, row)
      else if (row.ok && before.hash.join() !== row.hash.join()) {
        throw mismatch(file, `lines ${before.number} and ${row.number} of ${fileName(file)} both answer index ${index}`,
          'twice', 'remove one of them')
      }
    }
    return new Earlier(file, rows, wholeBytes)
  }

  get size(): number {
    return this.#rows.size
  }

  /** How many prompts were answered and how many failed. */
  counts(): { answered: number; failed: number } {
    const answered = [...this.#rows.values()].filter(row => row.ok).length
    return { answered, failed: this.#rows.size - answered }
  }

  get(index: number): EarlierRow | undefined {
    return this.#rows.get(index)
  }

  /** Throws unless the answer of an index, if there is one, is the answer to this line with these options. */
  checkLine(index: number, where: string, line: string, options: string, retry: boolean): void {
    const row = this.#rows.get(index)
    if (row === undefined || (retry && !row.ok)) return
    const place = `${fileName(this.#file)}, line ${row.number},`
    if (row.hash[1] !== options) {
      throw mismatch(this.#file, `${place} was made with other options than those of this run`, 'options',
        'repeat the options of the first run (decoding, templates, --format, --compat), or use another output file')
    }
    if (row.hash[0] !== line) {
      throw mismatch(this.#file, `${place} answers another text than ${where} has now`, 'input',
        'the input changed since the output was begun: use another output file, or remove this one to begin anew')
    }
  }

  /** Throws when there are answers to prompts that the input does not have. */
  checkEnd(has: (index: number) => boolean, input: string, prompts: number): void {
    for (const [index, { number }] of this.#rows) {
      if (has(index)) continue
      throw mismatch(this.#file, `${fileName(this.#file)}, line ${number}, has the index ${index}, ` +
        `for which ${fileName(input)} has no prompt any more (it has ${prompts})`, 'input',
        'the input became shorter: use another output file, or remove this one to begin anew')
    }
  }

  /** Throws unless the answers are those of this model. */
  checkModel(model: string, retry: boolean): void {
    for (const { ok, number, hash } of this.#rows.values()) {
      if (hash[2] === model || (retry && !ok)) continue
      throw mismatch(this.#file, `${fileName(this.#file)}, line ${number}, was made by another model`, 'model',
        'use the weights, --dtype and --context-size of the first run, or another output file')
    }
  }
}

function mismatch(file: string, text: string, reason: string, hint: string): PolyLMError {
  return new PolyLMError('OUTPUT_MISMATCH', text, { file, reason, hint })
}

function earlierRow(value: unknown, file: string, number: number, keepText: boolean): [number, EarlierRow] {
  const { index, ok, hash, text } = isRecord(value) ? value : {}
  const wrong = (what: string): PolyLMError => mismatch(file, `${fileName(file)}, line ${number}, has no ${what}`,
    'format', 'is this an output of polylm generate? Use another output file')
  if (typeof index !== 'number' || !Number.isSafeInteger(index) || index < 0) throw wrong('whole number "index"')
  if (typeof ok !== 'boolean') throw wrong('"ok"')
  const [, line = '', options = '', model = ''] = /^(\w{16})-(\w{12})-(\w{12})$/.exec(String(hash)) ?? []
  if (line === '') throw wrong('"hash"')
  return [index, { number, ok, hash: [line, options, model], text: keepText && typeof text === 'string' ? text : '' }]
}

/**
 * The lines of an output as they should stand when it is complete: one for each index, in the order of the input if
 * that is wanted. Undefined when they do already.
 */
export async function tidied(file: string, inOrder: boolean): Promise<AsyncGenerator<string> | undefined> {
  const places = new Map<number, { start: number; end: number; ok: boolean }>()
  let tidy = true
  let last = -1
  for await (const { number, text, start, end } of readLines(inputBytes(file), file, 'whole')) {
    const { index, ok } = parseJsonLine({ number, text }, file) as { index: number; ok: boolean }
    const before = places.get(index)
    if (before !== undefined || (inOrder && index < last)) tidy = false
    last = index
    if (before === undefined || !before.ok) places.set(index, { start, end, ok })
  }
  if (tidy) return undefined
  const rows = [...places]
  if (inOrder) rows.sort(([a], [b]) => a - b)
  return slices(file, rows.map(([, place]) => place))
}

async function * slices(
  file: string, places: ReadonlyArray<{ readonly start: number; readonly end: number }>,
): AsyncGenerator<string> {
  const source = await open(file, 'r').catch((e: unknown) => { throw readFailure(file, e) })
  try {
    for (const { start, end } of places) {
      const { buffer } = await source.read(Buffer.alloc(end - start), 0, end - start, start)
      yield buffer.toString('utf8')
    }
  } finally {
    await source.close()
  }
}
