// result.test.ts: results and errors where people take them: JSON, structured clones, other threads, logs.
import { inspect } from 'node:util'
import { deserialize, serialize } from 'node:v8'
import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { errorCodes, isPolyLMError, PolyLMError } from '../../lib/errors.js'
import { jsonSafe, resultClass } from '../../lib/plain.js'

const json = (value: unknown): Record<string, unknown> => JSON.parse(JSON.stringify(value)) as Record<string, unknown>

function posted<T>(value: T): T {
  const { port1, port2 } = new MessageChannel()
  port1.postMessage(value)
  const received = (receiveMessageOnPort(port2) as { message: T }).message
  port1.close()
  return received
}

describe('a result', () => {
  interface Sample { readonly text: string; readonly tokens: Int32Array; readonly parts: readonly Sample[] }
  const Made = resultClass<Sample>('Sample')
  const inner = new Made({ text: 'b', tokens: Int32Array.of(3), parts: [] })
  const sample = new Made({ text: 'a', tokens: Int32Array.of(1, 2), parts: [inner] })

  test('is cloned and posted with all its data, typed arrays included', () => {
    for (const copy of [structuredClone(sample), posted(sample), deserialize(serialize(sample)) as Sample]) {
      expect(copy).toEqual({ text: 'a', tokens: Int32Array.of(1, 2), parts: [{ text: 'b', tokens: Int32Array.of(3), parts: [] }] })
    }
  })

  test('has plain arrays in JSON, at any depth', () => {
    expect(json(sample)).toEqual({ text: 'a', tokens: [1, 2], parts: [{ text: 'b', tokens: [3], parts: [] }] })
  })

  test('shows no function when it is spread, listed or printed', () => {
    expect(Object.keys({ ...sample })).toEqual(['text', 'tokens', 'parts'])
    expect(inspect(sample)).toMatch(/^Sample \{\s+text: 'a'/)
    expect(inspect(sample)).not.toContain('Function')
  })
})

describe('an error as JSON', () => {
  const cause = Object.assign(new Error('EACCES: no'), { code: 'EACCES' })
  const e = new PolyLMError('INVALID_OPTION', 'topK: found 9', { hint: 'lower it', cause, option: 'topK', value: 9, reason: 'too big' })

  test('has name, code, message, hint, data and the cause', () => {
    expect(json(e)).toEqual({
      name: 'PolyLMError', code: 'INVALID_OPTION', message: 'topK: found 9', hint: 'lower it', retryable: false, fatal: false,
      option: 'topK', value: 9, reason: 'too big', cause: { name: 'Error', message: 'EACCES: no', code: 'EACCES' },
    })
    expect(json({ nested: [e] })).toEqual({ nested: [json(e)] })
  })

  const cyclic: { self?: unknown } = {}
  cyclic.self = cyclic
  const hostile = new Proxy({}, { ownKeys: () => { throw new Error('no') }, getPrototypeOf: () => { throw new Error('no') } })
  test.each([
    [5n, '5'], [-Infinity, '-Infinity'], [NaN, 'NaN'], [Symbol('x'), '[symbol]'], [() => 1, '[function]'], [null, null],
    [Float32Array.of(1, 2), [1, 2]], [new Map([[1, 2n]]), [[1, '2']]], [hostile, '[cannot be read]'],
    [{ get a() { throw new Error('no') } }, '[cannot be read]'], [cyclic, { self: { self: { self: { self: '[object]' } } } }],
    [[[1n]], [['1']]], [{ toJSON: () => { throw new Error('no') } }, { toJSON: '[function]' }], [new Date(NaN), {}],
  ])('is made whatever a caller gave: %#', (value, expected) => {
    expect(json(new PolyLMError('INVALID_OPTION', 'x', { option: 'a', value, reason: 'b' }))['value']).toEqual(expected)
  })

  test('is short, however long a value is', () => {
    const names = Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [i, i]))
    const value = { text: 'x'.repeat(1e6), list: new Array(1e6).fill(0), names }
    expect(JSON.stringify(new PolyLMError('INVALID_OPTION', 'x', { option: 'a', value, reason: 'b' })).length).toBeLessThan(10_000)
  })

  test('nor do lists of lists multiply what each may have, and a wide bigint is not written out', () => {
    let value: unknown = 7
    for (let i = 0; i < 4; i++) value = new Array(100).fill(value)
    const size = (of: unknown): number =>
      JSON.stringify(new PolyLMError('INVALID_OPTION', 'x', { option: 'a', value: of, reason: 'b' })).length
    expect(size(value)).toBeLessThan(10_000)
    expect(size(1n << 1_000_000n)).toBeLessThan(500)
    expect(size(new Set(Array.from({ length: 100_000 }, (_, i) => i)))).toBeLessThan(2000)
  })

  test('a chain of causes is shown until it gets long', () => {
    let deep: Error = new Error('0')
    for (let i = 1; i < 20; i++) deep = new Error(String(i), { cause: deep })
    expect(json(new PolyLMError('INTERNAL', 'x', { cause: deep }))['cause']).toMatchObject({ message: '19', cause: { message: '18' } })
  })
})

describe('an error on its way to another thread', () => {
  const e = new PolyLMError('CONTEXT_OVERFLOW', 'too long', { hint: 'cut', promptTokens: 7, maxTokens: 1, contextSize: 5 })

  test('as toJSON gives it, it is known there with its data', () => {
    for (const copy of [posted(e.toJSON()), structuredClone(e.toJSON()), json(e)] as unknown[]) {
      expect(isPolyLMError(copy, 'CONTEXT_OVERFLOW') && copy.promptTokens).toBe(7)
      expect(isPolyLMError(copy, 'QUEUE_FULL')).toBe(false)
    }
  })

  test('as a clone it keeps message and stack, as every error', () => {
    const copy: Error = structuredClone(e)
    expect([copy.message, copy.stack?.split('\n')[0]]).toEqual(['too long', expect.stringMatching(/^PolyLMError.*: too long$/)])
    expect(isPolyLMError(copy)).toBe(false)
  })

  test('as a worker\'s error event it is known, with its data', async () => {
    const program = `
      class PolyLMError extends Error {
        constructor(code, message, fields) { super(message); this.code = code; Object.assign(this, fields) }
      }
      Object.defineProperty(PolyLMError.prototype, 'name', { value: 'PolyLMError' })
      throw new PolyLMError('QUEUE_FULL', 'full', { waiting: 3, retryAfterMs: 50 })`
    const thrown: unknown = await new Promise(resolve => { new Worker(program, { eval: true }).on('error', resolve) })
    expect(isPolyLMError(thrown, 'QUEUE_FULL') && thrown.retryAfterMs).toBe(50)
  })
})

describe('an error as a person sees it', () => {
  const e = new PolyLMError('QUEUE_FULL', 'full', { hint: 'wait', waiting: 3, retryAfterMs: 50, cause: new Error('below') })

  test('printed: code, message, hint, data and cause, and nothing of the inside', () => {
    const shown = inspect(e)
    // Jest writes stacks itself; outside of it the code stands in the first line (test/e2e/errors.test.ts).
    expect(shown).toMatch(/^PolyLMError.*: full/)
    const parts = ["code: 'QUEUE_FULL'", "hint: 'wait'", 'retryable: true', 'waiting: 3', '[cause]: Error: below']
    for (const part of parts) expect(shown).toContain(part)
    expect(shown).not.toMatch(/Symbol|name:/)
  })

  test('its data cannot take the place of what every error has', () => {
    const odd = new PolyLMError('NUMERIC', 'm', {
      code: 'LIMIT', message: 'n', name: 'o', retryable: 1, fatal: 2, stack: 's', toJSON: 3, toString: 4, constructor: 5, extra: 6,
    } as Record<string, unknown>)
    expect(json(odd)).toEqual({ name: 'PolyLMError', code: 'NUMERIC', message: 'm', retryable: false, fatal: false, extra: 6 })
    expect(String(odd)).toBe('PolyLMError [NUMERIC]: m')
  })

  test('every code makes an error that prints, is serialised and is known', () => {
    for (const code of errorCodes) {
      const one = new PolyLMError(code, 'm')
      expect([String(one), json(one)['code'], isPolyLMError(one, code), one instanceof PolyLMError, one.name])
        .toEqual([`PolyLMError [${code}]: m`, code, true, true, 'PolyLMError'])
    }
  })

  test('isPolyLMError never throws', () => {
    const throws = (): never => { throw new Error('no') }
    const hostile = [new Proxy({}, { has: throws, get: throws }), { name: 'PolyLMError', get code() { return throws() } }, () => 1, 5n]
    for (const value of hostile) expect(isPolyLMError(value)).toBe(false)
  })
})

test('a value that is safe stays what it is', () => {
  const value = { a: [1, 'b', true, null, { c: -0.5 }] }
  expect(jsonSafe(value)).toEqual(value)
})
