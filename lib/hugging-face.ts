// hugging-face.ts: the keyword arguments of transformers' generate() as options of ours and back. Pure. Rules are
// those of transformers 4.55 and 4.57, and where 4.57 raises an error, so does this.
// Trap: exact or refused. An argument that changes the output and has no counterpart is refused, one that cannot
// change it is listed as dropped; what comes out passes the check of our own options.
import { isPolyLMError } from './errors.js'
import { checkGenerate } from './generate-options.js'
import { huggingFaceTable, type NoneMeaning, type Refused, type Translated } from './hugging-face-table.js'
import { biasOf, tokenIds, tokenLimit } from './hugging-face-bias.js'
import type { GenerateOptions } from './options.js'
import { invalidOption, nearest, readBag, readProperty, type OptionBag } from './option-reader.js'
import { reading } from './untrusted.js'

/** Options of {@link fromHuggingFace}. */
export interface FromHuggingFaceContext {
  /**
   * Length of the prompt; needed for `max_length` and `min_length`, which count it, and for
   * `forced_bos_token_id`, which transformers applies only to a prompt of one token.
   */
  readonly promptTokens?: number | undefined
}

/** What {@link fromHuggingFace} gives. */
export interface FromHuggingFaceResult {
  readonly options: GenerateOptions
  /** Arguments that have no effect on the output. */
  readonly dropped: readonly string[]
}

type Mutable = { -readonly [K in keyof GenerateOptions]: GenerateOptions[K] }

/** A call on its way: its arguments, None replaced by what it means, and what has come of them. */
interface Call {
  readonly bag: Record<string, unknown>
  readonly promptTokens: number | undefined
  readonly sampling: boolean
  readonly beams: boolean
  readonly options: Mutable
  readonly dropped: Set<string>
}

const known: ReadonlySet<string> = new Set(Object.keys(huggingFaceTable))
const translated = Object.entries(huggingFaceTable).filter((row): row is [string, Translated] => 'becomes' in row[1])
const newTokens = 20                                 // what transformers generates when no length is given

/**
 * Options for `generate` that do what transformers 4.55 and 4.57 do with these keyword arguments for an unpadded
 * prompt, or an error: what changes the output there and cannot be done here is refused with the reason. What
 * transformers does silently is written out: without `max_new_tokens` and `max_length` it generates 20 tokens,
 * `do_sample` without `top_k` keeps 50. None (null) is what it is there: `top_k: null` keeps all tokens,
 * `eos_token_id: null` never ends at a token.
 *
 * Every argument of GenerationConfig and generate() is known; whether one is translated, dropped or refused is in
 * the table of docs/decoding.md.
 *
 * @throws PolyLMError INVALID_OPTION for an unknown argument, one that would change the output and has no
 * counterpart, and one for which transformers raises an error (`max_length` not above the prompt's length).
 * @example
 * const { options } = fromHuggingFace({ num_beams: 4, max_length: 128, early_stopping: true }, { promptTokens: 19 })
 */
export function fromHuggingFace(
  kwargs: Readonly<Record<string, unknown>>, context: FromHuggingFaceContext = {},
): FromHuggingFaceResult {
  return reading('INVALID_OPTION', 'kwargs', () => {
    const call = open(kwargs, context)
    readNumbers(call)
    readSampling(call)
    readLengths(call)
    readStops(call)
    readForced(call)
    readFlags(call)
    Object.assign(call.options, biasOf(call.bag, call.options.stopTokenIds))
    checkTogether(call)
    checkOptions(call)
    const given = Object.keys(call.bag)
    return { options: call.options, dropped: given.filter(name => call.dropped.has(name)) }
  })
}

function readKwargs(kwargs: unknown): OptionBag {
  try {
    return readBag(kwargs, known, 'transformers\' generate')
  } catch (e) {
    if (!isPolyLMError(e) || e['reason'] !== 'unknown') throw e
    const name = String(e['option'])
    const meant = nearest(name, known)
    throw invalidOption(name, e['value'], 'is not an argument that is known here',
      meant === undefined ? undefined : `did you mean ${meant}?`)
  }
}

function open(kwargs: unknown, context: unknown): Call {
  const given = readKwargs(kwargs)
  const beams = given['num_beams'] !== undefined && given['num_beams'] !== 1
  const bag: Record<string, unknown> = Object.create(null) as Record<string, unknown>
  const dropped = new Set<string>()
  for (const name of Object.keys(given)) {
    const row = huggingFaceTable[name]
    const value = given[name]
    if (row === undefined) continue
    if ('dropped' in row) dropped.add(name)
    else if ('refused' in row) dropNeutral(name, value, row, beams, dropped)
    bag[name] = value === null && 'becomes' in row ? ofNone(name, row.none, given, beams, dropped) : value
  }
  return {
    bag, dropped, beams, promptTokens: promptTokensOf(context), options: {},
    sampling: bag['do_sample'] !== undefined && flag(bag, 'do_sample'),
  }
}

function dropNeutral(name: string, value: unknown, row: Refused, beams: boolean, dropped: Set<string>): void {
  const off = value === null ? !(row.none === 'error with beams' && beams) : row.neutral?.(value) === true
  if (!off) throw invalidOption(name, value, `not supported: it ${row.refused}`, row.hint)
  dropped.add(name)
}

function ofNone(name: string, none: NoneMeaning, given: OptionBag, beams: boolean, dropped: Set<string>): unknown {
  if (typeof none === 'object') return none.value
  const error = none === 'error' || (none === 'error with beams' && beams) ||
    (none === 'error without max_new_tokens' && typeof given['max_new_tokens'] !== 'number')
  if (error) throw invalidOption(name, null, 'is an error in transformers')
  dropped.add(name)
  return undefined
}

function promptTokensOf(context: unknown): number | undefined {
  if (context === undefined) return undefined
  if (typeof context !== 'object' || context === null) {
    throw invalidOption('context', context, 'expected { promptTokens }')
  }
  const value = readProperty(context, 'promptTokens')
  if (value === undefined) return undefined
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 1) return value
  throw invalidOption('promptTokens', value, 'expected a whole number from 1')
}

function number(bag: OptionBag, name: string): number {
  const value = bag[name]
  if (typeof value === 'number' && Number.isFinite(value)) return value
  throw invalidOption(name, value, 'expected a number')
}

function flag(bag: OptionBag, name: string): boolean {
  const value = bag[name]
  if (typeof value === 'boolean') return value
  throw invalidOption(name, value, 'expected true or false')
}

function readNumbers({ bag, options, dropped }: Call): void {
  for (const name of ['num_beams', 'num_return_sequences', 'length_penalty', 'repetition_penalty'] as const) {
    if (bag[name] === undefined) continue
    const option = (huggingFaceTable[name] as Translated).becomes[0] as 'numBeams'
    options[option] = number(bag, name)
  }
  if (bag['no_repeat_ngram_size'] === undefined) return
  const size = number(bag, 'no_repeat_ngram_size')
  if (size < 0) dropped.add('no_repeat_ngram_size')
  else options.noRepeatNgramSize = size
}

// Outside these ranges transformers leaves the warper out.
const works: Readonly<Record<string, (value: number) => boolean>> = {
  top_p: value => value <= 1, typical_p: value => value <= 1,
  epsilon_cutoff: value => value > 0 && value < 1, eta_cutoff: value => value > 0 && value < 1,
}

function readSampling({ bag, options, dropped, sampling, beams }: Call): void {
  for (const [name, row] of translated) {
    if (row.only !== 'do_sample' || bag[name] === undefined) continue
    const value = number(bag, name)
    if (!sampling || works[name]?.(value) === false) {
      dropped.add(name)
    } else if ((name === 'temperature' || name === 'typical_p') && value <= 0) {
      throw invalidOption(name, value, 'expected a number above 0')
    } else {
      options[row.becomes[0] as 'temperature'] = value
    }
  }
  if (!sampling) return
  options.temperature ??= 1
  options.topK ??= 50
  if (beams) options.sampleBeams = true
}

function readLengths({ bag, options, dropped, promptTokens }: Call): void {
  const counted = (name: string): number => {
    const total = number(bag, name)
    if (promptTokens !== undefined) return total - promptTokens
    throw invalidOption(name, total, 'counts the prompt', 'pass { promptTokens } as the second argument')
  }
  options.maxTokens = bag['max_new_tokens'] === undefined ? newTokens : number(bag, 'max_new_tokens')
  if (bag['max_length'] !== undefined && bag['max_new_tokens'] !== undefined) {
    dropped.add('max_length')
  } else if (bag['max_length'] !== undefined) {
    options.maxTokens = counted('max_length')
    if (options.maxTokens <= 0) {
      throw invalidOption('max_length', bag['max_length'],
        `expected more than the ${promptTokens} tokens of the prompt`,
        'max_new_tokens does not count the prompt')
    }
  }
  const name = bag['min_new_tokens'] === undefined ? 'min_length' : 'min_new_tokens'
  if (name === 'min_new_tokens' && bag['min_length'] !== undefined) dropped.add('min_length')
  if (bag[name] === undefined) return
  if (number(bag, name) <= 0) {
    dropped.add(name)
  } else {
    // Above the maximum it bans the end to the last token, which the maximum itself does too.
    const least = name === 'min_length' ? counted(name) : number(bag, name)
    options.minTokens = Math.min(Math.max(0, least), options.maxTokens)
  }
}

const ids = (name: string, value: unknown): number[] =>
  Array.from(tokenIds(name, typeof value === 'number' ? [value] : value))

function readStops({ bag, options }: Call): void {
  if (bag['eos_token_id'] !== undefined) options.stopTokenIds = ids('eos_token_id', bag['eos_token_id'])
  const stop = bag['stop_strings']
  if (stop === undefined) return
  const list = typeof stop === 'string' ? [stop] : stop
  if (!Array.isArray(list) || list.length === 0 || !list.every(text => typeof text === 'string')) {
    throw invalidOption('stop_strings', stop, 'expected text or an array of texts, one at least')
  }
  options.stop = [...new Set(list as string[])]
  options.stopMatching = 'hf'
  options.includeStop = true                         // transformers leaves the stop string in the output
}

function oneId(bag: OptionBag, name: string): number {
  const [id, ...others] = ids(name, bag[name])
  if (id === undefined || others.length > 0) throw invalidOption(name, bag[name], 'expected one token id')
  return id
}

function readForced({ bag, options, dropped, promptTokens }: Call): void {
  if (bag['forced_eos_token_id'] !== undefined) options.forcedLastToken = oneId(bag, 'forced_eos_token_id')
  if (bag['forced_bos_token_id'] === undefined) return
  const first = oneId(bag, 'forced_bos_token_id')
  if (promptTokens === undefined) {
    throw invalidOption('forced_bos_token_id', first, 'works in transformers only when the prompt is one token',
      'pass { promptTokens } as the second argument, or use forcedFirstToken')
  }
  if (promptTokens === 1) options.forcedFirstToken = first
  else dropped.add('forced_bos_token_id')
}

function readFlags({ bag, options, dropped, beams }: Call): void {
  if (bag['renormalize_logits'] !== undefined) options.renormalize = flag(bag, 'renormalize_logits')
  const early = bag['early_stopping']
  if (early === undefined) return
  if (typeof early !== 'boolean' && early !== 'never') {
    throw invalidOption('early_stopping', early, "expected true, false or 'never'")
  }
  if (beams) options.earlyStopping = early
  else dropped.add('early_stopping')
}

// What transformers refuses, or does differently, only when arguments come together.
function checkTogether({ bag, options, sampling, beams }: Call): void {
  const n = options.n ?? 1
  if (n > 1 && !beams && !sampling) {
    throw invalidOption('num_return_sequences', n, 'expected 1 without do_sample and num_beams')
  }
  if (beams && n > (options.numBeams ?? 1)) {
    throw invalidOption('num_return_sequences', n, `expected at most num_beams (${options.numBeams})`)
  }
  const lookup = bag['prompt_lookup_num_tokens']
  if (lookup !== undefined && lookup !== null && !beams) {
    const reason = n > 1 ? 'is an error with num_return_sequences above 1 in transformers'
      : bag['stop_strings'] === undefined ? undefined : 'makes transformers overlook stop_strings inside a draft'
    if (reason !== undefined) throw invalidOption('prompt_lookup_num_tokens', lookup, reason)
  }
  if (bag['suppress_tokens'] === undefined) return
  const suppressed = new Set(ids('suppress_tokens', bag['suppress_tokens']))
  for (const [name, forced] of [
    ['forced_eos_token_id', options.forcedLastToken], ['forced_bos_token_id', options.forcedFirstToken],
  ] as const) {
    if (forced !== undefined && suppressed.has(forced)) {
      throw invalidOption(name, forced, 'is in suppress_tokens, which leaves no token at all')
    }
  }
}

// The check of generate itself, but for what depends on the model. Its refusal names the argument.
function checkOptions({ bag, options }: Call): void {
  try {
    checkGenerate(options, {
      vocabSize: tokenLimit, stopTokenIds: [], compat: 'hf-4.55', hasTokenizer: true,
      encodeContinuation: () => new Int32Array(0),
    })
  } catch (e) {
    if (!isPolyLMError(e)) throw e
    const option = e['option']
    const name = translated.find(([argument, { becomes }]) =>
      bag[argument] !== undefined && becomes.some(each => each === option))?.[0]
    if (name === undefined) throw e
    throw invalidOption(name, bag[name], `${String(e['reason'])}, as ${String(option)}`, e.hint)
  }
}

/** Given options that no keyword arguments of transformers stand for; for `explain`. */
export function notInHuggingFace(given: Readonly<Record<string, unknown>>): string[] {
  const beams = typeof given['numBeams'] === 'number' && given['numBeams'] > 1
  const missing: Readonly<Record<string, boolean>> = {
    presencePenalty: (given['presencePenalty'] ?? 0) !== 0,
    frequencyPenalty: (given['frequencyPenalty'] ?? 0) !== 0,
    allow: given['allow'] !== undefined,
    forcedFirstToken: given['forcedFirstToken'] !== undefined,
    padTo: given['padTo'] !== undefined,
    stop: given['stop'] !== undefined && given['stopMatching'] !== 'hf',
    beamScoring: beams && given['beamScoring'] === 'hf-4.31',
  }
  return Object.keys(missing).filter(name => missing[name])
}

/** Checked options as the keyword arguments that make transformers do the same; for `explain`. */
export function toHuggingFace(
  given: Readonly<Record<string, unknown>>, stopTokenIds: readonly number[], maxTokens: number,
): Record<string, unknown> {
  const number = (name: string, off: number): number => (typeof given[name] === 'number' ? given[name] : off)
  const sampling = number('temperature', 0) > 0
  const beams = number('numBeams', 1)
  const kwargs: Record<string, unknown> = { do_sample: sampling, max_new_tokens: maxTokens }
  const put = (name: string, value: unknown, off: unknown): void => { if (value !== off) kwargs[name] = value }
  if (sampling) {
    kwargs['temperature'] = number('temperature', 0)
    kwargs['top_k'] = number('topK', 0)
    put('top_p', number('topP', 1), 1)
    put('min_p', number('minP', 0), 0)
    put('typical_p', number('typicalP', 1), 1)
    put('epsilon_cutoff', number('epsilonCutoff', 0), 0)
    put('eta_cutoff', number('etaCutoff', 0), 0)
  }
  put('num_beams', beams, 1)
  put('num_return_sequences', number('n', 1), 1)
  if (beams > 1) {
    kwargs['early_stopping'] = given['earlyStopping'] ?? false
    kwargs['length_penalty'] = number('lengthPenalty', 1)
  }
  put('min_new_tokens', number('minTokens', 0), 0)
  put('repetition_penalty', number('repetitionPenalty', 1), 1)
  put('no_repeat_ngram_size', number('noRepeatNgramSize', 0), 0)
  put('forced_eos_token_id', given['forcedLastToken'], undefined)
  put('renormalize_logits', given['renormalize'] ?? false, false)
  kwargs['eos_token_id'] = stopTokenIds.length === 1 ? stopTokenIds[0] : [...stopTokenIds]
  const bias = given['bias'] as GenerateOptions['bias']
  const spared = new Set(Array.from((given['biasSparesStops'] ?? []) as ArrayLike<number>))
  const rules = (bias ?? []).map(([target, value]) =>
    [typeof target === 'number' ? [target] : Array.from(target), value] as const)
  const counting = rules.filter(([[id, ...rest], value]) =>
    value !== -Infinity || id === undefined || rest.length > 0 || !spared.has(id) || !stopTokenIds.includes(id))
  if (counting.length > 0) kwargs['sequence_bias'] = counting
  const stop = given['stop']
  if (stop !== undefined && given['stopMatching'] === 'hf') {
    kwargs['stop_strings'] = typeof stop === 'string' ? [stop] : stop
  }
  return kwargs
}
