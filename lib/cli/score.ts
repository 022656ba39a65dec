// score.ts: `polylm score`: perplexity of texts and log-likelihood of continuations, as JSON lines.
// Trap: a plain text file is one document; --by-line makes each line one.
import { Command, InvalidArgumentError, Option } from 'commander'
import { isPolyLMError, PolyLMError } from '../index.js'
import type { Model, Prompt } from '../index.js'
import { CompensatedSum } from '../compensated-sum.js'
import { integer } from './decoding-flags.js'
import { errorJson, exitCodes, QuietFailure, UsageError } from './failure.js'
import { fileName, maxTextBytes, readText } from './files.js'
import type { Interrupt } from './interrupt.js'
import { isBlank, isRecord, lineName, linesOf, parseJsonLine } from './lines.js'
import type { Line } from './lines.js'
import { addModelFlags, loadOptions, splitModel, withModel } from './model-flags.js'
import { Progress, timeLeft } from './progress.js'
import { note, printJson } from './terminal.js'

const examples = `
Examples:
  polylm score ./polylm-1.7b book.txt
  polylm score ./polylm-1.7b sentences.txt --by-line
  polylm score ./polylm-1.7b items.jsonl > scores.jsonl
    a line of items.jsonl: "text", {"text":"..."}, {"tokens":[1,2]},
    or {"context":"Paris is in","continuation":" France"}; "id" comes back with the score`

/** Lines in flight: enough to fill the steps of any model, few enough to show progress. */
const groupSize = 64

interface ScoreOptions {
  readonly format: 'auto' | 'text' | 'jsonl'
  readonly byLine?: true
  readonly window?: number
  readonly stride?: number
  readonly prefixToken?: 'bos' | 'eos' | number | null
  readonly logprobs?: number
}

type Item = { readonly id: unknown } & (
  | { readonly kind: 'blank' }
  | { readonly kind: 'text'; readonly prompt: Prompt }
  | { readonly kind: 'pair'; readonly context: Prompt; readonly continuation: Prompt })

function prefixToken(text: string): 'bos' | 'eos' | number | null {
  if (text === 'none') return null
  if (text === 'bos' || text === 'eos') return text
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('It must be bos, eos, none or a token id.')
  return integer(text)
}

/** The `score` command. */
export function scoreCommand(): Command {
  const command = new Command('score')
    .description('compute perplexity of texts or log-likelihood of continuations')
    .usage('[options] <model | --demo> [file | -]')
    .argument('[model]', 'a directory in Hugging Face layout')
    .argument('[file]', 'a text, or JSON lines if it is named *.jsonl or *.ndjson; default or -: standard input')
    .addOption(new Option('--format <format>', 'what the file holds')
      .choices(['auto', 'text', 'jsonl']).default('auto'))
    .option('--by-line', 'score each line of a text by itself; row k is line k, blank lines included')
    .option('--window <n>', 'tokens per window for long texts (default: the context size)', integer)
    .option('--stride <n>',
      'tokens from one window\'s start to the next (default: the window)', integer)
    .option('--prefix-token <token>',
      'condition the first token on bos, eos or a token id (default: none, it is not scored)', prefixToken)
    .option('--logprobs <n>', 'list each token with its log-probability and n alternatives', integer)
  return addModelFlags(command).addHelpText('after', examples).action(() => score(command))
}

async function score(command: Command): Promise<void> {
  const { dir, rest } = splitModel(command, 1)
  const options = command.opts<ScoreOptions>()
  const file = rest[0] ?? '-'
  if (rest[0] === undefined && process.stdin.isTTY === true) {
    throw new UsageError('the file is missing', 'give a file, or pipe text into the command')
  }
  const items = await readItems(file, options)
  await withModel(dir, loadOptions(command), async (model, interrupt) => {
    const scorer = new Scorer(model, options, interrupt)
    try {
      await scorer.run(items)
    } catch (e) {
      throw interrupt.pressed ? interrupt.failure : e
    }
  })
}

async function readItems(file: string, options: ScoreOptions): Promise<Item[]> {
  const asJson = options.format === 'jsonl' || (options.format === 'auto' && /\.(jsonl|ndjson)$/i.test(file))
  if (asJson && options.byLine === true) {
    throw new UsageError('--by-line is for plain text, and the lines are JSON', 'leave it away, or add --format text')
  }
  const items = asJson || options.byLine === true ? await lineItems(file, asJson) : [await document(file)]
  if (items.every(item => item.kind === 'blank')) throw new UsageError(`${fileName(file)} is empty`)
  const { window, stride, logprobs } = options
  if ((window ?? stride ?? logprobs) !== undefined && !items.some(item => item.kind === 'text')) {
    throw new UsageError('--window, --stride and --logprobs are for texts, and all lines are continuations',
      'leave them away; the scores of a continuation list its tokens')
  }
  return items
}

async function document(file: string): Promise<Item> {
  const text = await readText(file)
  return text === '' ? { kind: 'blank', id: undefined } : { kind: 'text', prompt: text, id: undefined }
}

async function lineItems(file: string, asJson: boolean): Promise<Item[]> {
  const items: Item[] = []
  for await (const line of linesOf(file)) {
    if (line.end > maxTextBytes) {
      throw new PolyLMError('LIMIT', `${fileName(file)} has more than ${maxTextBytes} bytes, the maximum for score`,
        { file, hint: 'split it into several files' })
    }
    if (!isBlank(line)) items.push(asJson ? itemOf(line, file) : { kind: 'text', prompt: line.text, id: undefined })
    else if (!asJson) items.push({ kind: 'blank', id: undefined })
  }
  return items
}

function itemOf(line: Line, file: string): Item {
  const value = parseJsonLine(line, lineName(file))
  if (typeof value === 'string') return { kind: 'text', prompt: value, id: undefined }
  const keys = isRecord(value) ? Object.keys(value).filter(key => key !== 'id').sort().join() : ''
  const { id, text, tokens, context, continuation } = isRecord(value) ? value : {}
  if (keys === 'text' && typeof text === 'string') return { kind: 'text', prompt: text, id }
  if (keys === 'tokens' && Array.isArray(tokens)) return { kind: 'text', prompt: { tokens: tokens as number[] }, id }
  if (keys === 'context,continuation' && typeof context === 'string' && typeof continuation === 'string') {
    return { kind: 'pair', context, continuation, id }
  }
  throw new UsageError(
    `${lineName(file)}:${line.number} is neither text, {"text"}, {"tokens"} nor {"context", "continuation"}`)
}

class Scorer {
  readonly #model: Model
  readonly #options: ScoreOptions
  readonly #interrupt: Interrupt
  readonly #logprob = new CompensatedSum()
  #count = 0
  #bytes = 0
  #failed = 0

  constructor(model: Model, options: ScoreOptions, interrupt: Interrupt) {
    this.#model = model
    this.#options = options
    this.#interrupt = interrupt
  }

  async run(items: readonly Item[]): Promise<void> {
    const bar = new Progress('scoring', items.length)
    const started = performance.now()
    let done = 0
    try {
      for (; done < items.length; done = Math.min(items.length, done + groupSize)) {
        await this.#group(items.slice(done, done + groupSize), done)
        const now = Math.min(items.length, done + groupSize)
        bar.update(now, `${now} of ${items.length}${timeLeft(now, items.length, (performance.now() - started) / 1000)}`)
      }
    } catch (e) {
      bar.stop()
      if (done > 0 || this.#interrupt.pressed) note(`stopped after ${done} of ${items.length}`)
      if (done > 0) this.#summary(done)
      throw e
    } finally {
      bar.stop()
    }
    this.#summary(items.length)
    if (this.#failed > 0) throw new QuietFailure(exitCodes.failed)
  }

  async #group(group: readonly Item[], first: number): Promise<void> {
    const rows = await Promise.all(group.map(item => this.#row(item)))
    for (const [i, row] of rows.entries()) {
      const id = group[i]?.id
      await printJson({ index: first + i, ...(id === undefined ? {} : { id }), ...row })
    }
  }

  /** Nothing to score: the sums of an empty text. */
  #blank(): Record<string, unknown> {
    const { logprobs } = this.#options
    return {
      logprob: 0, count: 0, bytes: 0, perplexity: null, bitsPerByte: null,
      ...(logprobs === undefined ? {} : { logprobs: [] }),
    }
  }

  /** The row of one item; what only this item fails with is its row. */
  async #row(item: Item): Promise<Record<string, unknown>> {
    if (item.kind === 'blank') return this.#blank()
    try {
      return item.kind === 'pair' ? await this.#pair(item) : await this.#text(item.prompt)
    } catch (e) {
      if (!isPolyLMError(e) || e.fatal || e.code === 'INVALID_OPTION') throw e
      this.#failed++
      return { error: errorJson(e) }
    }
  }

  async #pair(item: Item & { kind: 'pair' }): Promise<Record<string, unknown>> {
    const prefixToken = this.#prefixToken()
    const [score] = await this.#model.loglikelihood([item], {
      signal: this.#interrupt.signal, ...(typeof prefixToken === 'number' ? { prefixToken } : {}),
    })
    return score === undefined ? {} : { ...score, tokens: [...score.tokens], tokenLogprobs: [...score.tokenLogprobs] }
  }

  async #text(prompt: Prompt): Promise<Record<string, unknown>> {
    const { window, stride, logprobs } = this.#options
    const score = await this.#model.score(prompt, {
      signal: this.#interrupt.signal, prefixToken: this.#prefixToken(), window, stride, logprobs,
    })
    this.#logprob.add(score.logprob)
    this.#count += score.count
    this.#bytes += score.bytes
    const { logprobs: tokens, ...sums } = score
    return tokens === null ? sums : { ...sums, logprobs: tokens }
  }

  #prefixToken(): number | null | undefined {
    const wanted = this.#options.prefixToken
    if (wanted !== 'bos' && wanted !== 'eos') return wanted
    const special = this.#model.tokenizer.specialTokens
    const token = wanted === 'bos' ? special.bos : special.eos
    if (token === null || token === undefined) throw new UsageError(`the tokenizer has no ${wanted} token`)
    return token.id
  }

  #summary(documents: number): void {
    if (this.#failed > 0) note(`${this.#failed} of ${documents} failed; see the lines with "error"`)
    if (this.#count === 0) return
    const nats = -this.#logprob.value
    note(`${documents} document(s), ${this.#count} tokens, perplexity ${Math.exp(nats / this.#count).toFixed(4)}, ` +
      `${(nats / Math.LN2 / Math.max(1, this.#bytes)).toFixed(4)} bits per byte`)
  }
}
