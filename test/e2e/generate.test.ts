// generate.test.ts: generate, generateEach and explain on real models.
import { demoModel, fromHuggingFace, Model } from '../../lib/index.js'
import type { PolyLMError } from '../../lib/index.js'
import { example, failure, idle, loadDemo, loadTiny, recorded } from './models.js'

let tiny: Model
let demo: Model
beforeAll(async () => { [tiny, demo] = await Promise.all([loadTiny(), loadDemo()]) })
afterAll(async () => { await Promise.all([tiny.dispose(), demo.dispose()]) })

const text = async (prompt: string, options = {}): Promise<string> => (await demo.generate(prompt, options)).text

describe('tokens', () => {
  test('greedy gives transformers\' tokens', async () => {
    for (const { prompt, max_new_tokens: maxTokens, generated } of recorded.greedy.slice(0, 4)) {
      const { outputs, usage } = await tiny.generate({ tokens: prompt }, { maxTokens, stopTokenIds: [] })
      expect(Array.from(outputs[0]?.tokens ?? [])).toEqual(generated)
      expect(outputs[0]).toMatchObject({ finishReason: 'length', stoppedBy: null, logprobs: null, text: '' })
      expect(usage).toEqual({ promptTokens: prompt.length, completionTokens: maxTokens, cachedTokens: 0, truncatedTokens: 0 })
    }
  })

  test('a stop token ends the output, is its last token and is named', async () => {
    const found = recorded.greedy_eos.filter(({ generated, eos_token_id: eos }) => generated.at(-1) === eos)
    expect(found.length).toBeGreaterThan(0)
    for (const { prompt, max_new_tokens: maxTokens, generated, eos_token_id: eos } of found.slice(0, 3)) {
      const { outputs } = await tiny.generate({ tokens: prompt }, { maxTokens, stopTokenIds: [eos] })
      expect(Array.from(outputs[0]?.tokens ?? [])).toEqual(generated)
      expect(outputs[0]).toMatchObject({ finishReason: 'stop', stoppedBy: eos })
    }
  })

  test('beams give transformers\' sequences and scores, best first', async () => {
    let compared = 0
    for (const { prompt, variants } of recorded.beam.slice(0, 2)) {
      for (const v of variants.filter(({ early_stopping: early }) => early === true).slice(0, 2)) {
        const { outputs } = await tiny.generate({ tokens: prompt }, {
          maxTokens: v.max_new_tokens, numBeams: v.num_beams, n: v.num_return_sequences, lengthPenalty: v.length_penalty,
          earlyStopping: true, stopTokenIds: [v.eos_token_id], beamScoring: 'hf-4.31',
        })
        expect(outputs.map(({ tokens }) => Array.from(tokens))).toEqual(v.sequences)
        outputs.forEach(({ score }, i) => { expect(score).toBeCloseTo(v.sequences_scores[i] ?? NaN, 3) })
        compared++
      }
    }
    expect(compared).toBeGreaterThan(0)
  })
})

describe('the demonstration model', () => {
  test('PolyLM\'s own example, with beams', async () => {
    const { outputs, text: first } = await demo.generate(example, { numBeams: 4, earlyStopping: true, maxTokens: 64 })
    expect(first.trim()).toBe('北京是中国的首都。')
    expect(outputs[0]).toMatchObject({ finishReason: 'stop' })
    expect(demo.info.stopTokenIds).toContain(outputs[0]?.stoppedBy)
  })

  test('as a conversation', async () => {
    const { text: answer } = await demo.generate({ messages: [{ role: 'user', content: example }] }, { maxTokens: 64 })
    expect(answer.trim()).toBe('北京是中国的首都。')
  })

  test('prompt and text read on: text is decode(all) without decode(prompt)', async () => {
    const prompt = demo.tokenizer.encode(example)
    const { outputs: [output] } = await demo.generate(example, { maxTokens: 40 })
    const all = demo.tokenizer.decode([...prompt, ...(output?.tokens ?? [])])
    expect(demo.tokenizer.decode(prompt) + (output?.text ?? '')).toBe(all)
  })

  test('a stop string ends the text before it, or behind it', async () => {
    const options = { maxTokens: 40, stop: ['中国', 'zzz'] }
    const cut = await demo.generate(example, options)
    expect(cut.outputs[0]).toMatchObject({ finishReason: 'stop', stoppedBy: '中国' })
    expect(cut.text.trim()).toBe('北京是')
    expect((await demo.generate(example, { ...options, includeStop: true })).text.trim()).toBe('北京是中国')
  })

  test('log-probabilities: ranges tile the text, the chosen token is among the best when greedy', async () => {
    const { text: all, outputs } = await demo.generate(example, { maxTokens: 40, logprobs: 3 })
    const logprobs = outputs[0]?.logprobs ?? []
    expect(logprobs).toHaveLength(outputs[0]?.tokens.length ?? 0)
    expect(logprobs.map(({ start, end }) => all.slice(start, end)).join('')).toBe(all)
    for (const { id, logprob, top } of logprobs) {
      expect(top).toHaveLength(3)
      expect(top[0]).toMatchObject({ id, logprob })
      expect(logprob).toBeLessThanOrEqual(0)
    }
  })

  test('log-probabilities say what each token is: its text, its bytes when it is a part of a character', async () => {
    // A character that the vocabulary does not have is written byte by byte.
    const bytes = Array.from(demo.tokenizer.encode('\u{1f9ec}')).slice(-4)
    const { outputs: [output], text: all } = await demo.generate(example, {
      maxTokens: 4, allow: { choices: ['\u{1f9ec}'] }, logprobs: 20, stopTokenIds: [],
    })
    const logprobs = output?.logprobs ?? []
    const parts = logprobs.filter(token => token.bytes !== undefined)
    expect(parts.map(({ id }) => id)).toEqual(bytes)
    expect(new TextDecoder().decode(Uint8Array.from(parts.flatMap(token => token.bytes ?? [])))).toBe('\u{1f9ec}')
    expect(all).toContain('\u{1f9ec}')
    for (const token of logprobs) {
      for (const { id, text, bytes: part } of [token, ...token.top]) {
        const piece = demo.tokenizer.idToPiece(id)
        const byte = /^<0x([0-9A-F]{2})>$/.exec(piece)
        const value = byte === null ? undefined : parseInt(byte[1] ?? '', 16)
        if (value === undefined) expect([text, part]).toEqual([piece.replaceAll('\u2581', ' '), undefined])
        else expect([text, part]).toEqual(value < 128 ? [String.fromCharCode(value), undefined] : ['\ufffd', [value]])
      }
    }
  })

  test('without a tokenizer tokens have no text', async () => {
    const { outputs } = await tiny.generate({ tokens: [1, 2] }, { maxTokens: 1, logprobs: 1, stopTokenIds: [] })
    expect(outputs[0]?.logprobs?.[0]).toMatchObject({ text: '', top: [{ text: '' }] })
  })

  test('every result can be cloned, posted and written as JSON', async () => {
    const session = demo.createSession({ history: [{ role: 'user', content: 'a' }, { role: 'assistant', content: 'b' }] })
    const stream = await demo.stream('Rome is', { maxTokens: 3 })
    const events: unknown[] = []
    for await (const event of stream) events.push(event)
    const items: unknown[] = []
    for await (const item of demo.generateEach(['a', { prompt: 'b', options: { topK: -1 } }], { maxTokens: 2 })) {
      items.push(item.ok ? item : { ...item, error: (item.error as PolyLMError).toJSON() })
    }
    const results: Record<string, unknown> = {
      generate: await demo.generate(example, { maxTokens: 3, logprobs: 1, numBeams: 2, n: 2 }), events, items,
      score: await demo.score(example, { logprobs: 1 }),
      loglikelihood: await demo.loglikelihood([{ context: 'a', continuation: ' b' }]),
      logits: await demo.logits('a'), history: session.history, tokens: session.tokens, info: demo.info, stats: demo.stats(),
      config: demo.generationConfig, explain: demo.explain({ bias: [[5, -Infinity]], stop: 'x', numBeams: 2 }, 'a'),
      encoding: demo.tokenizer.encodeWithOffsets('a b'), special: demo.tokenizer.specialTokens,
      devices: await Model.devices(), estimate: await Model.estimate(demoModel),
    }
    for (const [name, result] of Object.entries(results)) {
      expect([name, structuredClone(result)]).toEqual([name, result])
      // A typed array in JSON would be an object with the key "0".
      if (name !== 'tokens') expect([name, JSON.stringify(result)]).toEqual([name, expect.not.stringContaining('{"0":') as string])
    }
    expect(JSON.parse(JSON.stringify(results['generate']))).toEqual((results['generate'] as { toJSON(): unknown }).toJSON())
  })

  test('bias bans, allow restricts, choices choose', async () => {
    const plain = await demo.generate(example, { maxTokens: 6 })
    const banned = plain.outputs[0]?.tokens[1] ?? 0
    const without = await demo.generate(example, { maxTokens: 20, bias: [[banned, -Infinity]] })
    expect(Array.from(without.outputs[0]?.tokens ?? [])).not.toContain(banned)
    const few = await demo.generate(example, { maxTokens: 8, allow: { tokens: [5, 6, 7] }, stopTokenIds: [] })
    for (const token of few.outputs[0]?.tokens ?? []) expect([5, 6, 7]).toContain(token)
    const choices = ['Paris', 'Beijing', 'Rome']
    expect(choices).toContain(await text('The answer is ', { allow: { choices }, maxTokens: 20 }))
  })

  test('maxTokens: the default is limited to the room left, a given value is not', async () => {
    const tokens = new Array<number>(demo.info.contextSize - 3).fill(5)
    const { outputs } = await demo.generate({ tokens }, { stopTokenIds: [] })
    expect(outputs[0]?.tokens).toHaveLength(3)
    expect(await failure(demo.generate({ tokens }, { maxTokens: 4 }))).toMatchObject({
      code: 'CONTEXT_OVERFLOW', promptTokens: tokens.length, maxTokens: 4, contextSize: demo.info.contextSize,
    })
    const cut = await demo.generate({ tokens }, { maxTokens: 100, onOverflow: 'truncateLeft', stopTokenIds: [] })
    expect(cut.usage).toMatchObject({ truncatedTokens: 97, promptTokens: tokens.length - 97, completionTokens: 100 })
  })
})

describe('sampling', () => {
  const options = { temperature: 1.5, maxTokens: 20, stopTokenIds: [], seed: 11 }

  test('a seed repeats, alone and beside others; another seed differs', async () => {
    const once = await text('Rome is', options)
    const crowd = await Promise.all([1, 2, 3, 4].map(() => text('Rome is', options)))
    expect(new Set([once, ...crowd]).size).toBe(1)
    expect(await text('Rome is', { ...options, seed: 12 })).not.toBe(once)
  })

  test('the seed that was made up is reported and repeats the call', async () => {
    const first = await demo.generate('Rome is', { temperature: 1.5, maxTokens: 20 })
    expect(await text('Rome is', { temperature: 1.5, maxTokens: 20, seed: first.seed })).toBe(first.text)
  })

  test('n outputs differ, and the first is the one of n = 1', async () => {
    const { outputs, usage } = await demo.generate('Rome is', { ...options, n: 3 })
    expect(new Set(outputs.map(output => output.text)).size).toBe(3)
    expect(outputs[0]?.text).toBe(await text('Rome is', options))
    expect(usage.completionTokens).toBe(60)
  })

  test('the result turns into plain JSON', async () => {
    const result = await demo.generate('Rome is', { ...options, logprobs: 1 })
    const json = JSON.parse(JSON.stringify(result)) as Record<string, unknown>
    expect(json).toMatchObject({ text: result.text, seed: 11, usage: { completionTokens: 20 } })
    expect((json['outputs'] as Array<{ tokens: number[] }>)[0]?.tokens).toEqual(Array.from(result.outputs[0]?.tokens ?? []))
    expect(result.timings.tokensPerSecond).toBeGreaterThan(0)
  })
})

describe('generateEach', () => {
  test('answers all, with options of their own, a bad one among them', async () => {
    const inputs = ['Rome is', { prompt: 'Paris is', options: { maxTokens: 3 } }, { tokens: [-1] }, { prompt: 'x', options: { topK: -1 } }]
    const answers = []
    for await (const item of demo.generateEach(inputs as string[], { maxTokens: 5, stopTokenIds: [] })) answers.push(item)
    answers.sort((a, b) => a.index - b.index)
    expect(answers.map(({ ok }) => ok)).toEqual([true, true, false, false])
    expect(answers.map(item => (item.ok ? item.result.usage.completionTokens : (item.error as Error).message))).toEqual([
      5, 3, expect.stringContaining('token out of range'), expect.stringContaining('topK: found -1')])
  })

  test('pulls no further ahead than it can use, and leaving closes the input', async () => {
    let pulled = 0
    let closed = false
    async function * endless(): AsyncGenerator<string> {
      try {
        for (;;) yield `Rome ${pulled++}`
      } finally {
        closed = true
      }
    }
    let seen = 0
    for await (const item of demo.generateEach(endless(), { maxTokens: 2, stopTokenIds: [] })) {
      expect(item.ok).toBe(true)
      if (++seen === 20) break
    }
    expect(pulled).toBeLessThan(20 + 3 * 64)
    expect(closed).toBe(true)
  })

  test('a signal of one item ends that item', async () => {
    const reason = { why: 'this one' }
    const inputs = ['Rome is', { prompt: 'Paris is', options: { signal: AbortSignal.abort(reason) } }, 'Oslo is']
    const ends: unknown[] = []
    for await (const item of demo.generateEach(inputs, { maxTokens: 3, stopTokenIds: [] })) ends[item.index] = item.ok || item.error
    expect(ends).toEqual([true, reason, true])
  })

  test('answers do not wait for an input that is slow to come', async () => {
    let release = (): void => { /* set below */ }
    const gate = new Promise<void>(resolve => { release = resolve })
    async function * slow(): AsyncGenerator<string> {
      yield 'Rome is'
      await gate
      yield 'Paris is'
    }
    const answers = demo.generateEach(slow(), { maxTokens: 3, stopTokenIds: [] })
    expect((await answers.next()).value).toMatchObject({ index: 0, ok: true })
    release()
    expect((await answers.next()).value).toMatchObject({ index: 1, ok: true })
    expect((await answers.next()).done).toBe(true)
  })

  test('the answer of each is the answer alone', async () => {
    const prompts = Array.from({ length: 40 }, (_, i) => `City number ${i} is`)
    const alone = await Promise.all(prompts.map(prompt => text(prompt, { maxTokens: 8, stopTokenIds: [] })))
    const each: string[] = []
    for await (const item of demo.generateEach(prompts, { maxTokens: 8, stopTokenIds: [] })) {
      if (item.ok) each[item.index] = item.result.text
    }
    expect(each).toEqual(alone)
  })

  test('bad common options, an input that throws and an abort end it', async () => {
    const drain = async (inputs: Iterable<string>, options = {}): Promise<void> => {
      for await (const _ of demo.generateEach(inputs, options)) { /* all of them */ }
    }
    expect((await failure(drain(['x'], { topK: -1 }))).code).toBe('INVALID_OPTION')
    expect((await failure(drain(5 as unknown as string[]))).message).toContain('Iterable')
    function * broken(): Generator<string> {
      yield 'x'
      throw new RangeError('input')
    }
    expect((await failure(drain(broken(), { maxTokens: 2 }))).message).toBe('input')
    const reason = { why: 'enough' }
    expect(await failure(drain(Array(500).fill('Rome'), { signal: AbortSignal.abort(reason) }))).toBe(reason)
    await idle(demo)
    expect(demo.stats().kv.usedTokens).toBe(0)
  })
})

test('speculate: the same tokens and probabilities, in fewer steps where text repeats', async () => {
  const prompt = { tokens: Array.from({ length: 60 }, (_, i) => 300 + i % 6) }
  for (const temperature of [0, 0.3]) {
    const options = { temperature, seed: 4, maxTokens: 100, logprobs: 2, stopTokenIds: [] }
    const before = demo.stats().counters.steps
    const plain = await demo.generate(prompt, options)
    const between = demo.stats().counters.steps
    const guessed = await demo.generate(prompt, { ...options, speculate: 'lookup' })
    expect(guessed.outputs).toEqual(plain.outputs)
    expect(guessed.text).toBe(plain.text)
    const after = demo.stats().counters.steps
    expect(after - between).toBeLessThan(between - before)
  }
})

describe('explain', () => {
  test('processors in order, inert options, and the same for transformers', () => {
    const explained = demo.explain({ temperature: 0.7, topP: 0.9, repetitionPenalty: 1.2, lengthPenalty: 2, maxTokens: 9 })
    expect(explained.processors).toEqual(['RepetitionPenaltyLogitsProcessor', 'TemperatureLogitsWarper', 'TopPLogitsWarper'])
    expect(explained.inert).toEqual(['lengthPenalty'])
    expect(demo.explain({ speculate: 'lookup', maxTokens: 2 }).inert).toEqual(['speculate'])
    expect(explained.stopTokenIds).toEqual(demo.info.stopTokenIds)
    expect(explained.huggingFace).toMatchObject({ do_sample: true, temperature: 0.7, top_p: 0.9, max_new_tokens: 9 })
  })

  test('a sampling option without a temperature samples at 1; with temperature 0 it is inert', async () => {
    const alone = demo.explain({ topP: 0.9, seed: 3 })
    expect(alone).toMatchObject({ processors: ['TopPLogitsWarper'], inert: [] })
    expect(alone.huggingFace).toMatchObject({ do_sample: true, temperature: 1, top_p: 0.9 })
    const greedy = demo.explain({ topP: 0.9, seed: 3, temperature: 0 })
    expect(greedy).toMatchObject({ processors: [], inert: ['topP', 'seed'] })
    expect(greedy.huggingFace).toMatchObject({ do_sample: false })
    const options = { topP: 0.99, maxTokens: 12, seed: 5, stopTokenIds: [] }
    const [implied, given] = [await demo.generate('Rome is', options), await demo.generate('Rome is', { ...options, temperature: 1 })]
    expect(implied.text).toBe(given.text)
    const others = await Promise.all([6, 7, 8].map(seed => demo.generate('Rome is', { ...options, seed })))
    expect(new Set([implied, ...others].map(({ text }) => text)).size).toBeGreaterThan(1)
    const { options: translated } = fromHuggingFace({ do_sample: true, top_p: 0.9, top_k: 0 })
    expect(demo.explain(translated).processors).toEqual(demo.explain({ topP: 0.9 }).processors)
  })

  test('a prompt limits the default of maxTokens', () => {
    const { huggingFace } = demo.explain({}, example)
    expect(huggingFace['max_new_tokens']).toBe(demo.info.contextSize - demo.tokenizer.count(example))
  })

  test('refuses what generate refuses', () => {
    expect(() => demo.explain({ n: 2 })).toThrow(expect.objectContaining({ code: 'INVALID_OPTION', option: 'n', value: 2 }))
  })
})
