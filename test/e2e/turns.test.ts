// turns.test.ts: callers take turns: a question is answered while others' thousand requests, or scoring, or batch
// work fill the model, and batch work is not starved. What is counted is who came first, never time; the bounds in
// steps are native tests (turns_test.cc).
import type { GenerateResult, Model } from '../../lib/index.js'
import { failure, idle, loadDemo } from './models.js'

let demo: Model
beforeAll(async () => { demo = await loadDemo({ maxSequences: 16 }) })
afterAll(async () => { await demo.dispose() })
afterEach(async () => { await idle(demo) })

const exact = (maxTokens: number): { maxTokens: number; stopTokenIds: number[] } => ({ maxTokens, stopTokenIds: [] })
const prompt = (i: number): { tokens: number[] } => ({ tokens: [5 + i % 100, 7, 9] })

/** A thousand requests of a caller, and how many have come back. */
function thousand(cacheSalt: string): { done: () => number; all: Promise<GenerateResult[]>; stop: () => void } {
  let done = 0
  const stop = new AbortController()
  const all = Promise.all(Array.from({ length: 1000 }, async (_, i) => {
    const result = await demo.generate(prompt(i), { ...exact(64), cacheSalt, signal: stop.signal, onAbort: 'return' })
    done++
    return result
  }))
  return { done: () => done, all, stop: () => { stop.abort() } }
}

/** Until requests run and others wait. */
async function busy(): Promise<void> {
  while (demo.stats().running === 0 || demo.stats().counters.completionTokens === 0) {
    await new Promise(resolve => setTimeout(resolve, 1))
  }
}

const text = 'The quick brown fox jumps over the lazy dog, and nobody knows why it does. '

describe('a question is answered at once', () => {
  test.each([['of another caller', 'b'], ['of the same caller', 'a'], ['without a salt', '']])(
    'beside a thousand requests: one token %s', async (_, cacheSalt) => {
      const others = thousand('a')
      await busy()
      const before = others.done()
      expect((await demo.generate(prompt(3), { ...exact(1), cacheSalt })).usage.completionTokens).toBe(1)
      expect(others.done() - before).toBeLessThan(100)
      others.stop()
      await others.all
    })

  test('beside a thousand requests: as long as they are, by another caller or a session', async () => {
    const others = thousand('')
    await busy()
    const before = others.done()
    const chat = demo.createSession({ template: 'none' })
    const answers = await Promise.all([demo.generate(prompt(3), { ...exact(64), cacheSalt: 'b' }), chat.send('Rome is', exact(64))])
    expect(answers.map(({ usage }) => usage.completionTokens)).toEqual([64, 64])
    expect(others.done() - before).toBeLessThan(300)
    others.stop()
    await others.all
  })

  test('beside scoring, four times over', async () => {
    let scored = 0
    const scores = Array.from({ length: 4 }, async (_, i) => {
      const result = await demo.score(text.repeat(80), { cacheSalt: String(i) })
      scored++
      return result
    })
    await busy()
    for (let i = 0; i < 5; i++) await demo.generate(prompt(i), exact(8))
    expect(scored).toBe(0)
    expect(demo.stats().waiting).toBeLessThanOrEqual(4 * 32)
    const [first, ...rest] = await Promise.all(scores)
    for (const score of rest) expect(score.logprob).toBe(first?.logprob)
  })
})

test('priority decides, whatever the call', async () => {
  const order: string[] = []
  const ask = async (name: string, priority?: 'batch' | 'interactive'): Promise<void> => {
    await Promise.all(Array.from({ length: 40 }, (_, i) => demo.generate(prompt(i), { ...exact(32), priority })))
    order.push(name)
  }
  await Promise.all([ask('batch', 'batch'), ask('usual'), ask('interactive', 'interactive')])
  expect(order[2]).toBe('batch')
  const answers: number[] = []
  for await (const item of demo.generateEach([prompt(0), prompt(1)], { ...exact(2), priority: 'interactive' })) answers.push(item.index)
  expect(answers.sort()).toEqual([0, 1])
  expect((await demo.score(text, { priority: 'interactive' })).logprob).toBe((await demo.score(text)).logprob)
  const pair = { context: 'Rome is', continuation: ' the capital' }
  expect(await demo.loglikelihood([pair], { priority: 'interactive' })).toEqual(await demo.loglikelihood([pair]))
  expect((await demo.logits(prompt(0), { priority: 'batch' })).data).toEqual((await demo.logits(prompt(0))).data)
  for (const priority of ['high', 1, null, true]) {
    const wrong = { priority } as object
    for (const call of [demo.generate(prompt(0), wrong), demo.score(text, wrong), demo.logits(prompt(0), wrong),
      demo.loglikelihood([pair], wrong)]) {
      expect(await failure(call)).toMatchObject({ code: 'INVALID_OPTION', option: 'priority', value: priority })
    }
  }
})

test('batch work ends although questions never do', async () => {
  const small = await loadDemo({ maxSequences: 2 })
  let asking = true
  let asked = 0
  const lanes = Promise.all(Array.from({ length: 6 }, async (_, lane) => {
    while (asking) {
      await small.generate(prompt(lane), { ...exact(8), cacheSalt: String(lane % 3) })
      asked++
    }
  }))
  try {
    let done = 0
    for await (const item of small.generateEach([prompt(0), prompt(1)], exact(20))) done += item.ok ? 1 : 0
    expect(done).toBe(2)
    expect(asked).toBeGreaterThan(6)
  } finally {
    asking = false
    await lanes
    await small.dispose()
  }
}, 120_000)

test('what made place for others is what it is alone', async () => {
  const options = { ...exact(48), logprobs: 2, temperature: 0.9, seed: 11 }
  const alone = await demo.generate(prompt(1), { ...options, n: 3 })
  const beams = await demo.generate(prompt(2), { ...exact(48), numBeams: 4 })
  const before = demo.stats().counters.steps
  const crowd = Promise.all(Array.from({ length: 60 }, (_, i) => demo.generate(prompt(i), { ...exact(48), priority: 'batch' })))
  const both = Promise.all([
    demo.generate(prompt(1), { ...options, n: 3, priority: 'batch' }),
    demo.generate(prompt(2), { ...exact(48), numBeams: 4, priority: 'batch' }),
  ])
  await Promise.all(Array.from({ length: 100 }, (_, i) => demo.generate(prompt(i), { ...exact(1 + i % 30), cacheSalt: String(i % 9) })))
  await crowd
  expect(demo.stats().counters.steps).toBeGreaterThan(before)
  const [sampled, searched] = await both
  expect(sampled.outputs.map(({ tokens, logprobs }) => [Array.from(tokens), logprobs]))
    .toEqual(alone.outputs.map(({ tokens, logprobs }) => [Array.from(tokens), logprobs]))
  expect(searched.outputs.map(({ tokens, score }) => [Array.from(tokens), score]))
    .toEqual(beams.outputs.map(({ tokens, score }) => [Array.from(tokens), score]))
})
