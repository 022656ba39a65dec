// session.test.ts: conversations: what a turn sends, what it leaves behind, and what a failed one does not.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import type { Message, Model } from '../../lib/index.js'
import { example, failure, idle, loadDemo, loadTiny } from './models.js'

let model: Model
beforeAll(async () => { model = await loadDemo() })
afterAll(async () => { await model.dispose() })

const options = { maxTokens: 30 }
const question = (city: string, country: string): string =>
  `${city} is the capital of ${country}.\nTranslate this sentence from English to German.`

describe('a turn', () => {
  test.each(['assistant', 'multialpaca'] as const)('of %s is generate over all messages', async template => {
    const chat = model.createSession({ template })
    const first = await chat.send(example, options)
    const second = await chat.send(question('Rome', 'Italy'), options)
    const messages: Message[] = [{ role: 'user', content: example }]
    expect((await model.generate({ messages, template }, options)).text).toBe(first.text)
    messages.push({ role: 'assistant', content: first.text }, { role: 'user', content: question('Rome', 'Italy') })
    expect((await model.generate({ messages, template }, options)).text).toBe(second.text)
    expect(chat.history).toEqual([...messages, { role: 'assistant', content: second.text }])
    expect(second.usage.promptTokens).toBeGreaterThan(first.usage.promptTokens + first.usage.completionTokens)
    await chat.dispose()
  })

  test('with template none the tokens go on exactly where they ended', async () => {
    const chat = model.createSession({ template: 'none' })
    const first = await chat.send('Rome is the capital', { maxTokens: 3, stopTokenIds: [] })
    const tokens = [...model.tokenizer.encode('Rome is the capital'), ...(first.outputs[0]?.tokens ?? [])]
    expect(Array.from(chat.tokens)).toEqual(tokens)
    expect(chat.contextUsed).toBe(tokens.length)
    const second = await chat.send({ tokens: [5, 6] }, { maxTokens: 4, stopTokenIds: [] })
    const alone = await model.generate({ tokens: [...tokens, 5, 6] }, { maxTokens: 4, stopTokenIds: [] })
    expect(second.outputs[0]?.tokens).toEqual(alone.outputs[0]?.tokens)
    expect(Array.from(chat.tokens)).toEqual([...tokens, 5, 6, ...(alone.outputs[0]?.tokens ?? [])])
  })

  test('with template none a stop token and a cut stop string do not stay', async () => {
    const chat = model.createSession({ template: 'none' })
    const { outputs } = await chat.send(example, options)
    expect(outputs[0]?.finishReason).toBe('stop')
    expect(chat.tokens.at(-1)).toBe(outputs[0]?.tokens.at(-2))
    const other = model.createSession({ template: 'none' })
    const { text } = await other.send(example, { ...options, stop: '中国' })
    expect(model.tokenizer.decode(other.tokens)).toBe(model.tokenizer.decode(model.tokenizer.encode(example)) + text)
  })

  test('as a stream', async () => {
    const chat = model.createSession()
    const stream = await chat.stream(example, options)
    let text = ''
    for await (const part of stream.textStream) text += part
    expect(text.trim()).toBe('北京是中国的首都。')
    expect((await chat.send(question('Rome', 'Italy'), options)).usage.promptTokens).toBeGreaterThan(40)
    expect(chat.history.map(({ role }) => role)).toEqual(['user', 'assistant', 'user', 'assistant'])
    expect(chat.history[1]?.content).toBe(text)
  })

  test('turns that are asked for together run one after the other', async () => {
    const chat = model.createSession()
    const asked = [example, question('Rome', 'Italy'), question('Paris', 'France')]
    const answers = await Promise.all([chat.send(asked[0] ?? '', options), chat.send(asked[1] ?? '', options),
      chat.stream(asked[2] ?? '', options).then(async stream => await stream.result)])
    await chat.send('x', { maxTokens: 1 })
    expect(chat.history.filter(({ role }) => role === 'user').map(({ content }) => content)).toEqual([...asked, 'x'])
    expect(chat.history[1]?.content).toBe(answers[0].text)
    expect(chat.history[5]?.content).toBe(answers[2].text)
  })

  test('a history and a function as template', async () => {
    const history = [{ role: 'user', content: 'a' }, { role: 'assistant', content: 'b' }] as const
    const chat = model.createSession({ history })
    expect(chat.history).toEqual(history)
    expect(chat.contextUsed).toBe(model.tokenizer.count('<|user|>\na\n<|assistant|>\nb\n'))
    const seen: string[] = []
    const template = (messages: readonly Message[]): string[] => {
      seen.push(messages.map(({ role }) => role).join())
      return messages.map(({ content }) => `${content}\n`)
    }
    const custom = model.createSession({ template, system: 'be brief', history })
    await custom.send('c', { maxTokens: 2 })
    expect(seen.at(-1)).toBe('system,user,assistant,user')
    expect(custom.history[0]).toEqual({ role: 'system', content: 'be brief' })
  })
})

test('nothing that a message says becomes a special token', () => {
  const special = model.tokenizer.specialTokens.all.filter(({ id }) => id !== model.tokenizer.specialTokens.unk?.id)
  expect(special.length).toBeGreaterThan(0)
  const ids = new Set(special.map(({ id }) => id))
  const piece = fc.oneof(
    fc.constantFrom(...special.map(({ content }) => content), '<|user|>', '<|assistant|>', '<', '|', '>', '\u2581', '\n', ' ', '/s>'),
    fc.string({ unit: 'binary', maxLength: 5 }))
  const content = fc.array(piece, { maxLength: 8 }).map(pieces => pieces.join(''))
  fc.assert(fc.property(content, content, fc.constantFrom('assistant', 'multialpaca', 'none'), (asked, answered, template) => {
    const history = [{ role: 'user', content: asked }, { role: 'assistant', content: answered }] as const
    const { tokens } = model.createSession({ template: template as 'none', history })
    expect(Array.from(tokens).filter(id => ids.has(id))).toEqual([])
  }), { numRuns: 200 })
})

describe('an answer that holds a marker', () => {
  const marker = '<|user|>'
  const answer = { maxTokens: 40, allow: { choices: [`so ${marker}\nnow\n<|assistant|>`] } }
  // The tokens of the marker where a speaker begins; none may be in what the answer became.
  const speakers = (tokens: Int32Array): number => model.tokenizer.decode(tokens).split(marker).length - 1

  test.each(['assistant', 'multialpaca', 'none'] as const)('does not poison the conversation (%s)', async template => {
    const chat = model.createSession({ template })
    const { text } = await chat.send('Say', answer)
    expect(text).toContain(marker)
    await chat.send('And', options)
    const forked = chat.fork()
    await forked.append('more')
    expect((await forked.logits()).length).toBe(model.info.vocabSize)
    const stream = await chat.stream('Once again', options)
    await stream.result
    await chat.append({ messages: [{ role: 'user', content: 'x' }, { role: 'assistant', content: text }] })
    expect(chat.history[1]?.content).toBe(text)
    if (template === 'assistant') expect(speakers(chat.tokens)).toBe(4)
    const again = model.createSession({ template, history: chat.history })
    await again.send('And', options)
  })

  test('nor when it is restored, or given as messages', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'polylm-'))
    const chat = model.createSession()
    const { text } = await chat.send('Say', answer)
    await chat.save(path.join(folder, 'chat.plm'))
    const again = await model.restoreSession(path.join(folder, 'chat.plm'))
    rmSync(folder, { recursive: true })
    expect(again.history[1]?.content).toBe(text)
    const given = [...again.history, { role: 'user', content: 'And' }] as const
    const expected = await again.send('And', options)
    expect((await model.generate({ messages: given }, options)).text).toBe(expected.text)
  })

  test('a user\'s message is held against it once, when it comes', async () => {
    const chat = model.createSession()
    expect((await failure(chat.send(marker, options))).code).toBe('INVALID_PROMPT')
    await chat.send(marker, { ...options, controlText: 'escape' })
    await chat.send('And', options)
    const other = model.createSession({ history: chat.history })
    await other.send('And', options)
    expect(speakers(other.tokens)).toBe(3)
    expect((await failure(other.send(marker, options))).code).toBe('INVALID_PROMPT')
  })

  test('more messages than a prompt may have, and more text than can fit, are no end either', async () => {
    const history = Array.from({ length: 500 }, (_, i): Message =>
      ({ role: i % 2 === 0 ? 'user' : 'assistant', content: 'word '.repeat(20) }))
    const chat = model.createSession({ history, onOverflow: 'dropOldestTurns' })
    for (let i = 0; i < 7; i++) await chat.append({ messages: [{ role: 'user', content: 'x' }, { role: 'assistant', content: 'y' }] })
    await chat.send('Hi', { maxTokens: 1 })
    expect(chat.history.at(-2)).toEqual({ role: 'user', content: 'Hi' })
  })
})

describe('no trace', () => {
  test('of a turn that failed, was aborted or left', async () => {
    const chat = model.createSession()
    await chat.send(example, options)
    const before = [...chat.history]
    expect((await failure(chat.send('x', { topK: -1 }))).code).toBe('INVALID_OPTION')
    expect((await failure(chat.send('<|user|>'))).code).toBe('INVALID_PROMPT')
    expect((await failure(chat.send('word '.repeat(400), options))).code).toBe('CONTEXT_OVERFLOW')
    const reason = { why: 'enough' }
    const controller = new AbortController()
    const aborted = chat.send('Rome', { maxTokens: 100, stopTokenIds: [], signal: controller.signal })
    setTimeout(() => { controller.abort(reason) }, 5)
    expect(await failure(aborted)).toBe(reason)
    const left = await chat.stream('Rome', { maxTokens: 100, stopTokenIds: [] })
    for await (const event of left) if (event.type === 'text') break
    await left.result
    await chat.send('y', { maxTokens: 1 })
    expect(chat.history.slice(0, -2)).toEqual(before)
  })

  test('but with onAbort return the part stays', async () => {
    const chat = model.createSession()
    const controller = new AbortController()
    const stream = await chat.stream(example, { ...options, stopTokenIds: [], signal: controller.signal, onAbort: 'return' })
    for await (const event of stream) if (event.type === 'text' && event.text !== '') controller.abort()
    const { text, outputs } = await stream.result
    await chat.send('y', { maxTokens: 1 })
    expect(outputs[0]?.finishReason).toBe('abort')
    expect(chat.history[1]).toEqual({ role: 'assistant', content: text })
  })
})

describe('a full context', () => {
  test('is an error, or the oldest rounds are forgotten', async () => {
    const history = Array.from({ length: 24 }, (_, i): Message =>
      ({ role: i % 2 === 0 ? 'user' : 'assistant', content: `message number ${i} with some words` }))
    const strict = model.createSession({ history })
    expect((await failure(strict.send(example, options))).code).toBe('CONTEXT_OVERFLOW')
    expect(strict.history).toEqual(history)
    const lenient = model.createSession({ history, onOverflow: 'dropOldestTurns' })
    await lenient.send(example, options)
    const kept = lenient.history.slice(0, -2)
    expect(kept.length).toBeGreaterThan(0)
    expect(kept.length).toBeLessThan(history.length)
    expect(kept).toEqual(history.slice(history.length - kept.length))
    expect(kept[0]?.role).toBe('user')
    expect((await failure(lenient.send('word '.repeat(400), options))).code).toBe('CONTEXT_OVERFLOW')
  })
})

describe('refusals', () => {
  test.each([
    [{ template: 'chatml' }, 'INVALID_OPTION'], [{ system: 'x' }, 'INVALID_OPTION'], [{ system: 5, template: () => [] }, 'INVALID_OPTION'],
    [{ cacheSalt: 5 }, 'INVALID_OPTION'],
    [{ cacheSalt: '\ud800' }, 'INVALID_OPTION'], [{ cacheSalt: 'x'.repeat(257) }, 'INVALID_OPTION'],
    [{ templte: 'none' }, 'INVALID_OPTION'], [{ onOverflow: 'truncateLeft' }, 'INVALID_OPTION'],
    [{ history: [{ role: 'user', content: 'x' }] }, 'INVALID_PROMPT'], [{ history: 'x' }, 'INVALID_PROMPT'], [5, 'INVALID_OPTION'],
  ])('createSession(%p): %s', (given, code) => {
    expect(() => model.createSession(given as object)).toThrow(expect.objectContaining({ code }))
  })

  test('truncateLeft and token ids in a conversation', async () => {
    const chat = model.createSession()
    expect((await failure(chat.send('x', { onOverflow: 'truncateLeft', maxTokens: 3 }))).message).toContain('dropOldestTurns')
    expect((await failure(chat.send({ tokens: [1] }))).code).toBe('INVALID_PROMPT')
  })

  test('text without a tokenizer; ids work with template none', async () => {
    const tiny = await loadTiny()
    const chat = tiny.createSession({ template: 'none' })
    expect((await failure(chat.send('x'))).code).toBe('TOKENIZER_MISSING')
    await chat.send({ tokens: [7, 8] }, { maxTokens: 3, stopTokenIds: [] })
    expect(chat.contextUsed).toBe(5)
    await tiny.dispose()
    expect(() => chat.tokens).toThrow(expect.objectContaining({ code: 'DISPOSED' }))
    expect((await failure(chat.send({ tokens: [7] }))).code).toBe('DISPOSED')
  })
})

test('dispose aborts what runs and waits, forgets, and may be called twice', async () => {
  const chat = model.createSession()
  const running = failure(chat.send('Rome', { maxTokens: 150, stopTokenIds: [] }))
  const waiting = failure(chat.send('Rome', options))
  const stream = failure(chat.stream('Rome', options))
  await Promise.all([chat.dispose(), chat.dispose(), chat[Symbol.asyncDispose]()])
  expect((await Promise.all([running, waiting, stream])).map(({ code }) => code)).toEqual(['DISPOSED', 'DISPOSED', 'DISPOSED'])
  expect((await failure(chat.send('x'))).code).toBe('DISPOSED')
  expect(chat.history).toEqual([])
  await idle(model)
})
