// scoring.ts: log-likelihoods, perplexity and logits. The rules of encoding and windows are those of
// lm-evaluation-harness, so that accuracies and perplexities can be compared with published ones.
// Trap: the vocabulary-wide log-softmax stays in the core; only chosen numbers come here.
import { linkedController } from './abort.js'
import { startCall } from './call.js'
import { encodeText, type Core } from './core.js'
import { unpackTokens, type TokenLogprob } from './events.js'
import { readRules } from './generate-options.js'
import { submitWhenRoom } from './generate-each.js'
import { fromCore, type NativeRequest, type NativeResult } from './native.js'
import {
  invalidOption, readBag, readBoolean, readChoice, readFunction, readNumber, readProperty, readSalt, readSignal, show,
  type OptionBag,
} from './option-reader.js'
import { PolyLMError } from './errors.js'
import { resultClass } from './plain.js'
import { invalidPrompt, promptIds, promptParts } from './prompt.js'

/** What `logits` gives: row-major. */
export interface LogitsResult {
  readonly data: Float32Array
  readonly rows: number
  /** The vocabulary. */
  readonly columns: number
}

/** What `loglikelihood` gives for one item. */
export interface LoglikelihoodResult {
  /** Sum over the continuation's tokens. */
  readonly logprob: number
  /** Every token of the continuation is the most probable one at its place. */
  readonly isGreedy: boolean
  /** The continuation's tokens. */
  readonly tokens: Int32Array
  readonly tokenLogprobs: Float32Array
  /** UTF-8 bytes of the continuation; 0 for token ids without a tokenizer. */
  readonly continuationBytes: number
}

/** What `score` gives. */
export interface ScoreResult {
  /** Sum of the log-probabilities of the scored tokens. */
  readonly logprob: number
  /** How many were scored. */
  readonly count: number
  /** UTF-8 bytes of the whole prompt; 0 for token ids without a tokenizer. */
  readonly bytes: number
  /** exp(-logprob / count). */
  readonly perplexity: number
  /** -logprob / ln 2 / bytes; NaN when `bytes` is 0. */
  readonly bitsPerByte: number
  /** Each scored token when `logprobs` was given; ranges are those of the prompt's text, 0 for token ids. */
  readonly logprobs: readonly TokenLogprob[] | null
}

const Logits = resultClass<LogitsResult>('LogitsResult')
const Likelihood = resultClass<LoglikelihoodResult>('LoglikelihoodResult')

const promptNames = ['addSpecialTokens', 'parseSpecial', 'controlText'] as const
const logitsNames: ReadonlySet<string> = new Set([...promptNames, 'positions', 'cacheSalt', 'signal'])
const scoreNames: ReadonlySet<string> = new Set([
  ...promptNames, 'prefixToken', 'window', 'stride', 'logprobs', 'cacheSalt', 'signal',
])
const pairNames: ReadonlySet<string> = new Set(['prefixToken', 'onOverflow', 'cacheSalt', 'signal', 'onProgress'])
const maxPositions = 64
const inFlight = 256

/** model.logits. */
export async function logits(core: Core, prompt: unknown, options: unknown): Promise<LogitsResult> {
  const bag = readBag(options, logitsNames, 'logits')
  const positions = readPositions(bag)
  const signal = readSignal(bag)
  const native = await run(core, {
    kind: 2,
    prompt: promptParts(prompt, core.prompts, readRules(bag)),
    addSpecialTokens: readBoolean(bag, 'addSpecialTokens') ?? true,
    logitsPositions: positions,
    cacheSalt: readSalt(bag) ?? '',
  }, signal)
  return new Logits({ data: native.logits, rows: native.logitsRows, columns: core.prompts.vocabSize })
}

function readPositions(bag: OptionBag): Float64Array {
  const value = bag['positions']
  if (value === undefined || value === 'last') return Float64Array.of(-1)
  const complain = (reason: string): PolyLMError => invalidOption('positions', value, reason)
  if (!Array.isArray(value)) throw complain("expected 'last' or an array of indices of prompt tokens")
  if (value.length < 1 || value.length > maxPositions) {
    throw complain(`has ${value.length} indices, expected 1 to ${maxPositions}`)
  }
  return Float64Array.from(value as unknown[], (position, i) => {
    if (typeof position === 'number' && Number.isSafeInteger(position) && position >= 0) return position
    throw complain(`index ${i} is ${show(position)}, expected an integer from 0`)
  })
}

function run(core: Core, request: NativeRequest, signal: AbortSignal | undefined): Promise<NativeResult> {
  return startCall(core.engine, request, { signal, returnOnAbort: false }).result
}

function readPrefix(core: Core, bag: OptionBag): number | undefined {
  return readNumber(bag, 'prefixToken', { min: 0, max: core.prompts.vocabSize - 1, integer: true })
}

/** model.score. */
export async function score(core: Core, prompt: unknown, options: unknown): Promise<ScoreResult> {
  const bag = readBag(options, scoreNames, 'score')
  const prefix = bag['prefixToken'] === null ? undefined : readPrefix(core, bag)
  const window = readNumber(bag, 'window', { min: 1, max: core.contextSize, integer: true }) ?? core.contextSize
  const stride = readNumber(bag, 'stride', { min: 1, max: window, integer: true }) ?? window
  const top = readNumber(bag, 'logprobs', { min: 0, max: 20, integer: true })
  const cacheSalt = readSalt(bag) ?? ''
  const signal = readSignal(bag)
  signal?.throwIfAborted()
  const { ids, ranges } = await idsToScore(core, prompt, bag, top !== undefined)
  const all = prefix === undefined ? ids : Int32Array.from([prefix, ...ids])
  if (all.length < 2) {
    throw invalidPrompt('empty', `the prompt has ${ids.length} token(s); without prefixToken the first is not scored`)
  }
  const windows = scoreWindows(all.length, window, stride)
  const shift = prefix === undefined ? 0 : 1
  const parts = await mapLimited(windows, signal, async ({ from, scoreFrom, to }, stop) => {
    const { scored } = await submitWhenRoom(() => run(core, {
      kind: 1, prompt: [{ ids: all.slice(from, to), control: false }], scoreFrom: scoreFrom - from, scoreTop: top ?? 0,
      cacheSalt,
    }, stop), stop)
    // Each window where it ends: all of them at once would hold the event loop.
    return unpackTokens(scored, top === undefined ? undefined : core.texts)
      .map((token, i) => withRange(token, ranges, scoreFrom + i - shift))
  })
  const tokens = parts.flat()
  const logprob = tokens.reduce((sum, token) => sum + token.logprob, 0)
  const bytes = bytesOf(core, prompt, ids)
  return {
    logprob,
    count: tokens.length,
    bytes,
    perplexity: Math.exp(-logprob / tokens.length),
    bitsPerByte: bytes === 0 ? NaN : -logprob / Math.LN2 / bytes,
    logprobs: top === undefined ? null : tokens,
  }
}

async function idsToScore(
  core: Core, prompt: unknown, bag: OptionBag, wantsRanges: boolean,
): Promise<{ ids: Int32Array; ranges: Uint32Array | undefined }> {
  const addSpecialTokens = readBoolean(bag, 'addSpecialTokens') ?? true
  const rules = readRules(bag)
  // Windows make any length fit, so the limit on a prompt's text does not apply.
  const parts = promptParts(prompt, { ...core.prompts, contextSize: Infinity }, rules)
  if (wantsRanges && typeof prompt === 'string') {
    const { ids, offsets } = core.engine.native.encodeText(prompt, addSpecialTokens, rules.parseSpecial, true, true)
    return { ids, ranges: offsets }
  }
  const ids = await fromCore(() => core.engine.native.tokenize({ kind: 1, prompt: parts, addSpecialTokens }))
  return { ids, ranges: undefined }
}

/** A window: tokens [from, to) are given to the model, those from `scoreFrom` on are scored. */
export interface ScoreWindow {
  readonly from: number
  readonly scoreFrom: number
  readonly to: number
}

/**
 * Windows that score tokens 1..length-1 once each: the first scores up to `window`, each further one the
 * next `stride`, seeing at most `window` tokens before the last one. With stride = window these are the
 * rolling windows of lm-evaluation-harness.
 */
export function scoreWindows(length: number, window: number, stride: number): ScoreWindow[] {
  const windows: ScoreWindow[] = []
  let done = 1
  while (done < length) {
    const to = Math.min(length, done === 1 ? window + 1 : done + stride)
    windows.push({ from: Math.max(0, to - window - 1), scoreFrom: done, to })
    done = to
  }
  return windows
}

function withRange(token: TokenLogprob, ranges: Uint32Array | undefined, index: number): TokenLogprob {
  return { ...token, start: ranges?.[2 * index] ?? 0, end: ranges?.[2 * index + 1] ?? 0 }
}

function bytesOf(core: Core, prompt: unknown, ids: Int32Array): number {
  if (typeof prompt === 'string') return Buffer.byteLength(prompt)
  return core.prompts.hasTokenizer ? Buffer.byteLength(core.engine.native.decodeIds(ids)) : 0
}

/** model.loglikelihood. */
export async function loglikelihood(
  core: Core, items: unknown, options: unknown,
): Promise<LoglikelihoodResult[]> {
  const bag = readBag(options, pairNames, 'loglikelihood')
  const given = readPrefix(core, bag)
  const truncateLeft = readChoice(bag, 'onOverflow', ['error', 'truncateLeft']) === 'truncateLeft'
  const cacheSalt = readSalt(bag) ?? ''
  const signal = readSignal(bag)
  const onProgress = readFunction<(p: { done: number; total: number }) => void>(bag, 'onProgress')
  signal?.throwIfAborted()
  const list = itemsOf(items)
  let done = 0
  return await mapLimited(list, signal, async (item, stop, index) => {
    const pair = await encodePair(core, item, index, given)
    const native = await submitWhenRoom(() => run(core, {
      kind: 1, prompt: [{ ids: pair.ids, control: false }], scoreFrom: pair.scoreFrom, truncateLeft, cacheSalt,
    }, stop), stop)
    onProgress?.({ done: ++done, total: list.length })
    return toPairResult(native, pair)
  })
}

function itemsOf(items: unknown): unknown[] {
  const iterable = items as Iterable<unknown> | null | undefined
  if (typeof items !== 'string' && typeof iterable?.[Symbol.iterator] === 'function') return [...iterable]
  throw invalidPrompt('items', `items is ${show(items)}, expected an iterable of { context, continuation }`)
}

interface Pair {
  readonly ids: Int32Array
  readonly scoreFrom: number
  readonly bytes: number
}

async function encodePair(core: Core, item: unknown, index: number, prefix: number | undefined): Promise<Pair> {
  if (typeof item !== 'object' || item === null) {
    throw invalidPrompt('items', `item ${index} is ${show(item)}, expected { context, continuation }`, { index })
  }
  const context = readProperty(item, 'context')
  const continuation = readProperty(item, 'continuation')
  const empty = isEmpty(context)
  const [before, after] = typeof context === 'string' && typeof continuation === 'string' && !empty
    ? jointIds(core, context, continuation)
    : [empty ? new Int32Array(0) : await idsOf(core, context, true), await idsOf(core, continuation, empty)]
  const start = before.length > 0 ? before : Int32Array.of(prefixOf(core, prefix, index))
  if (after.length === 0) throw invalidPrompt('empty', `the continuation of item ${index} has no tokens`, { index })
  const bytes = bytesOf(core, continuation, after)
  return { ids: Int32Array.from([...start, ...after]), scoreFrom: start.length, bytes }
}

function isEmpty(context: unknown): boolean {
  if (context === '') return true
  const tokens = typeof context === 'object' && context !== null ? readProperty(context, 'tokens') : undefined
  return typeof tokens === 'object' && tokens !== null && (tokens as ArrayLike<number>).length === 0
}

function prefixOf(core: Core, given: number | undefined, index: number): number {
  const prefix = given ?? core.prefixToken
  if (prefix !== undefined) return prefix
  throw invalidPrompt(
    'empty', `item ${index} has an empty context and the model names no token to begin with`,
    { index, hint: 'pass prefixToken' })
}

// The context's trailing white space moves to the continuation; both are encoded as one text and the
// continuation is what comes after as many tokens as the context alone has.
function jointIds(core: Core, context: string, continuation: string): [Int32Array, Int32Array] {
  if (continuation === '') return [Int32Array.of(0), new Int32Array(0)]
  const rules = { addSpecialTokens: false, parseSpecial: true, atStart: true }
  const kept = context.trimEnd()
  const whole = encodeText(core, context + continuation, rules)
  const alone = kept === '' ? new Int32Array(0) : encodeText(core, kept, rules)
  const length = Math.max(0, Math.min(alone.length, whole.length - 1))
  return [whole.slice(0, length), whole.slice(length)]
}

async function idsOf(core: Core, prompt: unknown, atStart: boolean): Promise<Int32Array> {
  if (typeof prompt === 'string') {
    promptParts(prompt, core.prompts, { parseSpecial: true, controlText: 'reject' })
    return encodeText(core, prompt, { addSpecialTokens: false, parseSpecial: true, atStart })
  }
  const tokens = typeof prompt === 'object' && prompt !== null ? readProperty(prompt, 'tokens') : undefined
  if (tokens !== undefined) return promptIds(tokens, core.prompts.vocabSize)
  const parts = promptParts(prompt, core.prompts, { parseSpecial: true, controlText: 'reject' })
  return await fromCore(() => core.engine.native.tokenize({ kind: 1, prompt: parts, addSpecialTokens: false }))
}

function toPairResult(native: NativeResult, pair: Pair): LoglikelihoodResult {
  const scored = unpackTokens(native.scored, undefined)
  const tokenLogprobs = Float32Array.from(scored, token => token.logprob)
  return new Likelihood({
    logprob: scored.reduce((sum, token) => sum + token.logprob, 0),
    isGreedy: native.greedy.every(flag => flag === 1),
    tokens: Int32Array.from(scored, token => token.id),
    tokenLogprobs,
    continuationBytes: pair.bytes,
  })
}

// Runs `work` over items, a few hundred at a time, results in order. The first failure ends the others.
async function mapLimited<T, R>(
  items: readonly T[], signal: AbortSignal | undefined,
  work: (item: T, stop: AbortSignal, index: number) => Promise<R>,
): Promise<R[]> {
  const results = new Array<R>(items.length)
  const stop = linkedController(signal)
  let next = 0
  let sliceEnd = performance.now() + 8
  const lane = async (): Promise<void> => {
    while (next < items.length) {
      const index = next++
      if (performance.now() > sliceEnd) {        // encoding is done on this thread: let others run
        await new Promise(resolve => setImmediate(resolve))
        sliceEnd = performance.now() + 8
      }
      stop.signal.throwIfAborted()
      results[index] = await work(items[index] as T, stop.signal, index)
    }
  }
  try {
    await Promise.all(Array.from({ length: Math.min(inFlight, items.length) }, async () => {
      await lane().catch((e: unknown) => {
        stop.abort(e)
        throw e
      })
    }))
  } finally {
    stop.release()
  }
  return results
}
