// generate-many.ts: `polylm generate --input`: lines in, lines out, as many at a time as the model takes.
// Trap: answers come in the order of completion; `index` says which prompt (from 0: of a text file the line, of JSON
// lines those that are not blank). What an output of an earlier run is worth: resume.ts.
import type { Command } from 'commander'
import type { GenerateManyItem, GenerateOptions, Model } from '../index.js'
import { planBatch } from './batch-plan.js'
import type { BatchFlags, BatchPlan } from './batch-plan.js'
import { errorJson, exitCodes, QuietFailure, UsageError } from './failure.js'
import { checkWritable, fileName, sizeOf } from './files.js'
import type { Interrupt } from './interrupt.js'
import { isBlank, lineName, Lines, parseJsonLine } from './lines.js'
import type { Line } from './lines.js'
import { loadOptions, withModel } from './model-flags.js'
import { InOrder, OutputFile } from './output.js'
import { Progress, timeLeft } from './progress.js'
import { asOneLine } from './prompt-template.js'
import { inputLine, promptFrame, textLine } from './prompt.js'
import type { InputLine, PromptFrame } from './prompt.js'
import { Earlier, lineHash, modelHash, optionsHash, tidied } from './resume.js'
import { jsonLine, note, print, printable } from './terminal.js'

/** Runs every line of the input that is not answered yet. */
export async function generateMany(
  command: Command, dir: string, flags: BatchFlags & { readonly input: string }, decoding: GenerateOptions,
): Promise<void> {
  const load = loadOptions(command)
  const frame = promptFrame(command)
  const plan = await planBatch(flags, decoding, frame.around !== undefined)
  const { input, format } = plan
  const { template, system } = frame
  const promptTemplate = command.getOptionValue('promptTemplate') as string | undefined
  const options = optionsHash(decoding, load, { format, template, system, promptTemplate })
  const questions = new Questions(plan, await Lines.open(input, plan.resume), frame)
  const total = await questions.count()
  const outputs = await Outputs.open(plan)
  try {
    const earlier = await Earlier.read(plan.resume ? plan.journal : undefined, plan.text !== undefined)
    await checkEarlier(earlier, questions, plan, options)
    await outputs.cutTo(earlier.wholeBytes)
    const batch = new Batch({ plan, questions, earlier, outputs, decoding, options, total })
    await withModel(dir, load, (model, interrupt) => batch.run(model, interrupt))
    await outputs.tidy()
    batch.finish()
  } finally {
    await outputs.close()
  }
}

/** A line of the input that holds a prompt, or a blank line of a text file. */
interface Question {
  readonly index: number
  readonly line: Line
  readonly blank: boolean
}

/** The input as prompts with their indices. */
class Questions {
  readonly #plan: BatchPlan
  readonly #lines: Lines
  readonly #frame: PromptFrame
  #looked = false

  constructor(plan: BatchPlan, lines: Lines, frame: PromptFrame) {
    this.#plan = plan
    this.#lines = lines
    this.#frame = frame
  }

  /** How many prompts there are, each of them checked; undefined when the input can be read only once. */
  async count(): Promise<number | undefined> {
    if (!this.#lines.again) return undefined
    let found = 0
    for await (const question of this.read()) {
      if (question.blank) continue
      this.prompt(question)
      found++
    }
    return found
  }

  async * read(signal?: AbortSignal): AsyncGenerator<Question> {
    let index = -1
    for await (const line of this.#lines.read(signal)) {
      const blank = isBlank(line)
      if (this.#plan.format === 'text') yield { index: line.number - 1, line, blank }
      else if (!blank) yield { index: ++index, line, blank }
    }
  }

  where({ number }: Line): string {
    return `${lineName(this.#plan.input)}:${number}`
  }

  prompt({ line }: Question): InputLine {
    const { format, input, guessed } = this.#plan
    if (format === 'jsonl') {
      const hint = guessed ? '--format text reads each line as a prompt' : 'each line must be one JSON value'
      return inputLine(parseJsonLine(line, lineName(input), hint), this.where(line), this.#frame)
    }
    const first = !this.#looked
    this.#looked = true
    if (guessed && first && looksLikeJson(line.text)) {
      throw new UsageError(`${this.where(line)} looks like JSON, and would be read as plain text`,
        'give --format jsonl, or --format text if that is meant')
    }
    return textLine(line.text, this.#frame)
  }
}

function looksLikeJson(text: string): boolean {
  if (!/^\s*["{]/.test(text)) return false
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

/** Refuses to mix answers: every one that is there must belong to the line that has its index now. */
async function checkEarlier(earlier: Earlier, questions: Questions, plan: BatchPlan, options: string): Promise<void> {
  if (earlier.size === 0) return
  const present = new Set<number>()
  for await (const { index, line, blank } of questions.read()) {
    if (blank) continue
    present.add(index)
    earlier.checkLine(index, questions.where(line), lineHash(line.text), options, plan.retryFailed)
  }
  earlier.checkEnd(index => present.has(index), plan.input, present.size)
}

/** The files of a batch, and standard output. */
class Outputs {
  readonly #plan: BatchPlan
  readonly #journal: OutputFile | undefined
  #text: OutputFile | undefined
  readonly #ordered: InOrder | undefined

  private constructor(plan: BatchPlan, journal: OutputFile | undefined) {
    this.#plan = plan
    this.#journal = journal
    const toText = plan.print === 'text' || plan.text !== undefined
    if (toText || (plan.print === 'jsonl' && plan.inOrder)) this.#ordered = new InOrder(lines => this.#write(lines))
  }

  /** Opens and locks the file of JSON lines, before anything is read from it. */
  static async open(plan: BatchPlan): Promise<Outputs> {
    const { journal, text, resume } = plan
    if (text !== undefined) await checkText(text, journal, resume)
    const file = journal === undefined ? undefined : await OutputFile.open(journal, resume ? 'continue' : 'new')
    return new Outputs(plan, file)
  }

  /** Removes the line that a killed run left unfinished. */
  async cutTo(wholeBytes: number): Promise<void> {
    if (this.#plan.resume) await this.#journal?.cutTo(wholeBytes)
  }

  /** Begins the file of text: it is written anew, from earlier answers and from those that come. */
  async begin(): Promise<void> {
    if (this.#plan.text !== undefined) this.#text = await OutputFile.open(this.#plan.text, 'replace')
  }

  #write(lines: string): Promise<void> {
    return this.#text === undefined ? print(printable(lines)) : this.#text.append(lines)
  }

  /** An answer of this run. */
  async answer(index: number, row: Record<string, unknown>, text: string): Promise<void> {
    await this.#journal?.append(JSON.stringify(row) + '\n')
    const line = this.#plan.print === 'jsonl' ? jsonLine(row) : asOneLine(text) + '\n'
    if (this.#ordered !== undefined) await this.#ordered.put(index, line)
    else if (this.#plan.print === 'jsonl') await print(line)
  }

  /** The answer of an earlier run, or a blank line: nothing to compute, but it has its place. */
  async known(index: number, text: string): Promise<void> {
    await this.#ordered?.put(index, this.#plan.print === 'jsonl' ? '' : asOneLine(text) + '\n')
  }

  /** When all is answered: one line per prompt, in the order that was asked for. */
  async tidy(): Promise<void> {
    const { journal, kept, inOrder } = this.#plan
    if (this.#journal === undefined || journal === undefined || !kept) return
    const lines = await tidied(journal, inOrder)
    if (lines !== undefined) await this.#journal.rewrite(lines)
  }

  async close(): Promise<void> {
    try {
      await this.#text?.close()
    } finally {
      await this.#journal?.close()
    }
  }
}

/** A file of text may be overwritten only when it was made from answers that are still there. */
async function checkText(text: string, journal: string | undefined, resume: boolean): Promise<void> {
  const size = await sizeOf(text) ?? 0
  await checkWritable(text)
  if (size === 0 || (resume && journal !== undefined && (await sizeOf(journal) ?? 0) > 0)) return
  const hint = resume
    ? `--resume needs the answers in ${fileName(journal ?? '')}, which are missing; remove the text to start again`
    : 'add --resume to continue it, or remove it'
  throw new UsageError(`${fileName(text)} already exists and holds ${size} bytes`, hint)
}

interface Job {
  readonly plan: BatchPlan
  readonly questions: Questions
  readonly earlier: Earlier
  readonly outputs: Outputs
  readonly decoding: GenerateOptions
  /** Hash of the options. */
  readonly options: string
  /** Prompts of the input, when they could be counted. */
  readonly total: number | undefined
}

/** One run over an input. */
class Batch {
  readonly #job: Job
  /** What was handed to the model, by its order there. */
  readonly #taken: { readonly index: number; readonly id: unknown; readonly hash: string }[] = []
  readonly #todo: number | undefined
  /** Prompts that failed in an earlier run and are not tried again. */
  readonly #failedBefore: number
  readonly #started = performance.now()
  #answered = 0
  #failed = 0
  #tokens = 0

  constructor(job: Job) {
    this.#job = job
    const { answered, failed } = job.earlier.counts()
    this.#failedBefore = job.plan.retryFailed ? 0 : failed
    this.#todo = job.total === undefined ? undefined : job.total - answered - this.#failedBefore
    if (answered + failed === 0) return
    const again = job.plan.retryFailed ? 'retrying them' : 'add --retry-failed to retry them'
    const before = failed === 0 ? '' : `, ${failed} failed before; ${again}`
    note(`${answered} of ${job.total ?? '?'} answered before${before}`)
  }

  /** Answers what is left, and says how it went, however it ends. */
  async run(model: Model, interrupt: Interrupt): Promise<void> {
    const { decoding, earlier, outputs, plan } = this.#job
    const hash = modelHash(model)
    earlier.checkModel(hash, plan.retryFailed)
    await outputs.begin()
    const bar = new Progress('generating', this.#todo ?? 1)
    try {
      const inputs = this.#inputs(hash, interrupt.signal)
      for await (const item of model.generateEach(inputs, { ...decoding, signal: interrupt.signal })) {
        await this.#take(item)
        this.#show(bar)
      }
    } catch (e) {
      bar.stop()
      if (interrupt.pressed || this.#answered + this.#failed > 0) {
        note(this.#summary(interrupt.pressed ? 'interrupted: ' : 'stopped: '))
        note(this.#howToGoOn())
      }
      throw interrupt.pressed ? interrupt.failure : e
    } finally {
      bar.stop()
    }
    note(this.#todo === 0 ? 'nothing was left to answer' : this.#summary(''))
  }

  /** Ends the command with 1 while a prompt has no answer. */
  finish(): void {
    const failed = this.#failed + this.#failedBefore
    if (failed === 0) return
    const { journal, kept } = this.#job.plan
    note(`${failed} prompt(s) failed; see the lines with "ok":false` +
      (kept ? ` in ${fileName(journal ?? '')}; add --resume --retry-failed to retry them` : ''))
    throw new QuietFailure(exitCodes.failed)
  }

  async * #inputs(model: string, signal: AbortSignal): AsyncGenerator<Pick<InputLine, 'prompt' | 'options'>> {
    const { questions, earlier, outputs, options, plan } = this.#job
    for await (const question of questions.read(signal)) {
      const { index, line, blank } = question
      const row = blank ? undefined : earlier.get(index)
      const known = row !== undefined && (row.ok || !plan.retryFailed)
      if (blank || known) {
        await outputs.known(index, row?.text ?? '')
        continue
      }
      const { prompt, options: own, id } = questions.prompt(question)
      this.#taken.push({ index, id, hash: `${lineHash(line.text)}-${options}-${model}` })
      yield { prompt, options: own }
    }
  }

  async #take(item: GenerateManyItem): Promise<void> {
    const taken = this.#taken[item.index]
    if (taken === undefined) return
    const { index, id, hash } = taken
    const head = { index, ...(id === undefined ? {} : { id }), ok: item.ok, hash }
    if (item.ok) {
      await this.#job.outputs.answer(index, { ...head, ...item.result.toJSON() }, item.result.text)
      this.#answered++
      this.#tokens += item.result.usage.completionTokens
    } else {
      await this.#job.outputs.answer(index, { ...head, error: errorJson(item.error) }, '')
      this.#failed++
    }
  }

  get #seconds(): number {
    return Math.max(1e-3, (performance.now() - this.#started) / 1000)
  }

  get #speed(): string {
    return `${(this.#tokens / this.#seconds).toFixed(1)} tokens/s`
  }

  #show(bar: Progress): void {
    const done = this.#answered + this.#failed
    if (this.#todo === undefined) bar.setTotal(done + 1)
    const left = this.#todo === undefined ? '' : timeLeft(done, this.#todo, this.#seconds)
    bar.update(done, `${done} of ${this.#todo ?? '?'}${left}, ${this.#speed}`)
  }

  #summary(before: string): string {
    const failed = this.#failed === 0 ? '' : `, ${this.#failed} failed`
    const done = this.#answered + this.#failed
    const left = this.#todo === undefined || this.#todo === done ? '' : `, ${this.#todo - done} left`
    return `${before}${this.#answered} answered${failed}${left}, ${this.#tokens} tokens, ${this.#speed}`
  }

  #howToGoOn(): string {
    const { kept, resume, input } = this.#job.plan
    if (!kept) return 'an output that goes to --output FILE can be continued with --resume'
    const what = resume ? 'run the same command again' : 'run the same command with --resume'
    return `to continue, ${what}${input === '-' ? ' and the same standard input' : ''}`
  }
}
