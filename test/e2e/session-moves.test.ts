// session-moves.test.ts: fork, rewind, append, logits and the prefix cache's salts: each compared with a session or a
// model that came to the same place on another way.
import fc from 'fast-check'
import type { Message, Model, Session } from '../../lib/index.js'
import { example, failure, idle, loadDemo, loadTiny } from './models.js'

let model: Model
beforeAll(async () => { model = await loadDemo() })
afterAll(async () => { await model.dispose() })

const options = { maxTokens: 20 }
const question = (city: string): string => `${city} is the capital of Italy.\nTranslate this sentence from English to German.`
const ids = (session: Session): number[] => Array.from(session.tokens)

async function talk(template: 'assistant' | 'multialpaca' | 'none', ...messages: string[]): Promise<Session> {
  const chat = model.createSession({ template })
  for (const message of messages) await chat.send(message, options)
  return chat
}

describe('fork', () => {
  test.each(['assistant', 'none'] as const)('of %s goes on alone, as its origin would have', async template => {
    const chat = await talk(template, example)
    const before = [...chat.history]
    const other = chat.fork()
    const answer = await other.send(question('Rome'), options)
    expect(chat.history).toEqual(before)
    await chat.send(question('Milan'), options)
    expect(other.history).toHaveLength(4)
    const straight = await talk(template, example, question('Rome'))
    expect(other.history).toEqual(straight.history)
    expect(ids(other)).toEqual(ids(straight))
    await chat.dispose()
    expect(other.history[3]?.content).toBe(answer.text)
    expect((await other.send('x', { maxTokens: 1 })).usage.promptTokens).toBeGreaterThan(answer.usage.promptTokens)
  })

  test('shares what was said: a fork of a long conversation is no copy', () => {
    const history = Array.from({ length: 512 }, (_, i): Message => ({ role: i % 2 === 0 ? 'user' : 'assistant', content: 'a' }))
    const chat = model.createSession({ template: 'none', history })
    const before = process.memoryUsage().heapUsed
    const forks = Array.from({ length: 20_000 }, () => chat.fork())
    expect(forks.at(-1)?.history).toEqual(history)
    const perFork = (process.memoryUsage().heapUsed - before) / forks.length
    expect(perFork).toBeLessThan(3000)                              // the references alone would be 4096 bytes
  })

  test('is of what was said, not of what still runs', async () => {
    const chat = model.createSession()
    const running = chat.send(example, options)
    const other = chat.fork()
    await running
    expect(other.history).toEqual([])
    expect(chat.fork().history).toHaveLength(2)
    const stream = await chat.stream(question('Rome'), options)
    for await (const _ of stream) { /* all of it */ }
    expect(chat.fork().history).toHaveLength(4)
  })
})

describe('rewind', () => {
  test.each(['assistant', 'multialpaca', 'none'] as const)('of %s by turns: as if it had never been said', async template => {
    const chat = await talk(template, example, question('Rome'), question('Milan'))
    await chat.rewind({ turns: 2 })
    const straight = await talk(template, example)
    expect(chat.history).toEqual(straight.history)
    expect(ids(chat)).toEqual(ids(straight))
    const [a, b] = await Promise.all([chat, straight].map(session => session.send(question('Milan'), options)))
    expect(a?.outputs[0]?.tokens).toEqual(b?.outputs[0]?.tokens)
    await chat.rewind({ turns: 2 })
    expect([chat.history, ids(chat)]).toEqual([[], []])
  })

  test('takes effect at once when nothing runs, else in its turn', async () => {
    const chat = await talk('assistant', example)
    void chat.rewind({ turns: 1 })
    expect(chat.history).toEqual([])
    const running = chat.send(example, options)
    const after = chat.rewind({ turns: 1 })
    await chat.send(question('Rome'), options)
    await Promise.all([running, after])
    expect(chat.history.map(({ content }) => content)[0]).toBe(question('Rome'))
    expect(chat.history).toHaveLength(2)
  })

  test('into a history that was given, with template none', async () => {
    const history = ['one two', ' three', ' four'].map((content): Message => ({ role: 'user', content }))
    const chat = model.createSession({ template: 'none', history })
    await chat.rewind({ turns: 1 })
    expect(ids(chat)).toEqual(Array.from(model.tokenizer.encode('one two three')))
  })

  test('by tokens: every prefix of the text, from any mixture of texts and ids', async () => {
    const chat = model.createSession({
      template: 'none', history: [{ role: 'user', content: 'Rome is' }, { role: 'assistant', content: ' the' }],
    })
    await chat.append(' capital of')
    await chat.append({ tokens: [70, 80, 90] })
    await chat.send(' Italy', { maxTokens: 3, stopTokenIds: [] })
    const whole = ids(chat)
    for (let n = 0; n <= whole.length; n++) {
      const cut = chat.fork()
      await cut.rewind({ tokens: n })
      expect(ids(cut)).toEqual(whole.slice(0, whole.length - n))
      if (n % 3 === 0 && n < whole.length) {
        const expected = await model.generate({ tokens: [...ids(cut), 9] }, { maxTokens: 3, stopTokenIds: [] })
        const { outputs } = await cut.send({ tokens: [9] }, { maxTokens: 3, stopTokenIds: [] })
        expect(outputs[0]?.tokens).toEqual(expected.outputs[0]?.tokens)
      }
    }
    expect((await failure(chat.rewind({ tokens: whole.length + 1 }))).code).toBe('INVALID_OPTION')
    expect(ids(chat)).toEqual(whole)
  })

  test('the message that was cut says what is left of it', async () => {
    const chat = model.createSession({ template: 'none' })
    await chat.append('Rome is the capital')
    await chat.rewind({ tokens: 1 })
    expect(chat.history).toHaveLength(1)
    expect(chat.history[0]?.content).toBe(model.tokenizer.decode(chat.tokens))
  })

  test.each([[{}], [{ turns: 1, tokens: 1 }], [{ turns: -1 }], [{ turns: 1.5 }], [{ turns: 2 }], [{ tokens: 1 }], [{ rounds: 1 }], [5]])(
    '%p is refused and changes nothing', async target => {
      const chat = await talk('assistant', example)
      const before = chat.history
      expect((await failure(chat.rewind(target as { turns: number }))).code).toBe('INVALID_OPTION')
      expect(chat.history).toEqual(before)
    })
})

describe('append', () => {
  test.each(['assistant', 'multialpaca'] as const)('of a round to %s is a history with it', async template => {
    const chat = model.createSession({ template })
    const messages: Message[] = [{ role: 'user', content: example }, { role: 'assistant', content: 'yes' }]
    await chat.append(example)
    await chat.append({ messages: messages.slice(1) })
    expect(chat.history).toEqual(messages)
    const answer = await chat.send(question('Rome'), options)
    const same = model.createSession({ template, history: messages })
    expect((await same.send(question('Rome'), options)).outputs[0]?.tokens).toEqual(answer.outputs[0]?.tokens)
  })

  test('refuses what the template cannot render, and leaves no trace', async () => {
    const chat = await talk('assistant', example)
    const before = chat.history
    for (const prompt of [{ messages: [{ role: 'assistant', content: 'x' }] }, { messages: [] }, { tokens: [1] }, '<|user|>', 5,
      { messages: [{ role: 'system', content: 'x' }] }]) {
      expect((await failure(chat.append(prompt as string))).code).toBe('INVALID_PROMPT')
    }
    expect((await failure(chat.append({ messages: [{ role: 'user', content: 'x' }], template: 'none' }))).code).toBe('INVALID_OPTION')
    expect((await failure(chat.append('x', { maxTokens: 5 } as object))).code).toBe('INVALID_OPTION')
    expect(chat.history).toEqual(before)
    await chat.append('<|user|>', { controlText: 'escape' })
    expect(chat.history).toHaveLength(3)
  })

  test('after dispose or while it waits is DISPOSED', async () => {
    const chat = model.createSession({ template: 'none' })
    const running = failure(chat.send(example, { maxTokens: 150, stopTokenIds: [] }))
    const waiting = [chat.append('x'), chat.rewind({ turns: 0 }), chat.logits()].map(failure)
    await chat.dispose()
    for (const { code } of await Promise.all([running, ...waiting])) expect(code).toBe('DISPOSED')
    expect(() => chat.fork()).toThrow(expect.objectContaining({ code: 'DISPOSED' }))
    await idle(model)
  })
})

describe('logits', () => {
  test('after appended ids are those of the model after the same ids', async () => {
    const tiny = await loadTiny()
    const chat = tiny.createSession({ template: 'none' })
    expect((await failure(chat.logits())).code).toBe('INVALID_PROMPT')
    await chat.append({ tokens: [5, 6, 7] })
    await chat.append({ tokens: [8] })
    const after = await chat.logits()
    expect(after).toHaveLength(tiny.info.vocabSize)
    expect(after).toEqual((await tiny.logits({ tokens: [5, 6, 7, 8] })).data)
    const best = after.indexOf(Math.max(...after))
    expect((await chat.send({ tokens: [9] }, { maxTokens: 1, stopTokenIds: [] })).usage.promptTokens).toBe(5)
    await chat.rewind({ turns: 1 })
    expect((await tiny.generate({ tokens: ids(chat) }, { maxTokens: 1, stopTokenIds: [] })).outputs[0]?.tokens[0]).toBe(best)
    await tiny.dispose()
  })

  test.each(['assistant', 'multialpaca'] as const)('of %s are what send chooses from', async template => {
    const chat = model.createSession({ template })
    await chat.append(example)
    const messages: Message[] = [{ role: 'user', content: example }]
    expect(await chat.logits()).toEqual((await model.logits({ messages, template })).data)
    await chat.append({ messages: [{ role: 'assistant', content: 'so' }] })
    expect(await chat.logits()).toEqual((await model.logits({ tokens: chat.tokens })).data)
  })

  test('an abort is the signal\'s reason', async () => {
    const chat = model.createSession({ template: 'none' })
    await chat.append(example)
    expect(await failure(chat.logits({ signal: AbortSignal.abort('no') }))).toBe('no')
    expect((await chat.logits()).length).toBe(model.info.vocabSize)
  })
})

test('nothing that an appended message says becomes a special token', async () => {
  const special = model.tokenizer.specialTokens.all.filter(({ id }) => id !== model.tokenizer.specialTokens.unk?.id)
  const known = new Set(special.map(({ id }) => id))
  const piece = fc.oneof(fc.constantFrom(...special.map(({ content }) => content), '<|user|>', '<', '|', '>', '\u2581', '/s>'),
    fc.string({ unit: 'binary', maxLength: 4 }))
  const content = fc.array(piece, { maxLength: 8 }).map(pieces => pieces.join(''))
  await fc.assert(fc.asyncProperty(content, fc.constantFrom('assistant', 'multialpaca', 'none'), async (text, template) => {
    const chat = model.createSession({ template: template as 'none' })
    await chat.append({ messages: [{ role: 'user', content: text }] }, { controlText: 'escape' })
    expect(ids(chat).filter(id => known.has(id))).toEqual([])
  }), { numRuns: 100 })
})

describe('the prefix cache', () => {
  const long = { tokens: Array.from({ length: 120 }, (_, i) => (i * 37) % 500) }
  const one = { maxTokens: 1, stopTokenIds: [] }
  const cached = async (given: Model, salt?: string): Promise<number> =>
    (await given.generate(long, salt === undefined ? one : { ...one, cacheSalt: salt })).usage.cachedTokens

  test('is shared within a salt and not across', async () => {
    const tiny = await loadTiny()
    expect(await cached(tiny)).toBe(0)
    expect(await cached(tiny)).toBeGreaterThan(60)
    expect(await cached(tiny, '')).toBeGreaterThan(60)
    expect(await cached(tiny, 'a')).toBe(0)
    expect(await cached(tiny, 'b')).toBe(0)
    expect(await cached(tiny, 'a')).toBeGreaterThan(60)
    expect(await cached(tiny, 'a\0')).toBe(0)
    expect(await cached(tiny, 'A')).toBe(0)
    const { counters } = tiny.stats()
    expect(counters.cachedTokens).toBeGreaterThan(180)
    await tiny.dispose()
  })

  test('scores and logits use their salt and give the same numbers', async () => {
    const tiny = await loadTiny()
    const counted = async (work: () => Promise<unknown>): Promise<number> => {
      const before = tiny.stats().counters.cachedTokens
      await work()
      return tiny.stats().counters.cachedTokens - before
    }
    const cold = await tiny.logits(long, { cacheSalt: 'x' })
    expect(await counted(async () => { expect(await tiny.logits(long, { cacheSalt: 'x' })).toEqual(cold) })).toBeGreaterThan(60)
    expect(await counted(async () => { expect(await tiny.logits(long, { cacheSalt: 'y' })).toEqual(cold) })).toBe(0)
    const item = { context: long, continuation: { tokens: [3] } }
    const first = await tiny.loglikelihood([item], { cacheSalt: 'z' })
    expect(await counted(async () => { expect(await tiny.loglikelihood([item], { cacheSalt: 'z' })).toEqual(first) })).toBeGreaterThan(60)
    expect(await counted(async () => { expect(await tiny.loglikelihood([item], { cacheSalt: 'w' })).toEqual(first) })).toBe(0)
    const whole = await tiny.score(long, { cacheSalt: 'v' })
    expect((await tiny.score(long, { cacheSalt: 'v' })).logprob).toBe(whole.logprob)
    await tiny.dispose()
  })

  test('a session has its salt, its forks too, and a call may name another', async () => {
    const tiny = await loadTiny()
    const make = (cacheSalt: string): Session => tiny.createSession({ template: 'none', cacheSalt })
    const chat = make('tenant 1')
    expect((await chat.send(long, one)).usage.cachedTokens).toBe(0)
    expect((await chat.fork().send({ tokens: [4] }, one)).usage.cachedTokens).toBeGreaterThan(60)
    expect((await make('tenant 2').send(long, one)).usage.cachedTokens).toBe(0)
    expect((await make('tenant 3').send(long, { ...one, cacheSalt: 'tenant 1' })).usage.cachedTokens).toBeGreaterThan(60)
    expect((await make('').send(long, one)).usage.cachedTokens).toBe(0)
    await tiny.dispose()
  })

  test('can be switched off; the tokens are the same', async () => {
    const [on, off] = await Promise.all([loadTiny(), loadTiny({ prefixCache: false })])
    const more = { maxTokens: 12, stopTokenIds: [] }
    const cold = await off.generate(long, more)
    expect((await off.generate(long, more)).usage.cachedTokens).toBe(0)
    await on.generate(long, more)
    const warm = await on.generate(long, more)
    expect(warm.usage.cachedTokens).toBeGreaterThan(60)
    expect(warm.outputs[0]?.tokens).toEqual(cold.outputs[0]?.tokens)
    expect(on.stats().kv.usedTokens).toBe(0)
    await Promise.all([on.dispose(), off.dispose()])
  })
})
