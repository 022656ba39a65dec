// hugging-face.ts: the keyword arguments of transformers' generate() as options of ours and back. Pure.
// Trap: what changes the output and has no counterpart here is refused; what cannot change it is listed
// as dropped. Nothing is ignored in silence.
import { PolyLMError } from './errors.js'
import type { GenerateOptions } from './options.js'
import { nearest, readBag, readIds, show } from './option-reader.js'
import type { OptionBag } from './option-reader.js'
import { reading } from './untrusted.js'

/** Options of {@link fromHuggingFace}. */
export interface FromHuggingFaceContext {
  /** Length of the prompt; needed for `max_length` and `min_length`, which count it. */
  readonly promptTokens?: number | undefined
}

/** What {@link fromHuggingFace} gives. */
export interface FromHuggingFaceResult {
  readonly options: GenerateOptions
  /** Arguments that have no effect on the output. */
  readonly dropped: readonly string[]
}

type Mutable = { -readonly [K in keyof GenerateOptions]: GenerateOptions[K] }

function refused(name: string, value: unknown, reason: string, hint?: string): PolyLMError {
  return new PolyLMError('INVALID_OPTION', `${name}: found ${show(value)}, ${reason}`, {
    option: name, value, reason, ...(hint === undefined ? {} : { hint }),
  })
}

// name -> option, copied when it is a number in any range (our own check says the range).
const numbers: Readonly<Record<string, keyof GenerateOptions>> = {
  max_new_tokens: 'maxTokens', min_new_tokens: 'minTokens', num_beams: 'numBeams', num_return_sequences: 'n',
  length_penalty: 'lengthPenalty', repetition_penalty: 'repetitionPenalty',
  no_repeat_ngram_size: 'noRepeatNgramSize', forced_bos_token_id: 'forcedFirstToken',
}
// The same for sampling only.
const warpers: Readonly<Record<string, keyof GenerateOptions>> = {
  temperature: 'temperature', top_k: 'topK', top_p: 'topP', min_p: 'minP', typical_p: 'typicalP',
  epsilon_cutoff: 'epsilonCutoff', eta_cutoff: 'etaCutoff',
}
const special = [
  'do_sample', 'max_length', 'min_length', 'early_stopping', 'eos_token_id', 'bad_words_ids', 'sequence_bias',
  'suppress_tokens', 'forced_eos_token_id', 'renormalize_logits', 'stop_strings',
] as const
// They change nothing in what is generated here.
const harmless = [
  'use_cache', 'pad_token_id', 'bos_token_id', 'output_scores', 'output_logits', 'output_attentions',
  'output_hidden_states', 'return_dict_in_generate', 'return_legacy_result', 'synced_gpus', 'remove_invalid_values',
  'low_memory', 'cache_implementation', 'cache_config', 'max_matching_ngram_size', 'decoder_start_token_id',
  'transformers_version', '_from_model_config', 'attention_mask', 'disable_compile', 'trust_remote_code',
  'assistant_early_exit', 'num_assistant_tokens', 'num_assistant_tokens_schedule', 'prompt_lookup_num_tokens',
  'encoder_repetition_penalty', 'encoder_no_repeat_ngram_size',
] as const
// They would change the output and are not here: refused unless they have this value (or null).
const neutral: Readonly<Record<string, unknown>> = {
  num_beam_groups: 1, diversity_penalty: 0, penalty_alpha: 0, guidance_scale: 1, begin_suppress_tokens: undefined,
  force_words_ids: undefined, constraints: undefined, exponential_decay_length_penalty: undefined,
  prefix_allowed_tokens_fn: undefined, logits_processor: undefined, stopping_criteria: undefined,
  assistant_model: undefined, max_time: undefined, watermarking_config: undefined, dola_layers: undefined,
  forced_decoder_ids: undefined, token_healing: false, top_h: undefined,
}
const known: ReadonlySet<string> = new Set([
  ...Object.keys(numbers), ...Object.keys(warpers), ...special, ...harmless, ...Object.keys(neutral),
])

/**
 * Options for `generate` that do what transformers does with these keyword arguments. Sampling without
 * `top_k` becomes `topK: 50`, transformers' silent default. `max_length` becomes `maxTokens` by taking
 * the prompt off; without either of the two the default of this package stays, not transformers' 20.
 * `eos_token_id: null` leaves the model's own stop tokens, as transformers does.
 *
 * @throws PolyLMError INVALID_OPTION for an unknown argument, or one that would change the output and
 * has no counterpart.
 * @example
 * const { options } = fromHuggingFace({ num_beams: 4, max_length: 128, early_stopping: true }, { promptTokens: 19 })
 */
export function fromHuggingFace(
  kwargs: Readonly<Record<string, unknown>>, context: FromHuggingFaceContext = {},
): FromHuggingFaceResult {
  return reading('INVALID_OPTION', 'kwargs', () => translate(kwargs, context))
}

function translate(kwargs: Readonly<Record<string, unknown>>, context: FromHuggingFaceContext): FromHuggingFaceResult {
  const bag = withoutNull(readKwargs(kwargs))
  const dropped: string[] = []
  const options: Mutable = {}
  const put = options as Record<string, unknown>
  for (const [name, option] of Object.entries(numbers)) {
    if (bag[name] !== undefined) put[option] = number(bag, name)
  }
  readSampling(bag, put, dropped)
  readLengths(bag, put, context, dropped)
  readStops(bag, options)
  readBans(bag, options)
  if (bag['renormalize_logits'] !== undefined) options.renormalize = flag(bag, 'renormalize_logits')
  readBeams(bag, options, dropped)
  for (const name of harmless) if (Object.hasOwn(kwargs, name)) dropped.push(name)
  for (const [name, off] of Object.entries(neutral)) {
    if (bag[name] === undefined) continue
    if (bag[name] !== off) throw refused(name, bag[name], 'not supported')
    dropped.push(name)
  }
  return { options, dropped }
}

function readKwargs(kwargs: unknown): OptionBag {
  try {
    return readBag(kwargs, known, 'transformers\' generate')
  } catch (e) {
    const name = e instanceof PolyLMError && e['reason'] === 'unknown' ? String(e['option']) : undefined
    if (name === undefined) throw e
    const meant = nearest(name, known)
    throw refused(name, e instanceof PolyLMError ? e['value'] : undefined, 'is not an argument that is known here',
      meant === undefined ? undefined : `did you mean ${meant}?`)
  }
}

function withoutNull(bag: OptionBag): OptionBag {
  const rest: Record<string, unknown> = Object.create(null) as Record<string, unknown>
  for (const name of Object.keys(bag)) if (bag[name] !== null) rest[name] = bag[name]
  return rest
}

function number(bag: OptionBag, name: string): number {
  const value = bag[name]
  if (typeof value === 'number' && Number.isFinite(value)) return value
  throw refused(name, value, 'expected a number')
}

function flag(bag: OptionBag, name: string): boolean {
  const value = bag[name]
  if (typeof value === 'boolean') return value
  throw refused(name, value, 'expected true or false')
}

function readSampling(bag: OptionBag, put: Record<string, unknown>, dropped: string[]): void {
  const sampling = bag['do_sample'] !== undefined && flag(bag, 'do_sample')
  for (const [name, option] of Object.entries(warpers)) {
    if (bag[name] === undefined) continue
    const value = number(bag, name)
    if (!sampling) {
      dropped.push(name)
    } else if (name === 'temperature' && value <= 0) {
      throw refused(name, value, 'expected a number above 0')
    } else {
      put[option] = value
    }
  }
  if (!sampling) return
  put['temperature'] ??= 1
  put['topK'] ??= 50
  if (typeof put['numBeams'] === 'number' && put['numBeams'] > 1) put['sampleBeams'] = true
}

function readLengths(
  bag: OptionBag, put: Record<string, unknown>, context: FromHuggingFaceContext, dropped: string[],
): void {
  const { promptTokens } = context
  for (const [name, option] of [['max_length', 'maxTokens'], ['min_length', 'minTokens']] as const) {
    if (bag[name] === undefined) continue
    const total = number(bag, name)
    if (put[option] !== undefined) {
      dropped.push(name)                             // max_new_tokens wins, as in transformers
    } else if (promptTokens === undefined) {
      if (name === 'min_length' && total === 0) dropped.push(name)
      else throw refused(name, total, 'counts the prompt', 'pass { promptTokens } as the second argument')
    } else if (name === 'max_length') {
      put[option] = Math.max(1, total - promptTokens)  // transformers generates one token at least
    } else {
      put[option] = Math.max(0, total - promptTokens)
    }
  }
}

const tokenLimit = 2 ** 31 - 1

function ids(name: string, value: unknown): number[] {
  const list = typeof value === 'number' ? [value] : value
  return Array.from(readIds(list, tokenLimit, reason => refused(name, value, reason)))
}

function readStops(bag: OptionBag, options: Mutable): void {
  if (bag['eos_token_id'] !== undefined) options.stopTokenIds = ids('eos_token_id', bag['eos_token_id'])
  const stop = bag['stop_strings']
  if (stop !== undefined) {
    const list = typeof stop === 'string' ? [stop] : stop
    if (!Array.isArray(list) || !list.every(text => typeof text === 'string')) {
      throw refused('stop_strings', stop, 'expected text or an array of texts')
    }
    options.stop = list as string[]
    options.includeStop = true                       // transformers leaves the stop string in the output
  }
  const last = bag['forced_eos_token_id']
  if (last !== undefined) {
    const [id, ...others] = ids('forced_eos_token_id', last)
    if (id === undefined || others.length > 0) throw refused('forced_eos_token_id', last, 'expected one token id')
    options.forcedLastToken = id
  }
}

function readBans(bag: OptionBag, options: Mutable): void {
  const rules: Array<readonly [number | readonly number[], number]> = []
  const eos = options.stopTokenIds === undefined ? [] : Array.from(options.stopTokenIds)
  const words = bag['bad_words_ids']
  if (words !== undefined) {
    if (!Array.isArray(words)) throw refused('bad_words_ids', words, 'expected an array of arrays of token ids')
    for (const word of words as unknown[]) {
      const list = ids('bad_words_ids', word)
      // transformers leaves the end-of-sequence token out of the banned words.
      if (!(list.length === 1 && eos.includes(list[0] ?? -1))) rules.push([list, -Infinity])
    }
  }
  if (bag['suppress_tokens'] !== undefined) {
    for (const id of ids('suppress_tokens', bag['suppress_tokens'])) rules.push([id, -Infinity])
  }
  const bias = bag['sequence_bias']
  if (bias !== undefined) {
    if (!Array.isArray(bias)) throw refused('sequence_bias', bias, 'expected an array of [token ids, number]')
    for (const rule of bias as unknown[]) {
      if (!Array.isArray(rule) || rule.length !== 2 || typeof rule[1] !== 'number') {
        throw refused('sequence_bias', rule, 'expected [token ids, number]')
      }
      rules.push([ids('sequence_bias', rule[0]), rule[1]])
    }
  }
  if (rules.length > 0) options.bias = rules
}

function readBeams(bag: OptionBag, options: Mutable, dropped: string[]): void {
  const early = bag['early_stopping']
  if (early === undefined) return
  if (typeof early !== 'boolean' && early !== 'never') {
    throw refused('early_stopping', early, "expected true, false or 'never'")
  }
  if ((options.numBeams ?? 1) > 1) options.earlyStopping = early
  else dropped.push('early_stopping')
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
  put('forced_bos_token_id', given['forcedFirstToken'], undefined)
  put('forced_eos_token_id', given['forcedLastToken'], undefined)
  put('renormalize_logits', given['renormalize'] ?? false, false)
  kwargs['eos_token_id'] = stopTokenIds.length === 1 ? stopTokenIds[0] : [...stopTokenIds]
  const bias = given['bias'] as GenerateOptions['bias']
  if (bias !== undefined && bias.length > 0) {
    kwargs['sequence_bias'] = bias.map(([target, value]) =>
      [typeof target === 'number' ? [target] : Array.from(target), value])
  }
  const stop = given['stop']
  if (stop !== undefined) kwargs['stop_strings'] = typeof stop === 'string' ? [stop] : stop
  return kwargs
}
