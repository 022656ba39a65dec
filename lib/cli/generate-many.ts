// generate-many.ts: `polylm generate --input`: JSON lines in, JSON lines out, as many at a time as the model takes.
// Trap: answers come in the order of completion; `index` says which line (from 0, blank lines not counted).
import type { Command } from 'commander'
import type { GenerateManyItem, GenerateOptions, Model } from '../index.js'
import { errorJson, exitCodes, QuietFailure, UsageError } from './failure.js'
import type { Interrupt } from './interrupt.js'
import { countLines, inputStream, JsonLinesFile, parseJsonLine, readLines, writtenIndices } from './lines.js'
import { loadOptions, withModel } from './model-flags.js'
import { Progress } from './progress.js'
import { inputLine, templateOf } from './prompt.js'
import type { InputLine } from './prompt.js'
import { note, printJson } from './terminal.js'

/** What `--input` and its companions say. */
export interface ManyOptions {
  readonly input: string
  readonly output: string | undefined
  readonly resume: boolean
  readonly decoding: GenerateOptions
}

interface Sink {
  append: (value: unknown) => Promise<void>
  close: () => Promise<void>
}

const standardOutput: Sink = { append: printJson, close: () => Promise.resolve() }

/** Runs every line of the input that is not answered yet. */
export async function generateMany(command: Command, dir: string, options: ManyOptions): Promise<void> {
  const { input, output, resume } = options
  if (resume && output === undefined) throw new UsageError('--resume needs --output')
  const total = input === '-' ? undefined : await countLines(input)
  const sink = output === undefined ? standardOutput : await JsonLinesFile.open(output, resume)
  try {
    const done = output === undefined ? new Set<number>() : await writtenIndices(output)
    if (total !== undefined && done.size > 0) note(`${done.size} of ${total} answered before`)
    const todo = total === undefined ? undefined : total - done.size
    const failed = await withModel(dir, loadOptions(command), (model, interrupt) =>
      answerAll(model, interrupt, new Input(command, options, done, interrupt.signal), sink, todo))
    if (failed > 0) {
      note(`${failed} prompt(s) failed; see the lines with "ok":false`)
      throw new QuietFailure(exitCodes.failed)
    }
  } finally {
    await sink.close()
  }
}

/** The prompts that are still to be answered, with the line that each came from. */
class Input {
  /** The index and id of each prompt that was handed out, by its order there. */
  readonly taken: { index: number; id: unknown }[] = []
  readonly #command: Command
  readonly #options: ManyOptions
  readonly #done: ReadonlySet<number>
  readonly #signal: AbortSignal

  constructor(command: Command, options: ManyOptions, done: ReadonlySet<number>, signal: AbortSignal) {
    this.#command = command
    this.#options = options
    this.#done = done
    this.#signal = signal
  }

  /** The options for all lines. */
  get decoding(): GenerateOptions {
    return { ...this.#options.decoding, signal: this.#signal }
  }

  async * [Symbol.asyncIterator](): AsyncGenerator<InputLine> {
    const { input } = this.#options
    const template = templateOf(this.#command)
    let index = -1
    for await (const line of readLines(inputStream(input, this.#signal), input)) {
      if (line.text.trim() === '') continue
      index++
      if (this.#done.has(index)) continue
      const parsed = inputLine(parseJsonLine(line, input), `${input}:${line.number}`, template)
      this.taken.push({ index, id: parsed.id })
      yield parsed
    }
  }
}

async function answerAll(
  model: Model, interrupt: Interrupt, input: Input, sink: Sink, total: number | undefined,
): Promise<number> {
  const bar = new Progress('generating', total ?? 1)
  const started = performance.now()
  let finished = 0
  let failed = 0
  let tokens = 0
  try {
    for await (const item of model.generateEach(prompts(input), input.decoding)) {
      const { index, id } = input.taken[item.index] ?? { index: item.index, id: undefined }
      await sink.append(outputLine(index, id, item))
      finished++
      if (item.ok) tokens += item.result.usage.completionTokens
      else failed++
      if (total === undefined) bar.setTotal(finished + 1)
      bar.update(finished, `${finished} of ${total ?? '?'}, ${tokensPerSecond(tokens, started)} tokens/s`)
    }
  } catch (e) {
    if (!interrupt.pressed) throw e
    throw new QuietFailure(exitCodes.interrupted)
  } finally {
    bar.stop()
  }
  note(`${finished} answered, ${tokens} tokens, ${tokensPerSecond(tokens, started)} tokens/s`)
  return failed
}

async function * prompts(input: Input): AsyncGenerator<{ prompt: InputLine['prompt']; options: GenerateOptions }> {
  for await (const { prompt, options } of input) yield { prompt, options }
}

function tokensPerSecond(tokens: number, started: number): string {
  return (tokens / Math.max(1e-3, (performance.now() - started) / 1000)).toFixed(1)
}

/** One line of the output. */
function outputLine(index: number, id: unknown, item: GenerateManyItem): Record<string, unknown> {
  const head = { index, ...(id === undefined ? {} : { id }), ok: item.ok }
  return item.ok ? { ...head, ...item.result.toJSON() } : { ...head, error: errorJson(item.error) }
}
