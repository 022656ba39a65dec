// hugging-face.test.ts: transformers' keyword arguments in, our options out, and the way back.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import fc from 'fast-check'
import { isPolyLMError } from '../../lib/errors.js'
import { fromHuggingFace, notInHuggingFace, toHuggingFace } from '../../lib/hugging-face.js'
import { huggingFaceTable } from '../../lib/hugging-face-table.js'
import { checkGenerate, type OptionContext } from '../../lib/generate-options.js'

const context: OptionContext = {
  vocabSize: 256_000, stopTokenIds: [255_999, 2], compat: 'hf-4.31', hasTokenizer: true,
  encodeContinuation: () => new Int32Array(1),
}

test('the call of PolyLM\'s README', () => {
  const { options, dropped } = fromHuggingFace(
    { do_sample: false, num_beams: 4, max_length: 128, early_stopping: true }, { promptTokens: 19 })
  expect(options).toEqual({ numBeams: 4, maxTokens: 109, earlyStopping: true })
  expect(dropped).toEqual([])
})

test('the call of PolyLM\'s web demonstration: top_k 50 applies silently', () => {
  const { options, dropped } = fromHuggingFace({
    do_sample: true, top_p: 0.8, temperature: 0.7, repetition_penalty: 1.02, max_length: 1024, num_return_sequences: 1,
    eos_token_id: 2, early_stopping: true,
  }, { promptTokens: 24 })
  expect(options).toEqual({
    temperature: 0.7, topP: 0.8, topK: 50, repetitionPenalty: 1.02, maxTokens: 1000, n: 1, stopTokenIds: [2],
  })
  expect(dropped).toEqual(['early_stopping'])
})

const twenty = { maxTokens: 20 }

test.each<[string, Record<string, unknown>, Record<string, unknown>]>([
  ['greedy: 20 tokens, as in transformers', {}, twenty],
  ['sampling with the default temperature', { do_sample: true, top_k: 5 }, { ...twenty, temperature: 1, topK: 5 }],
  ['top_k 0 is off', { do_sample: true, top_k: 0 }, { ...twenty, temperature: 1, topK: 0 }],
  ['top_k None is off too, not 50', { do_sample: true, top_k: null }, { ...twenty, temperature: 1, topK: 0 }],
  ['other Nones are off', { do_sample: true, temperature: null, top_p: null, min_p: null }, { ...twenty, temperature: 1, topK: 50 }],
  ['sampling beams', { do_sample: true, num_beams: 3 },
    { ...twenty, temperature: 1, topK: 50, numBeams: 3, sampleBeams: true }],
  ['do_sample None is greedy', { do_sample: null, top_k: 5 }, twenty],
  ['max_new_tokens wins', { max_new_tokens: 5, max_length: 100 }, { maxTokens: 5 }],
  ['max_length None beside max_new_tokens', { max_new_tokens: 5, max_length: null }, { maxTokens: 5 }],
  ['several ends', { eos_token_id: [2, 255_999] }, { ...twenty, stopTokenIds: [2, 255_999] }],
  ['eos_token_id None never ends', { eos_token_id: null }, { ...twenty, stopTokenIds: [] }],
  ['banned words, but not the end', { bad_words_ids: [[5], [6, 7], [2]], eos_token_id: 2 },
    { ...twenty, stopTokenIds: [2], bias: [[[5], -Infinity], [[6, 7], -Infinity]] }],
  ['banned words twice', { bad_words_ids: [[5, 6], [5, 6]] }, { ...twenty, bias: [[[5, 6], -Infinity]] }],
  ['banned words where the end is the model\'s', { bad_words_ids: [[5], [6, 7], [5]] },
    { ...twenty, bias: [[[5], -Infinity], [[6, 7], -Infinity]], biasSparesStops: [5] }],
  ['banned and suppressed', { bad_words_ids: [[5], [6]], suppress_tokens: [6, 7, 7] },
    { ...twenty, bias: [[[5], -Infinity], [[6], -Infinity], [7, -Infinity]], biasSparesStops: [5] }],
  ['suppressed and biased', { suppress_tokens: [1, 2], sequence_bias: [[[3, 4], -2.5]] },
    { ...twenty, bias: [[1, -Infinity], [2, -Infinity], [[3, 4], -2.5]] }],
  ['a ban outweighs a bias', { suppress_tokens: [1], sequence_bias: [[[1], 9]] }, { ...twenty, bias: [[1, -Infinity]] }],
  ['of equal biases the last', { sequence_bias: [[[3], 1], [[3], 2]] }, { ...twenty, bias: [[[3], 2]] }],
  ['nothing suppressed', { suppress_tokens: [] }, twenty],
  ['forced end', { forced_eos_token_id: [2] }, { ...twenty, forcedLastToken: 2 }],
  ['stop strings, as transformers matches them', { stop_strings: ['x', 'y', 'x'] },
    { ...twenty, stop: ['x', 'y'], stopMatching: 'hf', includeStop: true }],
  ['the rest of the warpers', { do_sample: true, min_p: 0.1, typical_p: 0.9, epsilon_cutoff: 3e-4, eta_cutoff: 1e-3 },
    { ...twenty, temperature: 1, topK: 50, minP: 0.1, typicalP: 0.9, epsilonCutoff: 3e-4, etaCutoff: 1e-3 }],
  ['warpers that transformers leaves out', { do_sample: true, top_p: 1.5, typical_p: 2, epsilon_cutoff: 1, eta_cutoff: -1 },
    { ...twenty, temperature: 1, topK: 50 }],
  ['penalties', { repetition_penalty: 1.2, no_repeat_ngram_size: 3, length_penalty: 0.5, min_new_tokens: 4, renormalize_logits: true },
    { ...twenty, repetitionPenalty: 1.2, noRepeatNgramSize: 3, lengthPenalty: 0.5, minTokens: 4, renormalize: true }],
  ['a minimum above the maximum bans the end to the last token', { min_new_tokens: 50 }, { ...twenty, minTokens: 20 }],
])('%s', (_, kwargs, options) => {
  expect(fromHuggingFace(kwargs).options).toEqual(options)
  expect(() => checkGenerate(fromHuggingFace(kwargs).options, context)).not.toThrow()
})

test('what has no effect is named', () => {
  expect(fromHuggingFace({ temperature: 0.7, top_k: 50, use_cache: true, pad_token_id: 0, num_beam_groups: 1 }).dropped)
    .toEqual(['temperature', 'top_k', 'use_cache', 'pad_token_id', 'num_beam_groups'])
  expect(fromHuggingFace({ early_stopping: true, attention_mask: [[1, 1, 1]], num_beam_groups: null, min_length: 0 }).dropped)
    .toEqual(['early_stopping', 'attention_mask', 'num_beam_groups', 'min_length'])
})

test('lengths that count the prompt', () => {
  const promptTokens = 25
  expect(fromHuggingFace({ min_length: 30, max_length: 40 }, { promptTokens }).options).toEqual({ minTokens: 5, maxTokens: 15 })
  expect(fromHuggingFace({ min_length: 20, max_length: 26 }, { promptTokens }).options).toEqual({ minTokens: 0, maxTokens: 1 })
  for (const total of [25, 24, 0, -1]) {
    expect(() => fromHuggingFace({ max_length: total }, { promptTokens })).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION', option: 'max_length', reason: 'expected more than the 25 tokens of the prompt' }))
  }
  expect(() => fromHuggingFace({ max_length: 20 })).toThrow(expect.objectContaining({ code: 'INVALID_OPTION', option: 'max_length' }))
  expect(() => fromHuggingFace({ min_length: 20 })).toThrow(/counts the prompt/)
  for (const wrong of [0, -1, 1.5, NaN, '5', null]) {
    expect(() => fromHuggingFace({}, { promptTokens: wrong as number })).toThrow(expect.objectContaining({ option: 'promptTokens' }))
  }
})

test('forced_bos_token_id works in transformers when the prompt is one token, and only then', () => {
  expect(fromHuggingFace({ forced_bos_token_id: 7 }, { promptTokens: 1 }).options).toEqual({ ...twenty, forcedFirstToken: 7 })
  expect(fromHuggingFace({ forced_bos_token_id: 7 }, { promptTokens: 2 })).toEqual({ options: twenty, dropped: ['forced_bos_token_id'] })
  expect(() => fromHuggingFace({ forced_bos_token_id: 7 })).toThrow(expect.objectContaining({ option: 'forced_bos_token_id' }))
})

test.each<Record<string, unknown>>([
  { num_beam_groups: 2 }, { penalty_alpha: 0.6 }, { guidance_scale: 1.5 }, { constraints: [] }, { max_time: 5 },
  { begin_suppress_tokens: [1] }, { exponential_decay_length_penalty: [1, 2] }, { do_sample: 'yes' }, { top_k: '5', do_sample: true },
  { eos_token_id: 'x' }, { eos_token_id: -1 }, { forced_eos_token_id: [1, 2] }, { stop_strings: 5 }, { bad_words_ids: 5 },
  { sequence_bias: { a: 1 } }, { early_stopping: 1, num_beams: 2 }, { do_sample: true, temperature: 0 }, { num_beams: NaN },
  { do_sample: true, typical_p: 0 }, { do_sample: true, top_p: -0.1 }, { do_sample: true, min_p: 1.5 }, { do_sample: true, top_k: -1 },
  { num_return_sequences: 2 }, { num_return_sequences: 3, num_beams: 2 }, { num_return_sequences: null }, { num_beams: null },
  { num_beams: 2, length_penalty: null }, { num_beams: 2, num_beam_groups: null }, { early_stopping: null }, { max_length: null },
  { max_new_tokens: 0 }, { max_new_tokens: 2.5 }, { repetition_penalty: 0 }, { bad_words_ids: [] }, { bad_words_ids: [[]] },
  { bad_words_ids: [[2]], eos_token_id: [2] }, { sequence_bias: [] }, { sequence_bias: [[[], 1]] }, { sequence_bias: [[[1], NaN]] },
  { sequence_bias: [[[1], 3]], bad_words_ids: [[1]] }, { stop_strings: [] }, { stop_strings: [''] }, { stop_strings: ['a', ''] },
  { suppress_tokens: [5], forced_eos_token_id: 5 }, { encoder_repetition_penalty: 1.1 }, { encoder_no_repeat_ngram_size: 2 },
  { attention_mask: [[0, 1]] }, { attention_mask: [[]] }, { attention_mask: [] }, { cache_implementation: 'quantized' },
  { remove_invalid_values: true }, { is_assistant: true }, { prompt_lookup_num_tokens: 3, stop_strings: 'x' },
  { prompt_lookup_num_tokens: 3, do_sample: true, num_return_sequences: 2 }, { eos_token_id: Array.from({ length: 65 }, (_, i) => i) },
])('%p would change the output, or is an error there, and is refused', kwargs => {
  expect(() => fromHuggingFace(kwargs)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
})

test('a refusal of our own check names the argument', () => {
  expect(() => fromHuggingFace({ num_beams: 1000 })).toThrow(expect.objectContaining({
    option: 'num_beams', value: 1000, message: 'num_beams: found 1000, expected an integer from 1 to 32, as numBeams',
  }))
})

test('an unknown argument is refused, with a guess', () => {
  expect(() => fromHuggingFace({ max_new_token: 5 })).toThrow(
    expect.objectContaining({ option: 'max_new_token', hint: 'did you mean max_new_tokens?' }))
  expect(() => fromHuggingFace({ maxTokens: 5 })).toThrow(/is not an argument that is known here/)
})

test('no argument that is not an object, and no object that fights back, gives another error', () => {
  const loud = { get top_k(): number { throw new Error('no') } }
  const list = new Proxy([], { get() { throw new Error('no') } })
  for (const [kwargs, second] of [[null], [5], [[]], ['x'], [loud], [{ bad_words_ids: [list] }], [{ attention_mask: list }], [{},
    null]]) {
    expect(() => fromHuggingFace(kwargs as Record<string, unknown>,
      second as object)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
  }
  expect(fromHuggingFace(undefined as unknown as Record<string, unknown>).options).toEqual(twenty)
})

// ------------------------------------------------------------------------------------------------ the whole table

/**
 * Every field of GenerationConfig (transformers 4.55 and 4.57), parameter of generate() and of GPT-2's forward(): a
 * value that changes nothing, and one that may.
 */
const everyArgument: Readonly<Record<string, readonly [unknown, unknown]>> = {
  max_length: [undefined, 50], max_new_tokens: [null, 5], min_length: [0, 30], min_new_tokens: [null, 3], early_stopping: [false, true],
  max_time: [null, 2], stop_strings: [null, ['a']], do_sample: [false, true], num_beams: [1, 2], use_cache: [true, false],
  cache_implementation: [null, 'quantized'], cache_config: [null, { nbits: 4 }], return_legacy_cache: [null, true],
  prefill_chunk_size: [null, 64], temperature: [1, 0.5], top_k: [50, 3], top_p: [1, 0.5], min_p: [null, 0.1], typical_p: [1, 0.5],
  epsilon_cutoff: [0, 0.1], eta_cutoff: [0, 0.1], repetition_penalty: [1, 1.5], encoder_repetition_penalty: [1, 1.5],
  length_penalty: [1, 2], no_repeat_ngram_size: [0, 3], bad_words_ids: [null, [[5]]], renormalize_logits: [false, true],
  forced_bos_token_id: [null, 5], forced_eos_token_id: [null, 5], remove_invalid_values: [false, true],
  exponential_decay_length_penalty: [null, [5, 1.1]], suppress_tokens: [null, [5]], begin_suppress_tokens: [null, [5]],
  sequence_bias: [null, [[[5], 1]]], token_healing: [false, true], guidance_scale: [null, 2],
  watermarking_config: [null, { bias: 2 }], num_return_sequences: [1, 2], output_attentions: [false, true],
  output_hidden_states: [false, true], output_scores: [false, true], output_logits: [null, true],
  return_dict_in_generate: [false, true], pad_token_id: [null, 0], bos_token_id: [null, 1], eos_token_id: [undefined, 7],
  encoder_no_repeat_ngram_size: [0, 2], decoder_start_token_id: [null, 1], is_assistant: [false, true], num_assistant_tokens: [20, 5],
  num_assistant_tokens_schedule: ['constant', 'heuristic'], assistant_confidence_threshold: [0.4, 0.9],
  prompt_lookup_num_tokens: [null, 3], max_matching_ngram_size: [null, 2], assistant_early_exit: [null, 4],
  assistant_lookbehind: [10, 5], target_lookbehind: [10, 5], compile_config: [null, {}], disable_compile: [false, true],
  low_memory: [null, true], penalty_alpha: [0, 0.6], dola_layers: [null, 'low'], diversity_penalty: [0, 1], num_beam_groups: [1, 2],
  constraints: [null, []], force_words_ids: [null, [[5]]], forced_decoder_ids: [null, [[1, 5]]], generation_kwargs: [{}, { a: 1 }],
  _from_model_config: [false, true], _commit_hash: [null, 'abc'], transformers_version: ['4.57.6', '4.31.0'],
  inputs: [null, [[1]]], input_ids: [null, [[1]]], inputs_embeds: [null, [[[1]]]], generation_config: [null, { top_k: 1 }],
  logits_processor: [[], [() => 0]], stopping_criteria: [[], [() => 0]], prefix_allowed_tokens_fn: [null, () => [1]],
  synced_gpus: [null, true], assistant_model: [null, {}], streamer: [null, {}], negative_prompt_ids: [null, [[1]]],
  negative_prompt_attention_mask: [null, [[1]]], use_model_defaults: [null, true], custom_generate: [null, 'a/b'],
  tokenizer: [null, {}], assistant_tokenizer: [null, {}], trust_remote_code: [null, true], attention_mask: [[[1, 1]], [[0, 1]]],
  position_ids: [null, [[0]]], cache_position: [null, [0]], token_type_ids: [null, [[0, 0]]], head_mask: [null, [1]],
  past_key_values: [null, []], encoder_hidden_states: [null, []], encoder_attention_mask: [null, []], labels: [null, [1]],
  logits_to_keep: [0, 1],
}

test('the table has every argument, and no other', () => {
  expect(Object.keys(huggingFaceTable).sort()).toEqual(Object.keys(everyArgument).sort())
})

test('docs/decoding.md names every argument', () => {
  const guide = readFileSync(path.join(__dirname, '../../docs/decoding.md'), 'utf8')
  const named = new Set([...guide.matchAll(/`(\w+)(=\w+)?`/g)].map(([, name]) => name))
  expect(Object.keys(huggingFaceTable).filter(name => !named.has(name))).toEqual([])
})

// What an argument needs beside it to be a whole call.
const beside: Readonly<Record<string, Record<string, unknown>>> = {
  num_return_sequences: { num_beams: 2 }, early_stopping: { num_beams: 2 }, length_penalty: { num_beams: 2 },
  ...Object.fromEntries(['temperature', 'top_k', 'top_p', 'min_p', 'typical_p', 'epsilon_cutoff', 'eta_cutoff']
    .map(name => [name, { do_sample: true }])),
}

test.each(Object.entries(everyArgument))('%s', (name, [neutral, effective]) => {
  const with_ = (value: unknown, others: object = beside[name] ?? {}): ReturnType<typeof fromHuggingFace> =>
    fromHuggingFace({ ...others, [name]: value }, { promptTokens: 1 })
  const row = huggingFaceTable[name]
  if (row === undefined) throw new Error('no such row')
  const without = fromHuggingFace(beside[name] ?? {}, { promptTokens: 1 }).options
  if ('dropped' in row) {
    for (const value of [neutral, effective, null]) expect(with_(value)).toEqual({ options: without, dropped: [name] })
  } else if ('refused' in row) {
    for (const value of [neutral, null]) expect(with_(value)).toEqual({ options: without, dropped: [name] })
    expect(() => with_(effective)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION', option: name, value: effective }))
  } else {
    const off = checkGenerate(with_(neutral).options, context).params
    expect({ ...off, seed: 0 }).toEqual({ ...checkGenerate(without, context).params, seed: 0 })
    const { options } = with_(effective)
    expect(options).not.toEqual(without)
    const changed = Object.keys(options).filter(key => !Object.is(options[key as 'topK'], without[key as 'topK']))
    for (const option of changed) expect(row.becomes).toContain(option)
    if (row.only !== undefined) expect(with_(effective, {})).toEqual({ options: twenty, dropped: [name] })
  }
})

const anyValue = fc.oneof(
  fc.constantFrom<unknown>(null, true, false, 0, 1, 2, 5, -1, 0.5, 1.5, '', 'x', [], [1], [[1]], [[1, 2], [3], [1, 2]], [[[1], 2]]),
  fc.nat(300), fc.double({ min: -2, max: 2, noNaN: true }), fc.array(fc.nat(300), { maxLength: 20 }),
  fc.array(fc.array(fc.nat(300), { maxLength: 3 }), { maxLength: 9 }),
  fc.array(fc.tuple(fc.array(fc.nat(300), { maxLength: 3 }), fc.double({ min: -9, max: 9, noNaN: true })), { maxLength: 9 }),
)
// Values of the right kind most of the time, or hardly a call would get through.
const likely: Readonly<Record<string, fc.Arbitrary<unknown>>> = {
  max_new_tokens: fc.integer({ min: 1, max: 40 }), max_length: fc.integer({ min: 1, max: 60 }), min_new_tokens: fc.nat(60),
  min_length: fc.nat(60), num_beams: fc.integer({ min: 1, max: 5 }), num_return_sequences: fc.integer({ min: 1, max: 4 }),
  do_sample: fc.boolean(), eos_token_id: fc.oneof(fc.nat(300), fc.array(fc.nat(300), { maxLength: 4 })),
  bad_words_ids: fc.array(fc.array(fc.nat(9), { minLength: 1, maxLength: 2 }), { minLength: 1, maxLength: 9 }),
  suppress_tokens: fc.array(fc.nat(500), { maxLength: 400 }), stop_strings: fc.array(fc.string({ minLength: 1 }), { minLength: 1,
    maxLength: 12 }),
  sequence_bias: fc.array(
    fc.tuple(fc.array(fc.nat(9), { minLength: 1, maxLength: 2 }), fc.double({ min: -9, max: 9, noNaN: true })), { minLength: 1,
      maxLength: 9 }),
  forced_eos_token_id: fc.nat(300), repetition_penalty: fc.double({ min: 0.5, max: 2, noNaN: true }),
}
const call = fc.record(Object.fromEntries(Object.entries(everyArgument).map(([name, [neutral, effective]]) => [
  name, fc.oneof({ weight: 6, arbitrary: likely[name] ?? fc.constantFrom(neutral, null) }, { weight: 1, arbitrary: anyValue },
    { weight: 1, arbitrary: fc.constant(effective) }),
])), { requiredKeys: [] })
// A few arguments at a time.
const fewArguments = fc.tuple(call, fc.shuffledSubarray(Object.keys(everyArgument), { maxLength: 9 })).map(([all, names]) =>
  Object.fromEntries(names.filter(name => name in all).map(name => [name, all[name as 'top_k']])))

test('whatever the arguments, generate takes the options, or there is a typed error', () => {
  let accepted = 0
  fc.assert(fc.property(fewArguments, fc.option(fc.integer({ min: 1, max: 30 }), { nil: undefined }), (kwargs, promptTokens) => {
    let options
    try {
      ({ options } = fromHuggingFace(kwargs, { promptTokens }))
    } catch (e) {
      expect(isPolyLMError(e, 'INVALID_OPTION')).toBe(true)
      return
    }
    accepted++
    checkGenerate(options, context)
  }), { numRuns: 1000 })
  expect(accepted).toBeGreaterThan(100)
})

test('as many suppressed tokens as there are: 10,000, or the whole vocabulary but one', () => {
  for (const count of [301, 10_000, 255_999]) {
    const { options } = fromHuggingFace({ suppress_tokens: Array.from({ length: count }, (_, i) => i) })
    const { params } = checkGenerate(options, context)
    expect(params.biasIds).toHaveLength(count)
    expect(params.biasAmounts.every(value => value === -Infinity)).toBe(true)
    expect(params.biasTokens).toHaveLength(0)
  }
})

test('back: the keyword arguments of checked options', () => {
  expect(toHuggingFace({ temperature: 0.7, topK: 40 }, [2], 10)).toEqual({
    do_sample: true, max_new_tokens: 10, temperature: 0.7, top_k: 40, eos_token_id: 2,
  })
  expect(toHuggingFace({ numBeams: 4, n: 2, earlyStopping: true, bias: [[5, -Infinity]] }, [2, 3], 10)).toEqual({
    do_sample: false, max_new_tokens: 10, num_beams: 4, num_return_sequences: 2, early_stopping: true, length_penalty: 1,
    eos_token_id: [2, 3], sequence_bias: [[[5], -Infinity]],
  })
})

test('there and back', () => {
  const kwargs = {
    do_sample: true, max_new_tokens: 9, temperature: 0.5, top_k: 7, top_p: 0.9, num_beams: 2, num_return_sequences: 2,
    early_stopping: 'never', length_penalty: 2, min_new_tokens: 1, repetition_penalty: 1.1, no_repeat_ngram_size: 2,
    renormalize_logits: true, eos_token_id: [4, 5],
  }
  const { options } = fromHuggingFace(kwargs)
  expect(toHuggingFace(options as Record<string, unknown>, options.stopTokenIds as number[], 9)).toEqual(kwargs)
})

test('back: what transformers has no argument for is named, and a spared stop token has no ban', () => {
  expect(notInHuggingFace({
    presencePenalty: 1, frequencyPenalty: 0, allow: { tokens: [1] }, padTo: { length: 9, tokenId: 0 }, stop: 'x', forcedFirstToken: 5,
    numBeams: 2, beamScoring: 'hf-4.31',
  })).toEqual(['presencePenalty', 'allow', 'forcedFirstToken', 'padTo', 'stop', 'beamScoring'])
  expect(notInHuggingFace({ topK: 5, stop: 'x', stopMatching: 'hf', presencePenalty: 0 })).toEqual([])
  expect(toHuggingFace({ stop: 'x', stopMatching: 'hf' }, [2], 5)).toHaveProperty('stop_strings', ['x'])
  expect(toHuggingFace({ stop: 'x' }, [2], 5)).not.toHaveProperty('stop_strings')
  const spared = { bias: [[2, -Infinity], [[2], -Infinity], [3, -Infinity]], biasSparesStops: [2, 3] }
  expect(toHuggingFace(spared, [2], 5)).toHaveProperty('sequence_bias', [[[3], -Infinity]])
})
