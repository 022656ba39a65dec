// scoring.ts: log-likelihoods, perplexity and logits. The rules of encoding and windows are those of
// lm-evaluation-harness, so that accuracies and perplexities can be compared with published ones.
// Trap: the vocabulary-wide log-softmax stays in the core; only chosen numbers come here.
import { linkedController } from './abort.js'
import { startCall } from './call.js'
import { Slicer } from './checkpoint/slicer.js'
import { Callbacks } from './callbacks.js'
import { CompensatedSum, compensatedSum } from './compensated-sum.js'
import { decodeIds, encodeTexts, type Core } from './core.js'
import { unpackTokens, type TokenLogprob } from './events.js'
import { readRules } from './generate-options.js'
import { submitWhenRoom } from './generate-each.js'
import { fromCore, type NativeRequest, type NativeResult } from './native.js'
import {
  countIds, invalidOption, maxManyIds, readBag, readBoolean, readChoice, readFunction, readManyIds, readNumber,
  readPriority, readProperty, readSalt, readSignal, show, type OptionBag,
} from './option-reader.js'
import { PolyLMError } from './errors.js'
import { resultClass } from './plain.js'
import {
  checkTextLength, invalidIds, invalidPrompt, promptParts, tokenizerMissing, type PromptRules,
} from './prompt.js'
import { pythonRstrip } from './python-text.js'
import { concatIds } from './session-state.js'
import { maxTextUnits } from './tokenizer/tokenizer.js'
import { isArray, reading } from './untrusted.js'

/** What `logits` gives: row-major. */
export interface LogitsResult {
  readonly data: Float32Array
  readonly rows: number
  /** The vocabulary. */
  readonly columns: number
}

/** What `loglikelihood` gives for one item. */
export interface LoglikelihoodResult {
  /**
   * Sum over `tokenLogprobs`, compensated (Neumaier) and in the order of tokens: the sum() of Python from 3.12
   * on, whose older versions may differ in the last digit.
   */
  readonly logprob: number
  /**
   * Every token of the continuation is the most probable one at its place; among equal logits that is the lowest
   * id. (lm-evaluation-harness over an API counts every token of the best value as greedy.)
   */
  readonly isGreedy: boolean
  /**
   * The continuation's tokens that were scored: after an empty context not the first one if it is `prefixToken`
   * itself, which then is the context; none where context and continuation together have no more tokens than the
   * context alone. Both are rules of lm-evaluation-harness; without a token `logprob` is 0 and `isGreedy` true.
   */
  readonly tokens: Int32Array
  readonly tokenLogprobs: Float32Array
  /** UTF-8 bytes of the continuation; 0 for token ids without a tokenizer. */
  readonly continuationBytes: number
}

/** What `score` gives. */
export interface ScoreResult {
  /** Sum of the log-probabilities of the scored tokens, as in {@link LoglikelihoodResult}. */
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
const callNames = ['priority', 'cacheSalt', 'signal'] as const
const logitsNames: ReadonlySet<string> = new Set([...promptNames, ...callNames, 'positions'])
const scoreNames: ReadonlySet<string> = new Set([
  ...promptNames, ...callNames, 'prefixToken', 'window', 'stride', 'logprobs',
])
const pairNames: ReadonlySet<string> = new Set([...callNames, 'prefixToken', 'onOverflow', 'onProgress'])
const maxPositions = 64
// Tokens of the windows of one call that are in the queue: enough for full steps, the rest follows.
const tokensInFlight = 4096

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
    batch: readPriority(bag) === 'batch',
    cacheSalt: readSalt(bag) ?? '',
  }, signal)
  return new Logits({ data: native.logits, rows: native.logitsRows, columns: core.prompts.vocabSize })
}

function readPositions(bag: OptionBag): Float64Array {
  const value = bag['positions']
  if (value === undefined || value === 'last') return Float64Array.of(-1)
  const complain = (reason: string): PolyLMError => invalidOption('positions', value, reason)
  if (!isArray(value)) throw complain("expected 'last' or an array of indices of prompt tokens")
  return reading('INVALID_OPTION', 'positions', () => {
    const { length } = value
    if (length < 1 || length > maxPositions) throw complain(`has ${length} indices, expected 1 to ${maxPositions}`)
    return Float64Array.from({ length }, (_, i) => {
      const position: unknown = value[i]
      if (typeof position === 'number' && Number.isSafeInteger(position) && position >= 0) return position
      throw complain(`index ${i} is ${show(position)}, expected an integer from 0`)
    })
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
  const batch = readPriority(bag) !== 'interactive'
  const signal = readSignal(bag)
  signal?.throwIfAborted()
  const { ids, ranges } = await idsToScore(core, prompt, bag, top !== undefined)
  const all = prefix === undefined ? ids : concatIds([Int32Array.of(prefix), ids])
  if (all.length < 2) {
    throw invalidPrompt('empty', `the prompt has ${ids.length} token(s); without prefixToken the first is not scored`)
  }
  const shift = prefix === undefined ? 0 : 1
  const count = countWindows(all.length, window, stride)
  const most = Math.max(2, Math.min(2 * core.maxSequences, Math.floor(tokensInFlight / window)))
  // Window by window, as they come, and objects only where they are wanted: all at once would hold the event loop.
  const results = await mapLimited(count, most, signal, async (index, stop) => {
    const { from, scoreFrom, to } = windowAt(all.length, window, stride, index)
    const { scored } = await submitWhenRoom(() => run(core, {
      kind: 1, prompt: [{ ids: all.slice(from, to), control: false }], scoreFrom: scoreFrom - from, scoreTop: top ?? 0,
      batch, cacheSalt,
    }, stop), stop)
    if (top === undefined) return { logprobs: packedColumn(scored, 1), tokens: [] }
    const tokens = unpackTokens(scored, core.texts)
    return {
      logprobs: Float64Array.from(tokens, token => token.logprob),
      tokens: ranges === undefined ? tokens : tokens.map((token, i) => withRange(token, ranges, scoreFrom + i - shift)),
    }
  })
  const sum = new CompensatedSum()
  for (const { logprobs } of results) for (const term of logprobs) sum.add(term)
  const logprob = sum.value
  const scoredTokens = all.length - 1
  const bytes = bytesOf(core, prompt, ids)
  return {
    logprob,
    count: scoredTokens,
    bytes,
    perplexity: Math.exp(-logprob / scoredTokens),
    bitsPerByte: bytes === 0 ? NaN : -logprob / Math.LN2 / bytes,
    logprobs: top === undefined ? null : results.flatMap(({ tokens }) => tokens),
  }
}

async function idsToScore(
  core: Core, prompt: unknown, bag: OptionBag, wantsRanges: boolean,
): Promise<{ ids: Int32Array; ranges: Uint32Array | undefined }> {
  const addSpecialTokens = readBoolean(bag, 'addSpecialTokens') ?? true
  const rules = readRules(bag)
  const given = typeof prompt === 'object' && prompt !== null ? readProperty(prompt, 'tokens') : undefined
  if (given !== undefined && readProperty(prompt as object, 'messages') === undefined) {
    if (countIds(given, invalidIds) === 0) {
      throw invalidPrompt('empty', 'the prompt has no tokens, expected at least one')
    }
    return { ids: await readManyIds(given, core.prompts.vocabSize, invalidIds, maxManyIds), ranges: undefined }
  }
  if (typeof prompt === 'string' && prompt.length > maxTextUnits) throw tooMuchText(prompt.length)
  // Windows make any length fit, so the limit on a prompt's text does not apply.
  const parts = promptParts(prompt, { ...core.prompts, contextSize: Infinity }, rules)
  const units = parts.reduce((sum, part) => sum + ('text' in part ? part.text.length : 0), 0)
  if (units > maxTextUnits) throw tooMuchText(units)
  if (wantsRanges && typeof prompt === 'string') {
    const [encoded] = await encodeTexts(
      core, [prompt], { addSpecialTokens, parseSpecial: rules.parseSpecial, atStart: true }, true)
    return { ids: encoded?.ids ?? new Int32Array(0), ranges: encoded?.offsets }
  }
  const ids = await fromCore(() => core.engine.native.tokenize({ kind: 1, prompt: parts, addSpecialTokens }))
  return { ids, ranges: undefined }
}

function tooMuchText(units: number): PolyLMError {
  const text = `the prompt has ${units} characters, at most ${maxTextUnits} are scored in one call`
  return new PolyLMError('LIMIT', text, { hint: 'score its parts one by one' })
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
  return Array.from({ length: countWindows(length, window, stride) }, (_, i) => windowAt(length, window, stride, i))
}

// How many, and each by itself: a long text has millions, which would hold the event loop as one list.
const countWindows = (length: number, window: number, stride: number): number =>
  (length < 2 ? 0 : 1 + Math.ceil(Math.max(0, length - 1 - window) / stride))

function windowAt(length: number, window: number, stride: number, index: number): ScoreWindow {
  const scoreFrom = index === 0 ? 1 : 1 + window + (index - 1) * stride
  const to = Math.min(length, index === 0 ? 1 + window : scoreFrom + stride)
  return { from: Math.max(0, to - window - 1), scoreFrom, to }
}

function withRange(token: TokenLogprob, ranges: Uint32Array, index: number): TokenLogprob {
  return { ...token, start: ranges[2 * index] ?? 0, end: ranges[2 * index + 1] ?? 0 }
}

// A column of tokens packed without alternatives: five numbers each, id and log-probability first (events.ts).
function packedColumn(scored: Float64Array, column: 0 | 1): Float64Array {
  return Float64Array.from({ length: scored.length / 5 }, (_, i) => scored[5 * i + column] ?? 0)
}

function bytesOf(core: Core, prompt: unknown, ids: Int32Array): number {
  if (typeof prompt === 'string') return Buffer.byteLength(prompt)
  return Buffer.byteLength(decodeIds(core, ids))
}

/** model.loglikelihood. */
export async function loglikelihood(
  core: Core, items: unknown, options: unknown,
): Promise<LoglikelihoodResult[]> {
  const bag = readBag(options, pairNames, 'loglikelihood')
  const given = readPrefix(core, bag)
  const truncateLeft = readChoice(bag, 'onOverflow', ['error', 'truncateLeft']) === 'truncateLeft'
  const cacheSalt = readSalt(bag) ?? ''
  const batch = readPriority(bag) !== 'interactive'
  const signal = readSignal(bag)
  const onProgress = readFunction<(p: { done: number; total: number }) => void>(bag, 'onProgress')
  signal?.throwIfAborted()
  const rules: PromptRules = { parseSpecial: true, controlText: 'reject', truncateLeft }
  const own = linkedController(signal)
  const callbacks = new Callbacks(reason => { own.abort(reason) })
  try {
    const list = await itemsOf(items, own.signal)
    let done = 0
    const most = Math.max(2, 2 * core.maxSequences)
    const results = await mapLimited(list.length, most, own.signal, async (index, stop) => {
      const pair = await encodePair(core, list[index], index, given, rules)
      const native = pair.scoreFrom === pair.ids.length ? nothingScored : await submitWhenRoom(() => run(core, {
        kind: 1, prompt: [{ ids: pair.ids, control: false }], scoreFrom: pair.scoreFrom, truncateLeft, batch, cacheSalt,
      }, stop), stop)
      const progress = { done: ++done, total: list.length }
      if (onProgress !== undefined) callbacks.run(() => onProgress(progress))
      return toPairResult(native, pair)
    })
    await callbacks.settled(own.signal)
    own.signal.throwIfAborted()
    return results
  } finally {
    own.release()
  }
}

const maxItems = 1 << 24

// A copy: the list may be long, or have no end.
async function itemsOf(items: unknown, signal: AbortSignal): Promise<unknown[]> {
  const wrong = (): PolyLMError =>
    invalidPrompt('items', `items is ${show(items)}, expected an iterable of { context, continuation }`)
  if (typeof items !== 'object' || items === null || ArrayBuffer.isView(items)) throw wrong()
  const make = reading('INVALID_PROMPT', 'items', () => (items as Iterable<unknown>)[Symbol.iterator] as unknown)
  if (typeof make !== 'function') throw wrong()
  const list: unknown[] = []
  const slicer = new Slicer()
  for (const item of items as Iterable<unknown>) {
    if (list.push(item) % 1024 !== 0) continue
    if (slicer.due()) await slicer.pause()
    signal.throwIfAborted()
    if (list.length > maxItems) throw invalidPrompt('items', `found more than ${maxItems} items`)
  }
  return list
}

const nothingScored: Pick<NativeResult, 'scored' | 'greedy'> = {
  scored: new Float64Array(0), greedy: new Uint8Array(0),
}

interface Pair {
  readonly ids: Int32Array
  readonly scoreFrom: number
  readonly bytes: number
}

async function encodePair(
  core: Core, item: unknown, index: number, prefix: number | undefined, rules: PromptRules,
): Promise<Pair> {
  if (typeof item !== 'object' || item === null) {
    throw invalidPrompt('items', `item ${index} is ${show(item)}, expected { context, continuation }`, { index })
  }
  const context = readProperty(item, 'context')
  const continuation = readProperty(item, 'continuation')
  if (isEmpty(context)) {
    return afterPrefix(core, continuation, await idsOf(core, continuation, true, rules), index, prefix)
  }
  const joint = typeof context === 'string' && typeof continuation === 'string'
  const [before, after] = joint
    ? await jointIds(core, context, continuation, rules)
    : [await idsOf(core, context, true, rules), await idsOf(core, continuation, false, rules)]
  if (after.length === 0 && (!joint || continuation === '')) throw nothingToScore(index)
  // White space alone is a context without tokens.
  const start = before.length > 0 ? before : Int32Array.of(prefixOf(core, prefix, index))
  const bytes = bytesOf(core, continuation, after)
  return { ids: concatIds([start, after]), scoreFrom: start.length, bytes }
}

// A continuation that begins with the prefix token brings its own context.
function afterPrefix(
  core: Core, continuation: unknown, after: Int32Array, index: number, given: number | undefined,
): Pair {
  if (after.length === 0) throw nothingToScore(index)
  const prefix = prefixOf(core, given, index)
  const ids = after[0] === prefix ? after : concatIds([Int32Array.of(prefix), after])
  return { ids, scoreFrom: 1, bytes: bytesOf(core, continuation, after) }
}

const nothingToScore = (index: number): PolyLMError =>
  invalidPrompt('empty', `the continuation of item ${index} has no tokens`, { index })

function isEmpty(context: unknown): boolean {
  if (context === '') return true
  const tokens = typeof context === 'object' && context !== null ? readProperty(context, 'tokens') : undefined
  return typeof tokens === 'object' && tokens !== null && readProperty(tokens, 'length') === 0
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
async function jointIds(
  core: Core, context: string, continuation: string, rules: PromptRules,
): Promise<[Int32Array, Int32Array]> {
  if (continuation === '') return [Int32Array.of(0), new Int32Array(0)]
  if (!core.prompts.hasTokenizer) throw tokenizerMissing()
  checkTextLength(context.length + continuation.length, core.prompts, rules)
  const kept = pythonRstrip(context)
  const texts = kept === '' ? [context + continuation] : [context + continuation, kept]
  const [first, second] = await encodeTexts(core, texts, { addSpecialTokens: false, parseSpecial: true, atStart: true })
  const [whole, alone] = [first?.ids ?? new Int32Array(0), second?.ids ?? new Int32Array(0)]
  return [alone.length < whole.length ? whole.slice(0, alone.length) : whole, whole.slice(alone.length)]
}

async function idsOf(core: Core, prompt: unknown, atStart: boolean, rules: PromptRules): Promise<Int32Array> {
  const parts = promptParts(prompt, core.prompts, rules)
  if (typeof prompt === 'string') {
    const [encoded] = await encodeTexts(core, [prompt], { addSpecialTokens: false, parseSpecial: true, atStart })
    return encoded?.ids ?? new Int32Array(0)
  }
  const [part] = parts
  if (parts.length === 1 && part !== undefined && 'ids' in part) return Int32Array.from(part.ids)
  return await fromCore(() => core.engine.native.tokenize({ kind: 1, prompt: parts, addSpecialTokens: false }))
}

function toPairResult(native: Pick<NativeResult, 'scored' | 'greedy'>, pair: Pair): LoglikelihoodResult {
  const tokenLogprobs = Float32Array.from(packedColumn(native.scored, 1))
  return new Likelihood({
    logprob: compensatedSum(tokenLogprobs),
    isGreedy: native.greedy.every(flag => flag === 1),
    tokens: Int32Array.from(packedColumn(native.scored, 0)),
    tokenLogprobs,
    continuationBytes: pair.bytes,
  })
}

// Runs `work` for 0 to count - 1, `most` at a time, results in order. The first failure ends the others.
async function mapLimited<R>(
  count: number, most: number, signal: AbortSignal | undefined,
  work: (index: number, stop: AbortSignal) => Promise<R>,
): Promise<R[]> {
  const results: R[] = []
  const stop = linkedController(signal)
  const slicer = new Slicer()
  let next = 0
  const lane = async (): Promise<void> => {
    while (next < count) {
      const index = next++
      if (slicer.due()) await slicer.pause()   // short texts are encoded on this thread
      stop.signal.throwIfAborted()
      results[index] = await work(index, stop.signal)
    }
  }
  try {
    await Promise.all(Array.from({ length: Math.min(most, count) }, async () => {
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
