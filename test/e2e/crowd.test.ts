// crowd.test.ts: a thousand callers at once, of every kind, each of which must get bit for bit what it gets alone;
// then the same while others abort, fork and dispose at random moments. Larger: POLYLM_CROWD=10000, POLYLM_CROWD_TOKENS=60;
// other cases: POLYLM_SEED.
import type { GenerateOptions, GenerateResult, Model, Prompt, Session } from '../../lib/index.js'
import { essence, make, randomAsk, randomFrom, type Ask } from './crowd.js'
import { idle, loadDemo, sleep } from './models.js'

const count = Number(process.env['POLYLM_CROWD'] ?? 1000)
const mostTokens = Number(process.env['POLYLM_CROWD_TOKENS'] ?? 16)
const seed = Number(process.env['POLYLM_SEED'] ?? 20230711)

// One that serves everybody, and one that serves one at a time and remembers nothing.
let crowd: Model
let alone: Model
beforeAll(async () => {
  [crowd, alone] = await Promise.all([loadDemo({ maxSequences: 64 }), loadDemo({ maxSequences: 8, prefixCache: false })])
})
afterAll(async () => { await Promise.all([crowd.dispose(), alone.dispose()]) })

const asks = (random: () => number, n: number): Ask[] =>
  Array.from({ length: n }, () => randomAsk(random, crowd.info.vocabSize, mostTokens))

test(`${count} calls at once: each equals its run alone, bit for bit`, async () => {
  const all = asks(randomFrom(seed), count)
  const together = await Promise.all(all.map(ask => make(crowd, ask)))
  for (const [i, ask] of all.entries()) expect([i, await make(alone, ask)]).toEqual([i, together[i]])
  expect(crowd.stats()).toMatchObject({ running: 0, waiting: 0, kv: { usedTokens: 0 } })
  expect(crowd.stats().counters.cachedTokens).toBeGreaterThan(count * 5)
  expect(alone.stats().counters.cachedTokens).toBe(0)
  expect(crowd.stats().counters.steps).toBeLessThan(alone.stats().counters.steps / 4)
}, 600_000)

/** A conversation of three turns that is forked after the first; what all four answers were. */
async function talk(model: Model, ask: Ask): Promise<string[]> {
  if (ask.kind !== 'generate') return [await make(model, ask)]
  const options = { ...ask.options, maxTokens: 8, n: 1 } as GenerateOptions
  const chat = model.createSession({ template: 'none' })
  const answers = [essence(await chat.send(ask.prompt, options))]
  const other = chat.fork()
  const turns = async (session: Session, text: string): Promise<void> => {
    for (const part of [text, ' and then']) answers.push(`${text} ${essence(await session.send(part, options))}`)
  }
  await Promise.all([turns(chat, ' one'), turns(other, ' two')])
  await Promise.all([chat.dispose(), other.dispose()])
  return answers.sort()
}

test('calls that begin alike and come together pay for the beginning once', async () => {
  const shared = Array.from({ length: 100 }, (_, i) => 5 + i)
  const prompts = Array.from({ length: 8 }, (_, i) => ({ tokens: [...shared, 200 + i, 300] }))
  const ask = (model: Model, prompt: Prompt, cacheSalt: string): Promise<GenerateResult> =>
    model.generate(prompt, { maxTokens: 5, cacheSalt })
  const before = crowd.stats().counters
  const together = await Promise.all(prompts.map(prompt => ask(crowd, prompt, 'alike')))
  expect(crowd.stats().counters.cachedTokens - before.cachedTokens).toBe(7 * 96)        // whole blocks of 32
  expect(together.map(({ usage }) => usage.cachedTokens).sort((a, b) => a - b)).toEqual([0, ...Array(7).fill(96)])
  const strangers = await Promise.all(prompts.map((prompt, i) => ask(crowd, prompt, `tenant ${i}`)))
  expect(strangers.map(({ usage }) => usage.cachedTokens)).toEqual(Array(8).fill(0))
  expect(strangers.map(essence)).toEqual(together.map(essence))
})

test('aborts, forks and disposals at random moments change nobody else\'s result', async () => {
  const random = randomFrom(seed + 1)
  const all = asks(random, Math.ceil(count / 4))
  // A moment is when so many calls have come back: however fast the machine is, calls are running then.
  const plans = all.map(() => ({ what: random(), moment: 1 + Math.floor(random() * all.length / 2) }))
  const waiting: Array<{ moment: number; act: () => void }> = []
  let back = 0
  const settled = (): void => {
    back++
    for (const { moment, act } of waiting) if (moment === back) act()
  }
  let [aborted, ended, talked] = [0, 0, 0]
  const one = async (ask: Ask, i: number): Promise<string[] | undefined> => {
    const { what, moment } = plans[i] as { what: number; moment: number }
    if (what < 0.3 && ask.kind === 'generate') {
      const controller = new AbortController()
      waiting.push({ moment, act: () => { controller.abort('enough') } })
      try {
        return [essence(await crowd.generate(ask.prompt, { ...ask.options, signal: controller.signal }))]
      } catch (e) {
        expect(e).toBe('enough')
        aborted++
        return undefined
      }
    }
    if (what < 0.45 && ask.kind === 'generate') {              // a conversation that is disposed of in the middle
      const chat = crowd.createSession({ template: 'none' })
      waiting.push({ moment: Math.ceil(moment / 8), act: () => { void chat.dispose() } })     // sessions come soon
      try {
        return [essence(await chat.send(ask.prompt, ask.options))]
      } catch (e) {
        expect(e).toMatchObject({ code: 'DISPOSED' })
        ended++
        return undefined
      }
    }
    if (what < 0.65) {
      talked++
      return await talk(crowd, ask)
    }
    return [await make(crowd, ask)]
  }
  const together = await Promise.all(all.map((ask, i) => one(ask, i).finally(settled)))
  await idle(crowd)
  expect(crowd.stats().kv.usedTokens).toBe(0)
  for (const [i, ask] of all.entries()) {
    const got = together[i]
    if (got === undefined) continue
    const { what } = plans[i] as { what: number }
    const forks = what >= 0.45 && what < 0.65
    expect([i, forks ? await talk(alone, ask) : [await make(alone, ask)]]).toEqual([i, got])
  }
  expect(Math.min(aborted, talked)).toBeGreaterThan(count / 100)
  expect(ended).toBeGreaterThan(count / 200)
}, 600_000)

test('models that are disposed of in the middle leave the others alone', async () => {
  const random = randomFrom(seed + 2)
  const all = asks(random, 60)
  const expected = await Promise.all(all.map(ask => make(crowd, ask)))
  for (let round = 0; round < 4; round++) {
    const other = await loadDemo()
    const ends = all.map(ask => make(other, ask).then(
      (got): string | undefined => got, (e: unknown) => { expect(e).toMatchObject({ code: 'DISPOSED' }); return undefined }))
    const again = Promise.all(all.map(ask => make(crowd, ask)))
    await sleep(random() * 300)
    await other.dispose()
    expect((await Promise.all(ends)).filter((got, i) => got !== undefined && got !== expected[i])).toEqual([])
    expect(await again).toEqual(expected)
  }
}, 600_000)
