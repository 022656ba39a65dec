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
import { derivedRows, optionLimits, optionTable } from './option-table.js'
import { isArray, reading } from './untrusted.js'
import type { PromptRules } from './prompt.js'
import { impliedBy } from './sampling.js'

const publicRows = optionTable.filter(row => !derivedRows.has(row.name))

/** Every option of `generate`. */
export const generateNames: ReadonlySet<string> = new Set<keyof GenerateOptions>([
  ...publicRows.map(row => row.name as keyof GenerateOptions),
  'bias', 'biasSparesStops', 'allow', 'earlyStopping', 'beamScoring', 'padTo', 'stop', 'stopMatching', 'stopTokenIds',
  'logprobsOf', 'speculate', 'onOverflow', 'signal', 'onAbort', 'queueTimeoutMs', 'priority', 'cacheSalt',
  'addSpecialTokens', 'parseSpecial', 'controlText',
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
  /** Choices of `allow` whose texts are too long to be encoded on this thread; `params.allowChoices` is empty then. */
  readonly longChoices: ReadonlyArray<string | Int32Array> | undefined
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
  return reading('INVALID_OPTION', `the options of ${what}`, () => (
    checkBag(readBag(source, generateNames, what), context)
  ))
}

function checkBag(bag: OptionBag, context: OptionContext): CheckedGenerate {
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
  const { longChoices, ...params } = readParams(bag, context, stop)
  const rules = { ...readRules(bag), maxTokens: Number(params['maxTokens']), truncateLeft }
  return {
    params,
    longChoices,
    stop,
    rules,
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

function readParams(
  bag: OptionBag, context: OptionContext, stop: readonly string[],
): NativeParams & Pick<CheckedGenerate, 'longChoices'> {
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
  const stopTokenIds = readStopIds(bag, context)
  return {
    ...scalars,
    ...(bag['temperature'] === undefined ? { temperature: readImpliedTemperature(bag) } : {}),
    ...(bag['seed'] === undefined ? { seed: randomSeed() } : {}),
    logprobsProcessed: readChoice(bag, 'logprobsOf', ['model', 'processed']) === 'processed',
    speculateLookup: readSpeculate(bag),
    padToLength: padTo.length,
    padToToken: padTo.tokenId,
    earlyStopping: readEarlyStopping(bag),
    beamScoring: (readChoice(bag, 'beamScoring', ['hf-4.55', 'hf-4.31']) ?? context.compat) === 'hf-4.31' ? 1 : 0,
    stop,
    stopHf: readChoice(bag, 'stopMatching', ['output', 'hf']) === 'hf',
    stopTokenIds,
    ...readBias(bag, context, stopTokenIds),
    ...readAllow(bag, context),
  }
}

// A sampling option without a temperature means temperature 1, as in transformers and OpenAI's interface.
function readImpliedTemperature(bag: OptionBag): number {
  const name = impliedBy(bag)
  if (name === undefined) return 0
  const beams = bag['numBeams']
  if (typeof beams === 'number' && beams > 1 && bag['sampleBeams'] !== true) {
    throw invalidOption(name, bag[name],
      `with numBeams ${beams}, expected sampleBeams: true to sample the candidates of the beams`,
      'temperature: 0 beside it decodes without sampling')
  }
  return 1
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

function readStop(bag: OptionBag): string[] {
  const value = bag['stop']
  if (value === undefined) return []
  if (typeof value === 'string') return [checkStop(value)]
  if (!isArray(value)) throw invalidOption('stop', value, 'expected text or an array of texts')
  const { stopStrings, stopBytes } = optionLimits
  const { length } = value
  if (length > stopStrings) throw invalidOption('stop', value, `has ${length} texts, expected at most ${stopStrings}`)
  const texts = Array.from({ length }, (_, i) => checkStop(value[i]))
  const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0)
  if (bytes <= stopBytes) return texts
  throw invalidOption('stop', value, `has ${bytes} bytes of UTF-8 in all, expected at most ${stopBytes}`)
}

function checkStop(text: unknown): string {
  if (typeof text !== 'string') throw invalidOption('stop', text, 'expected text or an array of texts')
  if (text === '') throw invalidOption('stop', text, 'an empty text would stop everything')
  const { stopBytes } = optionLimits
  // Of a long text the length says enough: it has as many bytes at least.
  const bytes = text.length > stopBytes ? text.length : Buffer.byteLength(text)
  if (bytes <= stopBytes) return text
  throw invalidOption('stop', text, `has ${bytes} bytes of UTF-8, expected at most ${stopBytes}`)
}

function readStopIds(bag: OptionBag, context: OptionContext): Int32Array {
  const value = bag['stopTokenIds']
  if (value === undefined) return Int32Array.from(context.stopTokenIds)
  const ids = readIds(value, context.vocabSize, reason => invalidOption('stopTokenIds', value, reason))
  const distinct = Int32Array.from(new Set(ids))
  if (distinct.length <= optionLimits.stopTokenIds) return distinct
  throw invalidOption('stopTokenIds', value,
    `has ${distinct.length} ids, expected at most ${optionLimits.stopTokenIds}`)
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

type NativeBias = Pick<NativeParams, 'biasIds' | 'biasAmounts' | 'biasTokens' | 'biasValues'>

// Scores are float32: a finite bias beyond its range would be an infinite one.
const maxBiasValue = 3.4028234663852886e38

// Rules of one token come apart from the others: there may be one for every token of the vocabulary.
function readBias(bag: OptionBag, context: OptionContext, stopTokenIds: Int32Array): NativeBias {
  const value = bag['bias']
  const complain = (reason: string): PolyLMError => invalidOption('bias', value, reason)
  const spared = readSpared(bag, context, stopTokenIds)
  if (value !== undefined && !isArray(value)) throw complain('expected an array of [token or tokens, number]')
  const rules = value ?? []
  const { length } = rules
  if (length > optionLimits.biasTokens) {
    throw complain(`has ${length} rules, expected at most ${optionLimits.biasTokens}`)
  }
  const ids = new Int32Array(length)
  const amounts = new Float64Array(length)
  const tokens: Int32Array[] = []
  const values: number[] = []
  let singles = 0
  let left = optionLimits.biasTokens
  for (let i = 0; i < length; i++) {
    const [target, amount] = readRule(rules[i], i, complain)
    const rule = readTarget(target, i, context, complain, left)
    left -= typeof rule === 'number' ? 1 : rule.length
    if (typeof rule !== 'number') {
      tokens.push(rule)
      values.push(amount)
    } else if (amount !== -Infinity || !spared.has(rule)) {
      ids[singles] = rule
      amounts[singles++] = amount
    }
  }
  const biasIds = ids.slice(0, singles)
  checkOnce(biasIds, tokens, complain)
  return {
    biasIds, biasAmounts: amounts.slice(0, singles), biasTokens: tokens, biasValues: Float64Array.from(values),
  }
}

/** A token, or several; `left` ids may still come. */
function readTarget(
  target: unknown, i: number, context: OptionContext, complain: (reason: string) => PolyLMError, left: number,
): number | Int32Array {
  if (typeof target === 'number' && Number.isInteger(target) && target >= 0 && target < context.vocabSize) return target
  const ids = readIds(typeof target === 'number' ? [target] : target, context.vocabSize,
    reason => complain(`rule ${i}: ${reason}`), left)
  if (ids.length === 0) throw complain(`rule ${i} has no tokens`)
  return ids.length === 1 ? ids[0] ?? 0 : ids
}

function readRule(rule: unknown, i: number, complain: (reason: string) => PolyLMError): readonly [unknown, number] {
  if (!isArray(rule) || rule.length !== 2) {
    throw complain(`rule ${i} is ${show(rule)}, expected [token or tokens, number]`)
  }
  const [target, amount] = [rule[0], rule[1]]
  if (typeof amount === 'number' && (amount === -Infinity || Math.abs(amount) <= maxBiasValue)) return [target, amount]
  throw complain(
    `rule ${i} adds ${show(amount)}, expected a number from -${maxBiasValue} to ${maxBiasValue} or -Infinity`)
}

function checkOnce(
  singles: Int32Array, sequences: readonly Int32Array[], complain: (reason: string) => PolyLMError,
): void {
  const sorted = singles.slice().sort()
  const twice = sorted.find((id, i) => i > 0 && id === sorted[i - 1])
  if (twice !== undefined) throw complain(`token ${twice} has two rules, expected one for each token or sequence`)
  const seen = new Set<string>()
  for (const ids of sequences) {
    const key = ids.join()
    if (seen.has(key)) throw complain(`the tokens ${show(key)} have two rules, expected one for each token or sequence`)
    seen.add(key)
  }
}

// The stop tokens among biasSparesStops.
function readSpared(bag: OptionBag, context: OptionContext, stopTokenIds: Int32Array): Set<number> {
  const value = bag['biasSparesStops']
  if (value === undefined) return new Set()
  const ids = new Set(readIds(value, context.vocabSize, reason => invalidOption('biasSparesStops', value, reason)))
  return new Set(stopTokenIds.filter(id => ids.has(id)))
}

/** UTF-16 units and token ids of all choices together. */
const maxChoiceUnits = 128 * 1024
const maxChoiceIds = 64 * 1024
/** UTF-16 units that are encoded on this thread, in about 10 ms; what is longer goes to another one. */
export const maxUnitsHere = 16 * 1024

function readAllow(
  bag: OptionBag, context: OptionContext,
): Pick<NativeParams, 'allowTokens' | 'allowChoices'> & Pick<CheckedGenerate, 'longChoices'> {
  const value = bag['allow']
  const nothing = new Int32Array(0)
  if (value === undefined) return { allowTokens: nothing, allowChoices: [], longChoices: undefined }
  const complain = (reason: string): PolyLMError => invalidOption('allow', value, reason)
  if (typeof value !== 'object' || value === null) throw complain('expected { tokens } or { choices }')
  const tokens = readProperty(value, 'tokens')
  const choices = readProperty(value, 'choices')
  if ((tokens === undefined) === (choices === undefined)) throw complain('expected either { tokens } or { choices }')
  if (tokens !== undefined) {
    const ids = readIds(tokens, context.vocabSize, reason => complain(reason))
    if (ids.length === 0) throw complain('tokens is empty: nothing would be left to generate')
    return { allowTokens: Int32Array.from(new Set(ids)), allowChoices: [], longChoices: undefined }
  }
  const read = readChoices(choices, context, complain)
  const units = read.reduce((sum, choice) => sum + (typeof choice === 'string' ? choice.length : 0), 0)
  if (units > maxUnitsHere) return { allowTokens: nothing, allowChoices: [], longChoices: read }
  const ids = read.map(choice => (typeof choice === 'string' ? context.encodeContinuation(choice) : choice))
  return { allowTokens: nothing, allowChoices: checkChoices(ids, value), longChoices: undefined }
}

function readChoices(
  choices: unknown, context: OptionContext, complain: (reason: string) => PolyLMError,
): Array<string | Int32Array> {
  const length = isArray(choices) ? choices.length : 0
  if (!isArray(choices) || length === 0 || length > optionLimits.allowChoices) {
    throw complain(`expected choices to be an array of 1 to ${optionLimits.allowChoices} continuations`)
  }
  let [units, ids] = [maxChoiceUnits, maxChoiceIds]
  return Array.from({ length }, (_, i) => {
    const choice: unknown = choices[i]
    if (typeof choice === 'string') {
      units -= choice.length
      if (units < 0) throw complain(`the choices have more than ${maxChoiceUnits} characters together`)
      return choice
    }
    const tokens = typeof choice === 'object' && choice !== null ? readProperty(choice, 'tokens') : undefined
    const reject = (reason: string): PolyLMError => complain(`choice ${i}: ${reason}`)
    const read = readIds(tokens, context.vocabSize, reject, ids)
    ids -= read.length
    return read
  }).map(choice => {
    if (typeof choice !== 'string' || context.hasTokenizer) return choice
    throw new PolyLMError(
      'TOKENIZER_MISSING', 'allow.choices are texts, but the model directory has no tokenizer.model')
  })
}

/** Choices as token ids, checked; `allow` is the option as it was given. */
export function checkChoices(choices: readonly Int32Array[], allow: unknown): readonly Int32Array[] {
  const empty = choices.findIndex(({ length }) => length === 0)
  if (empty >= 0) throw invalidOption('allow', allow, `choice ${empty} is empty`)
  const total = choices.reduce((sum, { length }) => sum + length, 0)
  if (total <= maxChoiceIds) return choices
  throw invalidOption('allow', allow, `the choices have ${total} tokens together, expected at most ${maxChoiceIds}`)
}
