// scoring.test.ts: logits, loglikelihood and score against recorded numbers and against each other.
import { compensatedSum } from '../../lib/compensated-sum.js'
import type { Model } from '../../lib/index.js'
import { example, failure, idle, loadDemo, loadTiny, recorded } from './models.js'

let tiny: Model
let demo: Model
beforeAll(async () => { [tiny, demo] = await Promise.all([loadTiny(), loadDemo()]) })
afterAll(async () => { await Promise.all([tiny.dispose(), demo.dispose()]) })

/** log-softmax of one row, in double precision. */
function logSoftmax(row: Float32Array): Float64Array {
  const values = Float64Array.from(row)
  const max = values.reduce((a, b) => Math.max(a, b), -Infinity)
  const sum = values.reduce((total, value) => total + Math.exp(value - max), 0)
  return values.map(value => value - max - Math.log(sum))
}

const rowOf = ({ data, columns }: { data: Float32Array; columns: number }, i: number): Float32Array =>
  data.subarray(i * columns, (i + 1) * columns)

test('a prompt that is tokens and messages at once is refused by every call', async () => {
  const both = { tokens: [5, 6], messages: [{ role: 'user', content: 'a' }] } as never
  for (const call of [
    tiny.score(both), tiny.logits(both), tiny.loglikelihood([{ context: both, continuation: { tokens: [1] } }]),
    tiny.loglikelihood([{ context: { tokens: [1] }, continuation: both }]),
  ]) await expect(call).rejects.toMatchObject({ code: 'INVALID_PROMPT', reason: 'ambiguous' })
})

describe('logits', () => {
  test('are transformers\', at the positions asked for, in that order', async () => {
    for (const { prompt, positions } of recorded.logits.slice(0, 3)) {
      const asked = positions.map(({ pos }) => pos).slice(0, 64).reverse()
      const result = await tiny.logits({ tokens: prompt }, { positions: asked })
      expect([result.rows, result.columns]).toEqual([asked.length, tiny.info.vocabSize])
      asked.forEach((pos, i) => {
        const expected = positions.find(row => row.pos === pos)?.logits ?? []
        const found = rowOf(result, i)
        expected.forEach((value, j) => { expect(Math.abs((found[j] ?? NaN) - value)).toBeLessThan(2e-4) })
      })
    }
  })

  test('the last position is the default, and duplicates are allowed', async () => {
    const tokens = [7, 8, 9]
    const last = await tiny.logits({ tokens })
    const twice = await tiny.logits({ tokens }, { positions: [2, 0, 2] })
    expect(last.rows).toBe(1)
    expect(rowOf(twice, 0)).toEqual(last.data)
    expect(rowOf(twice, 2)).toEqual(last.data)
    expect(rowOf(twice, 1)).not.toEqual(last.data)
  })

  test.each([
    [{ positions: [] }], [{ positions: [-1] }], [{ positions: [3] }], [{ positions: [0.5] }], [{ positions: Array(65).fill(0) }],
    [{ positions: 'first' }], [{ position: [0] }], [{ maxTokens: 3 }],
  ])('%p is refused', async options => {
    expect((await failure(tiny.logits({ tokens: [7, 8, 9] }, options as object))).code).toBe('INVALID_OPTION')
  })
})

describe('loglikelihood', () => {
  test('choices that share a context share its computation', async () => {
    const context = { tokens: Array.from({ length: 100 }, (_, i) => 5 + i) }
    const items = [11, 12, 13, 14].map(id => ({ context, continuation: { tokens: [id, 20] } }))
    const before = demo.stats().counters
    const together = await demo.loglikelihood(items, { cacheSalt: 'choices' })
    const { cachedTokens, promptTokens } = demo.stats().counters
    expect(promptTokens - before.promptTokens).toBe(4 * 102)
    expect(cachedTokens - before.cachedTokens).toBe(3 * 96)              // whole blocks of 32
    for (const [i, item] of items.entries()) {
      expect(await demo.loglikelihood([item], { cacheSalt: `apart ${i}` })).toEqual([together[i]])
    }
  })

  test('is the sum of the log-softmax of the logits', async () => {
    const context = [5, 17, 300]
    const continuation = [44, 2, 7, 501]
    const [result] = await tiny.loglikelihood([{ context: { tokens: context }, continuation: { tokens: continuation } }])
    const logits = await tiny.logits({ tokens: [...context, ...continuation] }, { positions: [2, 3, 4, 5] })
    const rows = continuation.map((_, i) => logSoftmax(rowOf(logits, i)))
    const expected = continuation.map((id, i) => rows[i]?.[id] ?? NaN)
    expect(result?.logprob).toBeCloseTo(expected.reduce((a, b) => a + b, 0), 4)
    expected.forEach((value, i) => { expect(result?.tokenLogprobs[i]).toBeCloseTo(value, 4) })
    expect(Array.from(result?.tokens ?? [])).toEqual(continuation)
    expect(result?.isGreedy).toBe(continuation.every((id, i) => rows[i]?.indexOf(Math.max(...(rows[i] ?? []))) === id))
    expect(result?.continuationBytes).toBe(0)
  })

  test('what greedy search generates is greedy, anything else is not', async () => {
    const { prompt, generated } = recorded.greedy[0] ?? { prompt: [], generated: [] }
    const other = [...generated.slice(0, 9), ((generated[9] ?? 0) + 1) % 512]
    const results = await tiny.loglikelihood([generated.slice(0, 10), other]
      .map(tokens => ({ context: { tokens: prompt }, continuation: { tokens } })))
    expect(results.map(({ isGreedy }) => isGreedy)).toEqual([true, false])
  })

  test('text is encoded jointly, and trailing white space of the context belongs to the continuation', async () => {
    const [plain, moved] = await demo.loglikelihood([
      { context: 'Beijing is the capital of', continuation: ' China.' },
      { context: 'Beijing is the capital of ', continuation: 'China.' },
    ])
    expect(moved?.tokens).toEqual(plain?.tokens)
    expect(moved?.logprob).toBe(plain?.logprob)
    expect([plain?.continuationBytes, moved?.continuationBytes]).toEqual([7, 6])
    const whole = Array.from(demo.tokenizer.encode('Beijing is the capital of China.'))
    const context = demo.tokenizer.count('Beijing is the capital of')
    expect(Array.from(plain?.tokens ?? [])).toEqual(whole.slice(context))
  })

  test('white space is what Python calls so', async () => {
    for (const [context, continuation, kept] of [
      ['Rome\u001F\u0085 ', 'is', 'Rome'], ['Rome\u3000', 'is', 'Rome'], ['Rome\uFEFF', 'is', 'Rome\uFEFF'],
    ] as const) {
      const [result] = await demo.loglikelihood([{ context, continuation }])
      const whole = Array.from(demo.tokenizer.encode(context + continuation))
      expect(Array.from(result?.tokens ?? [])).toEqual(whole.slice(demo.tokenizer.count(kept)))
    }
  })

  test('a continuation that begins with the prefix token brings its own context', async () => {
    const bos = demo.tokenizer.specialTokens.bos?.id ?? -1
    const ids = Array.from(demo.tokenizer.encode('Rome is'))
    const whole = { tokens: [bos, ...ids] }
    const [own, plain, text, alone, other] = await demo.loglikelihood([
      { context: '', continuation: whole }, { context: '', continuation: { tokens: ids } },
      { context: '', continuation: demo.tokenizer.specialTokens.bos?.content ?? '' }, { context: { tokens: [] },
        continuation: { tokens: [bos] } },
      { context: { tokens: [9] }, continuation: whole },
    ])
    expect(own).toEqual({ ...plain, continuationBytes: own?.continuationBytes })
    for (const nothing of [text, alone]) {
      expect(nothing).toMatchObject({ logprob: 0, isGreedy: true })
      expect([nothing?.tokens.length, nothing?.tokenLogprobs.length]).toEqual([0, 0])
    }
    expect(Array.from(other?.tokens ?? [])).toEqual([bos, ...ids])
    const [given] = await demo.loglikelihood([{ context: '', continuation: { tokens: ids } }], { prefixToken: ids[0] ?? 0 })
    expect(Array.from(given?.tokens ?? [])).toEqual(ids.slice(1))
  })

  test('where the context alone has as many tokens as with its continuation, nothing is scored', async () => {
    const count = (text: string): number => demo.tokenizer.count(text)
    const words = 'Hauptstadt translate sentence language Chinese President international government important'.split(' ')
    const splits = words.flatMap(word => Array.from({ length: word.length - 1 }, (_, i) => [word.slice(0, i + 1),
      word.slice(i + 1)] as const))
    const merged = splits.filter(([context, rest]) => count(context) >= count(context + rest))
    expect(merged.length).toBeGreaterThan(3)
    const results = await demo.loglikelihood(merged.map(([context, continuation]) => ({ context, continuation })))
    for (const [i, { logprob, isGreedy, tokens, continuationBytes }] of results.entries()) {
      expect([logprob, isGreedy, tokens.length, continuationBytes]).toEqual([0, true, 0, merged[i]?.[1].length])
    }
  })

  test('the sum is the compensated one, in the order of tokens', async () => {
    const items = Array.from({ length: 40 }, (_, i) => ({ context: `${i}`,
      continuation: ' is the capital of a country in Europe, and so is Rome.' }))
    for (const { logprob, tokenLogprobs } of await demo.loglikelihood(items)) expect(logprob).toBe(compensatedSum(tokenLogprobs))
    const { logprob, logprobs } = await demo.score(example.repeat(9), { logprobs: 0, window: 32 })
    expect(logprob).toBe(compensatedSum((logprobs ?? []).map(token => token.logprob)))
  })

  test('an empty context is the tokenizer\'s bos, or prefixToken', async () => {
    const bos = demo.tokenizer.specialTokens.bos?.id ?? -1
    const ids = Array.from(demo.tokenizer.encode('Rome'))
    const [empty, ownPrefix] = [
      await demo.loglikelihood([{ context: '', continuation: 'Rome' }]),
      await demo.loglikelihood([{ context: '', continuation: 'Rome' }], { prefixToken: 9 }),
    ]
    const explicit = await demo.loglikelihood([bos, 9].map(id => ({ context: { tokens: [id] }, continuation: { tokens: ids } })))
    expect([empty[0]?.logprob, ownPrefix[0]?.logprob]).toEqual(explicit.map(({ logprob }) => logprob))
  })

  test('alone, in a crowd and in any order the numbers are the same bits', async () => {
    const items = Array.from({ length: 300 }, (_, i) => ({ context: `City ${i} is the capital of`, continuation: ` country ${i}.` }))
    const progress: number[] = []
    const together = await demo.loglikelihood(items, { onProgress: ({ done }) => progress.push(done) })
    expect(progress).toEqual(items.map((_, i) => i + 1))
    for (const i of [0, 7, 299]) {
      const [alone] = await demo.loglikelihood([items[i] ?? { context: '', continuation: 'x' }])
      expect(alone).toEqual(together[i])
    }
  })

  test('too long: an error, or the beginning is dropped', async () => {
    const items = [{ context: { tokens: new Array<number>(300).fill(5) }, continuation: { tokens: [6] } }]
    expect((await failure(tiny.loglikelihood(items))).code).toBe('CONTEXT_OVERFLOW')
    const [cut] = await tiny.loglikelihood(items, { onOverflow: 'truncateLeft' })
    const [short] = await tiny.loglikelihood([{ context: { tokens: new Array<number>(256).fill(5) }, continuation: { tokens: [6] } }])
    expect(cut).toEqual(short)
  })

  test('refusals, and the first failure ends the call', async () => {
    expect((await failure(tiny.loglikelihood('ab' as unknown as []))).code).toBe('INVALID_PROMPT')
    expect((await failure(tiny.loglikelihood([5] as unknown as []))).code).toBe('INVALID_PROMPT')
    expect((await failure(demo.loglikelihood([{ context: 'a', continuation: '' }]))).code).toBe('INVALID_PROMPT')
    expect((await failure(tiny.loglikelihood([{ context: 'a', continuation: 'b' }]))).code).toBe('TOKENIZER_MISSING')
    expect((await failure(tiny.loglikelihood([], { prefixToken: 512 }))).code).toBe('INVALID_OPTION')
    const broken = [{ context: 'a', continuation: ' b' }, { context: 'a', continuation: '' }]
    expect((await failure(demo.loglikelihood(broken))).code).toBe('INVALID_PROMPT')
    const mine = new RangeError('mine')
    expect(await failure(demo.loglikelihood(broken.slice(0, 1), { onProgress: () => { throw mine } }))).toBe(mine)
    await idle(demo)
    expect(await tiny.loglikelihood([])).toEqual([])
  })
})

describe('score', () => {
  test('is the recorded log-probability of the prompt\'s tokens', async () => {
    const long = recorded.logits.filter(({ prompt_token_logprobs: logprobs }) => logprobs.length > 3)
    expect(long.length).toBeGreaterThan(0)
    for (const { prompt, prompt_token_logprobs: expected } of long.slice(0, 3)) {
      const { logprobs, count, logprob, perplexity } = await tiny.score({ tokens: prompt }, { logprobs: 0 })
      expect(count).toBe(expected.length)
      expected.forEach((value, i) => { expect(logprobs?.[i]?.logprob).toBeCloseTo(value, 3) })
      expect(perplexity).toBeCloseTo(Math.exp(-logprob / count), 10)
    }
  })

  test('windows: a long text is the sum of its windows', async () => {
    const tokens = Array.from({ length: 700 }, (_, i) => (i * 37) % 512)
    const { logprob, count } = await tiny.score({ tokens }, { prefixToken: 2, window: 64, stride: 64 })
    expect(count).toBe(700)
    const all = [2, ...tokens]
    let sum = 0
    for (let from = 1; from < all.length; from += 64) {
      const to = Math.min(all.length, from + 64)
      const start = Math.max(0, to - 65)
      const context = { tokens: all.slice(start, from) }
      const [part] = await tiny.loglikelihood([{ context, continuation: { tokens: all.slice(from, to) } }])
      sum += part?.logprob ?? NaN
    }
    expect(logprob).toBeCloseTo(sum, 3)
    const finer = await tiny.score({ tokens }, { prefixToken: 2, window: 64, stride: 16 })
    expect(finer.count).toBe(700)
    expect(finer.logprob).not.toBe(logprob)
    expect((await tiny.score({ tokens })).count).toBe(699)
  })

  test('of text: bytes, bits per byte, ranges in the text', async () => {
    const result = await demo.score(example, { logprobs: 2 })
    expect(result.bytes).toBe(Buffer.byteLength(example))
    expect(result.bitsPerByte).toBeCloseTo(-result.logprob / Math.LN2 / result.bytes, 10)
    const { offsets } = demo.tokenizer.encodeWithOffsets(example)
    expect(result.logprobs?.map(({ start, end }) => [start, end])).toEqual(
      Array.from({ length: result.count }, (_, i) => [offsets[2 * i + 2], offsets[2 * i + 3]]))
    for (const { top } of result.logprobs ?? []) expect(top).toHaveLength(2)
    expect((await demo.score(example)).logprobs).toBeNull()
  })

  test('a text of many contexts', async () => {
    const { count, perplexity } = await demo.score(`${example}\n`.repeat(300))
    expect(count).toBeGreaterThan(4000)
    expect(perplexity).toBeGreaterThan(1)
  })

  test.each([
    [{ window: 0 }], [{ window: 257 }], [{ window: 8, stride: 9 }], [{ stride: 0 }], [{ logprobs: 21 }],
    [{ prefixToken: -1 }], [{ temperature: 1 }],
  ])('%p is refused', async options => {
    expect((await failure(tiny.score({ tokens: [7, 8, 9] }, options as object))).code).toBe('INVALID_OPTION')
  })

  test('one token needs a prefix', async () => {
    expect((await failure(tiny.score({ tokens: [7] }))).code).toBe('INVALID_PROMPT')
    expect((await tiny.score({ tokens: [7] }, { prefixToken: 2 })).count).toBe(1)
  })
})
