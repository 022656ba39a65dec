// hugging-face.test.ts: options that fromHuggingFace made, on a model: accepted, and doing what transformers does.
import fc from 'fast-check'
import { fromHuggingFace, isPolyLMError } from '../../lib/index.js'
import type { Model } from '../../lib/index.js'
import { example, failure, loadDemo } from './models.js'

let demo: Model
beforeAll(async () => { demo = await loadDemo() })
afterAll(async () => { await demo.dispose() })

const tokensOf = async (options: object): Promise<number[]> =>
  Array.from((await demo.generate(example, options)).outputs[0]?.tokens ?? [])

describe('suppress_tokens', () => {
  test.each([1, 3])('the whole vocabulary but one, %d beams', async beams => {
    const all = Array.from({ length: demo.info.vocabSize }, (_, i) => i)
    const kwargs = { suppress_tokens: all.filter(id => id !== 77), max_new_tokens: 4, num_beams: beams }
    expect(await tokensOf(fromHuggingFace(kwargs).options)).toEqual([77, 77, 77, 77])
  })

  test('thousands, beside bans and biases of the same tokens', async () => {
    const plain = await tokensOf({ maxTokens: 6 })
    const free = new Set(plain)
    const suppressed = Array.from({ length: 2500 }, (_, i) => i).filter(id => !free.has(id))
    const { options } = fromHuggingFace({
      suppress_tokens: [...suppressed, ...suppressed], bad_words_ids: suppressed.slice(0, 900).map(id => [id]), max_new_tokens: 6,
      sequence_bias: suppressed.slice(0, 9).map(id => [[id], 50]),
    })
    expect(await tokensOf(options)).toEqual(plain)
    const without = await tokensOf(fromHuggingFace({ suppress_tokens: [...suppressed, plain[1] ?? 0], max_new_tokens: 6 }).options)
    expect(without.slice(0, 1)).toEqual(plain.slice(0, 1))
    expect(without).not.toContain(plain[1])
  })
})

test('bad_words_ids leaves the model\'s own stop tokens alone, suppress_tokens does not', async () => {
  const plain = await tokensOf({ maxTokens: 40 })
  const end = plain.at(-1) ?? -1
  expect(demo.info.stopTokenIds).toContain(end)
  const all = demo.info.stopTokenIds.map(id => [id])
  expect(await tokensOf(fromHuggingFace({ bad_words_ids: [...all, [3000]], max_new_tokens: 40 }).options)).toEqual(plain)
  expect(await tokensOf(fromHuggingFace({ suppress_tokens: all.flat(), max_new_tokens: 40 }).options)).not.toContain(end)
  expect(await tokensOf(fromHuggingFace({ eos_token_id: null, max_new_tokens: plain.length + 2 }).options)).toHaveLength(plain.length + 2)
})

test('stop strings match across the end of the prompt, end at a token, and cut nothing', async () => {
  const { text, outputs } = await demo.generate(example, { maxTokens: 12, logprobs: 0 })
  const first = text.slice(0, outputs[0]?.logprobs?.[0]?.end)
  const across = example.slice(-3) + first.slice(0, 1)
  for (const beams of [1, 2]) {
    const { options } = fromHuggingFace({ stop_strings: ['never', across], max_new_tokens: 12, num_beams: beams })
    const hf = await demo.generate(example, options)
    expect(hf.outputs[0]).toMatchObject({ text: first, finishReason: 'stop', stoppedBy: across })
    expect(hf.outputs[0]?.tokens).toHaveLength(1)
  }
  const ours = await demo.generate(example, { stop: across, maxTokens: 12 })
  expect(ours.outputs[0]?.tokens).toEqual(outputs[0]?.tokens)
  let streamed = ''
  const stream = await demo.stream(example, fromHuggingFace({ stop_strings: text.slice(1, 4), max_new_tokens: 12 }).options)
  for await (const event of stream) if (event.type === 'text') streamed += event.text
  const { outputs: [whole] } = await stream.result
  expect(streamed).toBe(whole?.text)
  expect(whole?.text.startsWith(text.slice(0, 4))).toBe(true)
})

test('a thousand stop strings', async () => {
  const stop = Array.from({ length: 1000 }, (_, i) => `never ${i}`)
  const plain = await tokensOf({ maxTokens: 8 })
  for (const stopMatching of ['output', 'hf'] as const) expect(await tokensOf({ maxTokens: 8, stop, stopMatching })).toEqual(plain)
})

test('max_length not above the prompt is an error, as in current transformers', () => {
  const promptTokens = demo.tokenizer.count(example)
  expect(() => fromHuggingFace({ max_length: promptTokens }, { promptTokens })).toThrow(/expected more than/)
  expect(fromHuggingFace({ max_length: promptTokens + 1 }, { promptTokens }).options.maxTokens).toBe(1)
})

test('the core takes what fromHuggingFace gives', async () => {
  const id = fc.nat(demo.info.vocabSize - 1)
  const words = fc.array(fc.array(id, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 30 })
  const kwargs = fc.record({
    max_new_tokens: fc.integer({ min: 1, max: 9 }), min_new_tokens: fc.nat(20), do_sample: fc.boolean(),
      temperature: fc.constantFrom(0.5, 1, null),
    top_k: fc.constantFrom(0, 5, null), top_p: fc.double({ min: 0.1, max: 1.2, noNaN: true }), num_beams: fc.integer({ min: 1, max: 4 }),
    num_return_sequences: fc.integer({ min: 1, max: 4 }), eos_token_id: fc.oneof(id, fc.array(id, { maxLength: 3 })),
    bad_words_ids: words, suppress_tokens: fc.array(id, { maxLength: 2000 }), repetition_penalty: fc.constantFrom(0.8, 1.3),
    sequence_bias: words.map(all => all.map(ids => [ids, 1.5])), stop_strings: fc.array(fc.string({ minLength: 1 }),
      { minLength: 1, maxLength: 40 }),
    forced_eos_token_id: id, no_repeat_ngram_size: fc.nat(4), early_stopping: fc.constantFrom(true, false, 'never'),
  }, { requiredKeys: [] })
  const runs: object[] = []
  fc.assert(fc.property(kwargs, arguments_ => {
    try {
      const { options } = fromHuggingFace(arguments_)
      demo.explain(options)
      runs.push(options)
    } catch (e) {
      expect(isPolyLMError(e, 'INVALID_OPTION') && Object.keys(arguments_).includes(String(e['option']))).toBe(true)
    }
  }), { numRuns: 300 })
  expect(runs.length).toBeGreaterThan(50)
  await Promise.all(runs.slice(0, 30).map(async options => demo.generate({ tokens: [5, 6, 7] }, options)))
})

test('a list of the vocabulary twice over is no reason to fail otherwise', async () => {
  const twice = Array.from({ length: 2 * demo.info.vocabSize }, (_, i) => [i % demo.info.vocabSize, -1] as const)
  expect((await failure(demo.generate(example, { bias: twice }))).code).toBe('INVALID_OPTION')
})
