// generate-options.ts: the options of one generate call, checked, and turned into what the core takes.
// What depends on the model's size is checked by the core afterwards (check_params); here is everything
// that can be said without it. Not here: prompts (prompt.ts), what an option does (csrc/engine).
import type { Compat, GenerateOptions } from './options.js'
import { PolyLMError } from './errors.js'
import type { NativeParams } from './native.js'
import {
  invalidOption, readBag, readBoolean, readChoice, readIds, readNumber, readPriority, readProperty, readSalt,
  readSignal, show, type OptionBag,
} from './option-reader.js'
import { derivedRows, optionTable } from './option-table.js'
import type { PromptRules } from './prompt.js'

const publicRows = optionTable.filter(row => !derivedRows.has(row.name))

/** Every option of `generate`. */
export const generateNames: ReadonlySet<string> = new Set<keyof GenerateOptions>([
  ...publicRows.map(row => row.name as keyof GenerateOptions),
  'bias', 'allow', 'earlyStopping', 'beamScoring', 'padTo', 'stop', 'stopTokenIds', 'logprobsOf', 'speculate',
  'onOverflow', 'signal', 'onAbort', 'queueTimeoutMs', 'priority', 'cacheSalt', 'addSpecialTokens', 'parseSpecial',
  'controlText',
])

/** What checking options needs to know of the model. */
export interface OptionContext {
  readonly vocabSize: number
  readonly stopTokenIds: readonly number[]
  readonly compat: Compat
  readonly hasTokenizer: boolean
  /** Ids of text that continues a prompt, without special tokens. */
  readonly encodeContinuation: (text: string) => Int32Array
}

/** Checked options. */
export interface CheckedGenerate {
  readonly params: NativeParams
  /** The strings of `stop`, in the order of `stoppedByString`. */
  readonly stop: readonly string[]
  readonly rules: PromptRules
  readonly addSpecialTokens: boolean
  readonly maxTokensGiven: boolean
  readonly truncateLeft: boolean
  readonly queueTimeoutMs: number
  /** As given; the default is the call's. */
  readonly priority: 'interactive' | 'batch' | undefined
  readonly cacheSalt: string
  /** The session that asks, or ''. */
  readonly caller: string
  readonly signal: AbortSignal | undefined
  readonly returnOnAbort: boolean
  /** The options as given, each read once. */
  readonly given: OptionBag
}

/**
 * Checks the options of a generate call.
 *
 * @throws PolyLMError INVALID_OPTION with `option`, `value` and `reason`.
 */
export function checkGenerate(
  source: unknown, context: OptionContext, what = 'generate',
): CheckedGenerate {
  const bag = readBag(source, generateNames, what)
  const onOverflow = readChoice(bag, 'onOverflow', ['error', 'truncateLeft'])
  const truncateLeft = onOverflow === 'truncateLeft'
  if (truncateLeft && bag['maxTokens'] === undefined) {
    throw invalidOption('onOverflow', 'truncateLeft', 'needs maxTokens, to know how much of the prompt to keep')
  }
  const stop = readStop(bag)
  if (stop.length > 0 && !context.hasTokenizer) {
    throw new PolyLMError('TOKENIZER_MISSING', 'stop is text, but the model directory has no tokenizer.model', {
      hint: 'use stopTokenIds',
    })
  }
  return {
    params: readParams(bag, context, stop),
    stop,
    rules: readRules(bag),
    addSpecialTokens: readBoolean(bag, 'addSpecialTokens') ?? true,
    maxTokensGiven: bag['maxTokens'] !== undefined,
    truncateLeft,
    queueTimeoutMs: readNumber(bag, 'queueTimeoutMs', { min: 0, max: 2_147_483_647, integer: true }) ?? -1,
    priority: readPriority(bag),
    cacheSalt: readSalt(bag) ?? '',
    caller: '',
    signal: readSignal(bag),
    returnOnAbort: readChoice(bag, 'onAbort', ['throw', 'return']) === 'return',
    given: bag,
  }
}

/** The options about prompts, defaults applied. */
export function readRules(bag: OptionBag): PromptRules {
  return {
    parseSpecial: readBoolean(bag, 'parseSpecial') ?? true,
    controlText: readChoice(bag, 'controlText', ['reject', 'escape']) ?? 'reject',
  }
}

function readParams(bag: OptionBag, context: OptionContext, stop: readonly string[]): NativeParams {
  const scalars = Object.create(null) as Record<string, number | boolean>
  for (const row of publicRows) {
    if (row.type === 'bool') {
      scalars[row.name] = readBoolean(bag, row.name) ?? row.default === 1
    } else {
      const range = { min: Math.max(row.min, row.min === -1 ? 0 : row.min), max: row.max, integer: row.type === 'int' }
      scalars[row.name] = readNumber(bag, row.name, range) ?? row.default
    }
  }
  const padTo = readPadTo(bag, context)
  const bias = readBias(bag, context)
  return {
    ...scalars,
    ...(bag['seed'] === undefined ? { seed: randomSeed() } : {}),
    logprobsProcessed: readChoice(bag, 'logprobsOf', ['model', 'processed']) === 'processed',
    speculateLookup: readSpeculate(bag),
    padToLength: padTo.length,
    padToToken: padTo.tokenId,
    earlyStopping: readEarlyStopping(bag),
    beamScoring: (readChoice(bag, 'beamScoring', ['hf-4.55', 'hf-4.31']) ?? context.compat) === 'hf-4.31' ? 1 : 0,
    stop,
    stopTokenIds: readStopIds(bag, context),
    ...bias,
    ...readAllow(bag, context),
  }
}

// 53 random bits: every seed that is made up can be given back as an option.
function randomSeed(): number {
  const words = crypto.getRandomValues(new Uint32Array(2))
  return (words[0] ?? 0) * 0x20_0000 + ((words[1] ?? 0) >>> 11)
}

function readEarlyStopping(bag: OptionBag): number {
  const value = bag['earlyStopping']
  if (value === undefined || value === false) return 0
  if (value === true) return 1
  if (value === 'never') return 2
  throw invalidOption('earlyStopping', value, "expected true, false or 'never'")
}

function readSpeculate(bag: OptionBag): boolean {
  const value = bag['speculate']
  if (value === undefined || value === false) return false
  if (value === 'lookup') return true
  throw invalidOption('speculate', value, "expected 'lookup' or false")
}

const maxStops = 8
const maxStopBytes = 128

function readStop(bag: OptionBag): string[] {
  const value = bag['stop']
  if (value === undefined) return []
  if (typeof value === 'string') return [checkStop(value)]
  if (!Array.isArray(value)) throw invalidOption('stop', value, 'expected text or an array of texts')
  if (value.length > maxStops) {
    throw invalidOption('stop', value, `has ${value.length} texts, expected at most ${maxStops}`)
  }
  return Array.from(value as ArrayLike<unknown>, text => checkStop(text))
}

function checkStop(text: unknown): string {
  if (typeof text !== 'string') throw invalidOption('stop', text, 'expected text or an array of texts')
  if (text === '') throw invalidOption('stop', text, 'an empty text would stop everything')
  const bytes = Buffer.byteLength(text)
  if (bytes <= maxStopBytes) return text
  throw invalidOption('stop', text, `has ${bytes} bytes of UTF-8, expected at most ${maxStopBytes}`)
}

function readStopIds(bag: OptionBag, context: OptionContext): Int32Array {
  const value = bag['stopTokenIds']
  if (value === undefined) return Int32Array.from(context.stopTokenIds)
  const ids = readIds(value, context.vocabSize, reason => invalidOption('stopTokenIds', value, reason))
  return Int32Array.from(new Set(ids))
}

function readPadTo(bag: OptionBag, context: OptionContext): { length: number; tokenId: number } {
  const value = bag['padTo']
  if (value === undefined) return { length: 0, tokenId: 0 }
  if (typeof value !== 'object' || value === null) throw invalidOption('padTo', value, 'expected { length, tokenId }')
  const length = readProperty(value, 'length')
  const tokenId = readProperty(value, 'tokenId')
  if (typeof length !== 'number' || !Number.isSafeInteger(length) || length < 1 || length > 1_048_576) {
    throw invalidOption('padTo', value, `length is ${show(length)}, expected an integer from 1 to 1048576`)
  }
  if (typeof tokenId !== 'number' || !Number.isInteger(tokenId) || tokenId < 0 || tokenId >= context.vocabSize) {
    throw invalidOption('padTo', value,
      `tokenId is ${show(tokenId)}, expected an integer from 0 to ${context.vocabSize - 1}`)
  }
  return { length, tokenId }
}

const maxBias = 4096

function readBias(
  bag: OptionBag, context: OptionContext,
): { biasTokens: Int32Array[]; biasValues: Float64Array } {
  const value = bag['bias']
  if (value === undefined) return { biasTokens: [], biasValues: new Float64Array(0) }
  const complain = (reason: string): PolyLMError => invalidOption('bias', value, reason)
  if (!Array.isArray(value)) throw complain('expected an array of [token or tokens, number]')
  if (value.length > maxBias) throw complain(`has ${value.length} rules, expected at most ${maxBias}`)
  const tokens: Int32Array[] = []
  const values = new Float64Array(value.length)
  for (let i = 0; i < values.length; i++) {
    const rule: unknown = value[i]
    if (!Array.isArray(rule) || rule.length !== 2) {
      throw complain(`rule ${i} is ${show(rule)}, expected [token or tokens, number]`)
    }
    const [target, amount] = rule as [unknown, unknown]
    if (typeof amount !== 'number' || Number.isNaN(amount) || amount === Infinity) {
      throw complain(`rule ${i} adds ${show(amount)}, expected a number or -Infinity`)
    }
    const ids = readIds(typeof target === 'number' ? [target] : target, context.vocabSize,
      reason => complain(`rule ${i}: ${reason}`))
    if (ids.length === 0) throw complain(`rule ${i} has no tokens`)
    tokens.push(ids)
    values[i] = amount
  }
  return { biasTokens: tokens, biasValues: values }
}

const maxChoices = 1024

function readAllow(
  bag: OptionBag, context: OptionContext,
): { allowTokens: Int32Array; allowChoices: Int32Array[] } {
  const value = bag['allow']
  const nothing = new Int32Array(0)
  if (value === undefined) return { allowTokens: nothing, allowChoices: [] }
  const complain = (reason: string): PolyLMError => invalidOption('allow', value, reason)
  if (typeof value !== 'object' || value === null) throw complain('expected { tokens } or { choices }')
  const tokens = readProperty(value, 'tokens')
  const choices = readProperty(value, 'choices')
  if ((tokens === undefined) === (choices === undefined)) throw complain('expected either { tokens } or { choices }')
  if (tokens !== undefined) {
    const ids = readIds(tokens, context.vocabSize, reason => complain(reason))
    if (ids.length === 0) throw complain('tokens is empty: nothing would be left to generate')
    return { allowTokens: Int32Array.from(new Set(ids)), allowChoices: [] }
  }
  if (!Array.isArray(choices) || choices.length === 0 || choices.length > maxChoices) {
    throw complain(`expected choices to be an array of 1 to ${maxChoices} continuations`)
  }
  return {
    allowTokens: nothing,
    allowChoices: Array.from(choices as unknown[], (choice, i) => readChoiceIds(choice, i, context, complain)),
  }
}

function readChoiceIds(
  choice: unknown, index: number, context: OptionContext, complain: (reason: string) => PolyLMError,
): Int32Array {
  if (typeof choice === 'string' && !context.hasTokenizer) {
    throw new PolyLMError(
      'TOKENIZER_MISSING', 'allow.choices are texts, but the model directory has no tokenizer.model')
  }
  const ids = typeof choice === 'string'
    ? context.encodeContinuation(choice)
    : readIds(
      typeof choice === 'object' && choice !== null ? readProperty(choice, 'tokens') : undefined,
      context.vocabSize, reason => complain(`choice ${index}: ${reason}`))
  if (ids.length === 0) throw complain(`choice ${index} is empty`)
  return ids
}
