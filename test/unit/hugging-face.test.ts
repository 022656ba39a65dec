// hugging-face.test.ts: transformers' keyword arguments in, our options out, and the way back.
import { fromHuggingFace, toHuggingFace } from '../../lib/hugging-face.js'
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

test.each<[string, Record<string, unknown>, Record<string, unknown>]>([
  ['greedy', {}, {}],
  ['sampling with the default temperature', { do_sample: true, top_k: 5 }, { temperature: 1, topK: 5 }],
  ['top_k 0 is off', { do_sample: true, top_k: 0 }, { temperature: 1, topK: 0 }],
  ['sampling beams', { do_sample: true, num_beams: 3 }, { temperature: 1, topK: 50, numBeams: 3, sampleBeams: true }],
  ['max_new_tokens wins', { max_new_tokens: 5, max_length: 100 }, { maxTokens: 5 }],
  ['several ends', { eos_token_id: [2, 255_999] }, { stopTokenIds: [2, 255_999] }],
  ['null is absent', { eos_token_id: null, top_k: null, force_words_ids: null }, {}],
  ['banned words, but not the end', { bad_words_ids: [[5], [6, 7], [2]], eos_token_id: 2 },
    { stopTokenIds: [2], bias: [[[5], -Infinity], [[6, 7], -Infinity]] }],
  ['suppressed and biased', { suppress_tokens: [1, 2], sequence_bias: [[[3, 4], -2.5]] },
    { bias: [[1, -Infinity], [2, -Infinity], [[3, 4], -2.5]] }],
  ['forced tokens', { forced_bos_token_id: 1, forced_eos_token_id: [2] }, { forcedFirstToken: 1, forcedLastToken: 2 }],
  ['stop strings stay in the text', { stop_strings: 'x' }, { stop: ['x'], includeStop: true }],
  ['the rest of the warpers', { do_sample: true, min_p: 0.1, typical_p: 0.9, epsilon_cutoff: 3e-4, eta_cutoff: 1e-3 },
    { temperature: 1, topK: 50, minP: 0.1, typicalP: 0.9, epsilonCutoff: 3e-4, etaCutoff: 1e-3 }],
  ['penalties', { repetition_penalty: 1.2, no_repeat_ngram_size: 3, length_penalty: 0.5, min_new_tokens: 4, renormalize_logits: true },
    { repetitionPenalty: 1.2, noRepeatNgramSize: 3, lengthPenalty: 0.5, minTokens: 4, renormalize: true }],
])('%s', (_, kwargs, options) => {
  expect(fromHuggingFace(kwargs).options).toEqual(options)
  expect(() => checkGenerate(fromHuggingFace(kwargs).options, context)).not.toThrow()
})

test('what has no effect is named', () => {
  expect(fromHuggingFace({ temperature: 0.7, top_k: 50, use_cache: true, pad_token_id: 0, num_beam_groups: 1 }).dropped)
    .toEqual(['temperature', 'top_k', 'use_cache', 'pad_token_id', 'num_beam_groups'])
})

test('lengths: min_length and a prompt as long as max_length', () => {
  expect(fromHuggingFace({ min_length: 30, max_length: 20 }, { promptTokens: 25 }).options).toEqual({ minTokens: 5, maxTokens: 1 })
  expect(() => fromHuggingFace({ max_length: 20 })).toThrow(expect.objectContaining({ code: 'INVALID_OPTION', option: 'max_length' }))
  expect(fromHuggingFace({ min_length: 0 })).toEqual({ options: {}, dropped: ['min_length'] })
})

test.each([
  { num_beam_groups: 2 }, { penalty_alpha: 0.6 }, { guidance_scale: 1.5 }, { constraints: [] }, { max_time: 5 },
  { begin_suppress_tokens: [1] }, { exponential_decay_length_penalty: [1, 2] }, { do_sample: 'yes' }, { top_k: '5', do_sample: true },
  { eos_token_id: 'x' }, { eos_token_id: -1 }, { forced_eos_token_id: [1, 2] }, { stop_strings: 5 }, { bad_words_ids: 5 },
  { sequence_bias: { a: 1 } }, { early_stopping: 1, num_beams: 2 }, { do_sample: true, temperature: 0 }, { num_beams: NaN },
])('%p would change the output and is refused', kwargs => {
  expect(() => fromHuggingFace(kwargs)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION' }))
})

test('an unknown argument is refused, with a guess', () => {
  expect(() => fromHuggingFace({ max_new_token: 5 })).toThrow(
    expect.objectContaining({ option: 'max_new_token', hint: 'did you mean max_new_tokens?' }))
  expect(() => fromHuggingFace({ maxTokens: 5 })).toThrow(/is not an argument that is known here/)
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
