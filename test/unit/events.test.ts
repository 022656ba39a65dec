// events.test.ts: packed batches of events back to the calls they belong to, and queues of stream events.
import fc from 'fast-check'
import { EventRouter, unpackTokens, type EventSink, type TokenLogprob, type TopLogprob } from '../../lib/events.js'
import type { NativeResult } from '../../lib/native.js'
import { EventQueue } from '../../lib/stream.js'

function recorder(): { sink: EventSink; seen: unknown[] } {
  const seen: unknown[] = []
  return {
    seen,
    sink: {
      admitted: () => seen.push('admitted'),
      prefill: (done, total) => seen.push(['prefill', done, total]),
      delta: (output, text, tokens) => seen.push(['delta', output, text, tokens]),
      finished: result => seen.push(['finished', result]),
      failed: error => seen.push(['failed', error]),
    },
  }
}

type Packed = { numbers: number[]; text: string; objects: unknown[] }
type Plain = Omit<TokenLogprob, 'text' | 'top'> & { readonly top: ReadonlyArray<Omit<TopLogprob, 'text'>> }
const packToken = ({ id, logprob, start, end, top }: Plain): number[] =>
  [id, logprob, start, end, top.length, ...top.flatMap(other => [other.id, other.logprob])]

function deliver(router: EventRouter, { numbers, text, objects }: Packed): void {
  router.receive(Float64Array.from(numbers), new TextEncoder().encode(text), objects)
}

test('a batch of several requests goes apart', () => {
  const router = new EventRouter(undefined)
  const [a, b] = [recorder(), recorder()]
  router.add(1, a.sink)
  router.add(2, b.sink)
  const top = [{ id: 7, logprob: -0.5, text: '' }, { id: 8, logprob: -1, text: '' }]
  const token = { id: 7, logprob: -0.5, text: '', start: 0, end: 2, top }
  const result = { seed: 1 } as NativeResult
  deliver(router, {
    numbers: [
      1, 0, 2, 0, 1, 1, 16, 32, 2, 2, 0, 6, 0, 1, 2, 1, 3, 1, ...packToken(token), 1, 3, 0, 2, 4, 1,
    ],
    text: '北京abc',
    objects: [result, Object.assign(new Error('full'), { code: 'QUEUE_FULL' })],
  })
  expect(a.seen).toEqual(['admitted', ['prefill', 16, 32], ['delta', 1, 'abc', [token]], ['finished', result]])
  expect(b.seen.slice(0, 2)).toEqual(['admitted', ['delta', 0, '北京', []]])
  expect(b.seen[2]).toMatchObject(['failed', { name: 'PolyLMError', code: 'QUEUE_FULL' }])
  expect(router.pending).toBe(0)
})

test('events of a request that nobody waits for are skipped, the others arrive', () => {
  const router = new EventRouter(undefined)
  const { sink, seen } = recorder()
  router.add(5, sink)
  deliver(router, { numbers: [4, 2, 0, 1, 0, 4, 3, 0, 5, 2, 0, 1, 0], text: 'xy', objects: [{}] })
  expect(seen).toEqual([['delta', 0, 'y', []]])
})

test('a byte order mark in the text is text', () => {
  const router = new EventRouter(undefined)
  const { sink, seen } = recorder()
  router.add(1, sink)
  deliver(router, { numbers: [1, 2, 0, 4, 0], text: '\ufeffa', objects: [] })
  expect(seen).toEqual([['delta', 0, '\ufeffa', []]])
})

test('packed tokens come back as they were', () => {
  const float = fc.double({ noNaN: true })
  const top = fc.record({ id: fc.nat(), logprob: float })
  const token = fc.record({ id: fc.nat(), logprob: float, start: fc.nat(), end: fc.nat(), top: fc.array(top, { maxLength: 5 }) })
  fc.assert(fc.property(fc.array(token), tokens => {
    const named = tokens.map(({ top, ...token }) => ({ ...token, text: '', top: top.map(other => ({ ...other, text: '' })) }))
    expect(unpackTokens(Float64Array.from(tokens.flatMap(packToken)), undefined)).toEqual(named)
  }))
})

describe('a queue of events', () => {
  test('gives what was pushed, then ends', async () => {
    const queue = new EventQueue<number>()
    queue.push(1)
    const early = [queue.next(), queue.next()]
    queue.push(2)
    queue.end()
    queue.push(3)
    expect(await Promise.all(early)).toEqual([{ done: false, value: 1 }, { done: false, value: 2 }])
    expect(await queue.next()).toEqual({ done: true, value: undefined })
    expect(await queue.next()).toEqual({ done: true, value: undefined })
  })

  test('throws its error once, after the items', async () => {
    const queue = new EventQueue<number>()
    queue.push(1)
    queue.fail('why')
    expect((await queue.next()).value).toBe(1)
    await expect(queue.next()).rejects.toBe('why')
    expect((await queue.next()).done).toBe(true)
  })

  test('of several that wait one gets the error and the others the end', async () => {
    const queue = new EventQueue<number>()
    const waiting = [queue.next(), queue.next(), queue.next()]
    queue.fail('why')
    const settled = await Promise.allSettled(waiting)
    expect(settled.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled'])
  })

  test('keeps nothing after the reader left', async () => {
    const queue = new EventQueue<number>()
    queue.push(1)
    queue.drop()
    queue.push(2)
    expect((await queue.next()).done).toBe(true)
  })
})
