// stream.test.ts: streams: their events, their one consumer, leaving early, aborting, slow readers.
import type { GenerateStream, Model, StreamEvent, TextEvent } from '../../lib/index.js'
import { example, failure, idle, loadDemo, sleep } from './models.js'

let model: Model
beforeAll(async () => { model = await loadDemo() })
afterAll(async () => { await model.dispose() })
afterEach(async () => {
  await idle(model)
  expect(model.stats().kv.usedTokens).toBe(0)
})

const long = { maxTokens: 150, stopTokenIds: [] }

async function collect(stream: GenerateStream): Promise<StreamEvent[]> {
  const events: StreamEvent[] = []
  for await (const event of stream) events.push(event)
  return events
}

const texts = (events: StreamEvent[], output = 0): string =>
  events.filter((e): e is TextEvent => e.type === 'text' && e.output === output).map(e => e.text).join('')

describe('events', () => {
  test('the texts joined are the text, prefill comes first and finish last', async () => {
    const stream = await model.stream(example, { maxTokens: 40 })
    const events = await collect(stream)
    const result = await stream.result
    expect(texts(events)).toBe(result.text)
    expect(events[0]).toEqual({ type: 'prefill', done: result.usage.promptTokens, total: result.usage.promptTokens })
    expect(events.at(-1)).toEqual({ type: 'finish', result })
    expect(result.text).toBe((await model.generate(example, { maxTokens: 40 })).text)
  })

  test('no event holds half a character', async () => {
    const options = { temperature: 3, seed: 5, ...long }
    const events = await collect(await model.stream(example, options))
    const { text } = await model.generate(example, options)
    expect(texts(events)).toBe(text)
    for (const event of events) if (event.type === 'text') expect(event.text).toBe(Buffer.from(event.text).toString())
  })

  test('tokens come with their ranges in the whole text', async () => {
    const stream = await model.stream(example, { maxTokens: 40, logprobs: 2 })
    const events = await collect(stream)
    const tokens = events.flatMap(event => (event.type === 'text' ? event.tokens : []))
    expect(tokens).toEqual((await stream.result).outputs[0]?.logprobs)
  })

  test('without log-probabilities there are no tokens, and no event without text', async () => {
    for (const options of [{}, { n: 2, temperature: 1, seed: 3 }, { numBeams: 3 }]) {
      const events = await collect(await model.stream(example, { maxTokens: 40, ...options }))
      const parts = events.flatMap(event => (event.type === 'text' ? [event] : []))
      expect(parts.length).toBeGreaterThan(0)
      for (const { text, tokens } of parts) expect([text === '', tokens]).toEqual([false, []])
    }
  })

  test('several outputs come side by side', async () => {
    const stream = await model.stream('Rome is', { maxTokens: 12, n: 3, temperature: 1.5, seed: 3, stopTokenIds: [] })
    const events = await collect(stream)
    const { outputs } = await stream.result
    outputs.forEach(({ text }, i) => { expect(texts(events, i)).toBe(text) })
  })

  test('with beams output 0 alone, certain text only', async () => {
    const stream = await model.stream(example, { numBeams: 4, earlyStopping: true, maxTokens: 40 })
    const events = await collect(stream)
    expect(texts(events)).toBe((await stream.result).text)
    expect(events.some(event => event.type === 'text' && event.output !== 0)).toBe(false)
  })

  test('a stop string never shows a part of itself', async () => {
    const stream = await model.stream(example, { maxTokens: 40, stop: '中国的' })
    expect(texts(await collect(stream)).trim()).toBe('北京是')
    expect((await stream.result).outputs[0]?.stoppedBy).toBe('中国的')
  })
})

describe('one consumer', () => {
  test('a second iterator throws STREAM_USED, whichever way', async () => {
    const stream = await model.stream(example, { maxTokens: 5 })
    const first = collect(stream)
    const used = expect.objectContaining({ code: 'STREAM_USED' })
    expect(() => stream[Symbol.asyncIterator]()).toThrow(used)
    expect(() => stream.textStream).toThrow(used)
    expect(() => stream.toReadableStream()).toThrow(used)
    await first
    expect(() => stream[Symbol.asyncIterator]()).toThrow(used)
  })

  test('the result alone is enough', async () => {
    const stream = await model.stream(example, { maxTokens: 40 })
    expect((await stream.result).text.trim()).toBe('北京是中国的首都。')
  })

  test('textStream', async () => {
    let text = ''
    const stream = await model.stream(example, { maxTokens: 40 })
    for await (const part of stream.textStream) text += part
    expect(text).toBe((await stream.result).text)
  })

  test('a readable stream of UTF-8', async () => {
    const stream = await model.stream(example, { maxTokens: 40 })
    const text = await new Response(stream.toReadableStream()).text()
    expect(text).toBe((await stream.result).text)
  })
})

describe('leaving', () => {
  test('break cancels; the result has what there was', async () => {
    const stream = await model.stream('Rome is', long)
    for await (const event of stream) if (event.type === 'text') break
    const { outputs } = await stream.result
    expect(outputs[0]?.finishReason).toBe('abort')
    expect(outputs[0]?.tokens.length).toBeLessThan(150)
  })

  test('so does cancelling the readable stream', async () => {
    const stream = await model.stream('Rome is', long)
    const reader = stream.toReadableStream().getReader()
    await reader.read()
    await reader.cancel()
    expect((await stream.result).outputs[0]?.finishReason).toBe('abort')
  })

  test('an error in the loop cancels too', async () => {
    const stream = await model.stream('Rome is', long)
    const loop = async (): Promise<void> => { for await (const _ of stream) throw new RangeError('mine') }
    expect((await failure(loop())).message).toBe('mine')
    expect((await stream.result).outputs[0]?.finishReason).toBe('abort')
  })

  test('a stream that nobody reads ends by itself and costs no unhandled rejection', async () => {
    const rejections: unknown[] = []
    const note = (e: unknown): void => { rejections.push(e) }
    process.on('unhandledRejection', note)
    const controller = new AbortController()
    await model.stream('Rome is', long)
    await model.stream('Rome is', { ...long, signal: controller.signal })
    controller.abort()
    await idle(model)
    await sleep(20)
    process.off('unhandledRejection', note)
    expect(rejections).toEqual([])
  })
})

describe('aborting', () => {
  test('the loop and the result reject with the signal\'s reason, untouched', async () => {
    const reason = { why: 'enough' }
    const controller = new AbortController()
    const stream = await model.stream('Rome is', { ...long, signal: controller.signal })
    const loop = async (): Promise<void> => { for await (const event of stream) if (event.type === 'text') controller.abort(reason) }
    expect(await failure(loop())).toBe(reason)
    expect(await failure(stream.result)).toBe(reason)
  })

  test('onAbort return ends with what there was', async () => {
    const controller = new AbortController()
    const stream = await model.stream('Rome is', { ...long, signal: controller.signal, onAbort: 'return' })
    const events: StreamEvent[] = []
    for await (const event of stream) {
      events.push(event)
      if (event.type === 'text') controller.abort()
    }
    expect(events.at(-1)).toMatchObject({ type: 'finish', result: { outputs: [{ finishReason: 'abort' }] } })
    expect(texts(events)).toBe((await stream.result).text)
  })

  test('before the start', async () => {
    const reason = new Error('early')
    expect(await failure(model.stream('Rome is', { signal: AbortSignal.abort(reason) }))).toBe(reason)
    expect(await failure(model.generate('Rome is', { signal: AbortSignal.abort(reason) }))).toBe(reason)
    const { outputs } = await model.generate('Rome is', { ...long, signal: AbortSignal.abort(), onAbort: 'return' })
    expect(outputs[0]?.finishReason ?? 'abort').toBe('abort')
  })

  test('an aborted beam search says so, though some of its hypotheses had ended', async () => {
    for (let i = 0; i < 12; i++) {
      const controller = new AbortController()
      const beams = { numBeams: 4, n: 4, maxTokens: 200, earlyStopping: 'never', lengthPenalty: 5 } as const
      const call = model.generate(example, { ...beams, signal: controller.signal, onAbort: 'return' })
      setTimeout(() => { controller.abort() }, i * 3)
      const reasons = new Set((await call).outputs.map(output => output.finishReason))
      expect([...reasons].filter(reason => reason === 'abort')).toHaveLength(reasons.has('abort') ? reasons.size : 0)
    }
  })

  test('a signal that many calls share is listened to once, and Node warns of nothing', async () => {
    const warnings: string[] = []
    const listen = (warning: Error): void => { warnings.push(warning.name) }
    process.on('warning', listen)
    const controller = new AbortController()
    const { signal } = controller
    const add = jest.spyOn(signal, 'addEventListener')
    const many = Array.from({ length: 50 }, (_, i) =>
      failure(i % 2 === 0 ? model.generate('Rome is', { ...long, signal }) : model.score('Rome is the capital of Italy.', { signal })))
    controller.abort('all')
    expect(new Set(await Promise.all(many))).toEqual(new Set(['all']))
    await new Promise(resolve => setImmediate(resolve))
    process.off('warning', listen)
    expect(add).toHaveBeenCalledTimes(1)
    expect(warnings).toEqual([])
  })

  test('no listener stays on the signal', async () => {
    const { signal } = new AbortController()
    const [add, remove] = [jest.spyOn(signal, 'addEventListener'), jest.spyOn(signal, 'removeEventListener')]
    await model.generate('Rome is', { maxTokens: 3, signal })
    await collect(await model.stream('Rome is', { maxTokens: 3, signal }))
    for await (const _ of model.generateEach(['a', 'b'], { maxTokens: 3, signal })) { /* all */ }
    await model.score('Rome is the capital of Italy.', { signal })
    await model.loglikelihood([{ context: 'a', continuation: ' b' }], { signal })
    expect(add.mock.calls.length).toBeGreaterThan(4)
    expect(remove.mock.calls.length).toBe(add.mock.calls.length)
  })
})

test('a reader that sleeps slows nobody', async () => {
  const slow = await model.stream('Rome is', long)
  const iterator = slow[Symbol.asyncIterator]()
  await iterator.next()
  const { outputs } = await model.generate('Paris is', long)
  expect(outputs[0]?.tokens).toHaveLength(150)
  await slow.result
  let last: IteratorResult<StreamEvent, undefined> = await iterator.next()
  let events = 1
  for (; last.done !== true; last = await iterator.next()) events++
  expect(events).toBeGreaterThan(50)                 // one for each text; some tokens add none
})

test('what stream refuses comes before the stream', async () => {
  expect(await failure(model.stream('x', { topK: -1 }))).toMatchObject({ code: 'INVALID_OPTION', option: 'topK' })
  expect(await failure(model.stream({ tokens: new Array<number>(300).fill(1) }))).toMatchObject({ code: 'CONTEXT_OVERFLOW' })
  expect(await failure(model.stream(''))).toMatchObject({ code: 'INVALID_PROMPT', reason: 'empty' })
})
