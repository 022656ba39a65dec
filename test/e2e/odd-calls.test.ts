// odd-calls.test.ts: thousands of calls over the whole public API with values that no program should pass: proxies,
// revoked ones, getters that throw, detached and shared memory, other realms, lengths beyond all reason. Each ends in
// a result, a PolyLMError, the caller's own abort reason, or what the caller's own function threw; and afterwards the
// model answers. The seed is fixed; POLYLM_SEED replays another.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import vm from 'node:vm'
import { demoModel, fromHuggingFace, isPolyLMError, Model, PolyLMError, Tokenizer } from '../../lib/index.js'
import type { Session } from '../../lib/index.js'
import { idle, loadDemo, recorded, loadTiny, tinyDir } from './models.js'

const seed = Number(process.env['POLYLM_SEED'] ?? 20_230_711) || Date.now()
const calls = 2500

let state = seed >>> 0
/** mulberry32: the same draws everywhere. */
function random(): number {
  state = (state + 0x6d2b79f5) >>> 0
  let t = Math.imul(state ^ (state >>> 15), state | 1)
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}
const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T

/** What getters and proxies throw: it must never come out as it is. */
const fromReading = new Error('thrown by a getter')
/** What functions throw that the API calls: theirs to see. */
const fromCalling = { thrown: 'by a function' }
const reason = { why: 'aborted' }

const fail = (): never => { throw fromReading }
const callFails = (): never => { throw fromCalling }
function revoked(target: object): object {
  const { proxy, revoke } = Proxy.revocable(target, {})
  revoke()
  return proxy
}
const withGetter = (target: object, name: string): object => Object.defineProperty({ ...target }, name, { get: fail, enumerable: true })
const lyingArray = (length: unknown): unknown =>
  new Proxy([1, 2, 3], { get: (list, name) => (name === 'length' ? length : Reflect.get(list, name)) })
function detached(): Int32Array {
  const ids = Int32Array.of(1, 2, 3)
  structuredClone(ids.buffer, { transfer: [ids.buffer] })
  return ids
}
const realm = (code: string): unknown => vm.runInNewContext(code, { AbortController })
const signalLike = (extra: object): object => Object.assign(new EventTarget(), { aborted: false }, extra)

/** Makers, because some values work once. */
const odd: ReadonlyArray<() => unknown> = [
  () => undefined, () => null, () => NaN, () => -0, () => -1, () => 1e308, () => Infinity, () => 2 ** 53, () => 1.5, () => 0, () => 1,
  () => '', () => 'x', () => '\ud800', () => '\0', () => 'x'.repeat(100_000), () => true, () => false, () => 10n, () => -(1n << 5000n),
  () => Symbol('odd'), () => Symbol.iterator, () => fail, () => callFails, () => async () => { callFails() }, () => class {},
  () => ({}), () => [], () => [undefined], () => [null], () => [[]], () => [[1], [2]], () => [NaN], () => ['x'], () => [1, 2, 3],
  () => [[[1], -1]],
  () => Object.create(null), () => Object.freeze([1]), () => new Array(5), () => new Date(NaN), () => /x/, () => new Map([[1, 2]]),
  () => new Set([1]), () => new WeakMap(), () => new Error('x'), () => new Boolean(true), () => new String('x'), () => new Number(1),
  () => ({ length: 2 ** 53 }), () => ({ length: 2 ** 40 }), () => ({ length: -1 }), () => ({ length: 1.5 }),
  () => ({ length: '2', 0: 1, 1: 1 }),
  () => ({ length: 3 }), () => ({ length: 2, 0: 1, get 1() { return fail() } }), () => ({ get length() { return fail() } }),
  () => lyingArray(2 ** 32), () => lyingArray(-1), () => lyingArray('x'), () => lyingArray(NaN), () => lyingArray({}),
  () => lyingArray(5),
  () => revoked({}), () => revoked([]), () => revoked(callFails), () => new Proxy({}, { get: fail }), () => new Proxy([], { get: fail }),
  () => new Proxy({ a: 1 }, { ownKeys: fail }), () => new Proxy({ a: 1 }, { getOwnPropertyDescriptor: fail }),
  () => new Proxy({}, { getPrototypeOf: fail }),
  () => new Proxy([1, 2], { has: fail }), () => new Proxy(callFails, {}),
  () => detached(), () => new Int32Array(0), () => Int32Array.of(5, 6), () => new Int32Array(new SharedArrayBuffer(8)),
  () => new Float64Array([1.5]),
  () => new BigInt64Array(2), () => new Uint8Array([5]), () => new ArrayBuffer(8), () => new DataView(new ArrayBuffer(8)),
  () => Buffer.from('x'),
  () => realm('new Int32Array(new ArrayBuffer(8, { maxByteLength: 16 }))'),
  () => realm('[5, 6]'), () => realm('({ maxTokens: 1 })'), () => realm('new Error("x")'), () => realm('(() => { throw 1 })'),
  () => realm('new Date()'),
  () => realm('new AbortController().signal'), () => AbortSignal.abort(reason), () => AbortSignal.timeout(1), () => new EventTarget(),
  () => signalLike({}), () => signalLike({ aborted: true, reason }), () => signalLike({ addEventListener: callFails }),
  () => ({ aborted: true }),
  () => ({ aborted: false, addEventListener: 5, removeEventListener: 5 }), () => withGetter(signalLike({}), 'aborted'),
  () => Object.defineProperty(signalLike({ aborted: true }), 'reason', { get: fail }), () => new Proxy(new AbortController().signal, {}),
  () => Promise.resolve(1), () => Promise.reject(fromCalling).catch(() => 1), () => ({ then: callFails }),
  () => ({ get then() { return fail() } }),
  () => ({ toString: fail }), () => ({ [Symbol.toPrimitive]: fail }), () => ({ valueOf: fail }), () => ({ toJSON: fail }),
  () => ({ [Symbol.iterator]: callFails }), () => ({ get [Symbol.iterator]() { return fail() } }), () => ({ [Symbol.iterator]: 5 }),
  () => ({ [Symbol.iterator]: () => 5 }), () => ({ [Symbol.iterator]: () => ({}) }),
  () => ({ [Symbol.iterator]: () => ({ next: () => 5 }) }),
  () => ({ [Symbol.iterator]: () => ({ next: callFails }) }),
  () => ({ [Symbol.asyncIterator]: () => ({ next: async () => await callFails() }) }),
  () => ({ [Symbol.iterator]: () => ({ next: () => ({ get done() { return fail() } }) }) }), () => new Set(['a', 5]),
  () => ({ [Symbol.iterator]: () =>
    ({ next: () => ({ done: false, value: 7, index: 1 }), return: callFails, get throw() { return fail() } }) }),
  () => ({ tokens: [5] }), () => ({ tokens: null }), () => withGetter({}, 'tokens'), () => ({ tokens: revoked([]) }),
  () => ({ tokens: detached() }),
  () => ({ choices: ['a', 'b'] }), () => ({ choices: revoked([]) }), () => ({ choices: lyingArray(2 ** 31) }),
  () => ({ choices: [withGetter({}, 'tokens')] }),
  () => ({ messages: [{ role: 'user', content: 'x' }] }), () => ({ messages: revoked([]) }), () => ({ messages: [revoked({})] }),
  () => ({ messages: lyingArray(2 ** 31) }), () => ({ messages: [withGetter({ role: 'user' }, 'content')] }),
  () => withGetter({}, 'messages'),
  () => ({ messages: [{ role: 'user', content: 'x' }], template: callFails }),
  () => ({ messages: [{ role: 'user', content: 'x' }], template: () => revoked([]) }),
  () => ({ messages: [{ role: 'user', content: 'x' }], template: () => lyingArray(2 ** 40) }),
  () => ({ messages: [{ role: 'user', content: 'x' }], template: async () => await Promise.reject(fromCalling) }),
  () => ({ messages: [{ role: 'user', content: 'x' }], template: () => [withGetter({}, 'control')] }),
  () => ({ length: 5, tokenId: 1 }), () => withGetter({ length: 5 }, 'tokenId'), () => [[revoked([]), 1]], () => [revoked([])],
  () => [lyingArray(2)],
  () => ({ context: 'a', continuation: 'b' }), () => [{ context: 'a', continuation: 'b' }],
  () => [withGetter({ context: 'a' }, 'continuation')],
  () => ({ prompt: 'a', options: { maxTokens: 1 } }), () => [{ prompt: 'a', options: withGetter({}, 'maxTokens') }],
  () => [withGetter({}, 'prompt')],
  () => [{ prompt: 'a', options: 5 }], () => [revoked({})], () => ({ __proto__: { maxTokens: 1 } }),
  () => JSON.parse('{"__proto__": 5}') as unknown,
]
const value = (): unknown => pick(odd)()

const optionNames = ['maxTokens', 'minTokens', 'temperature', 'topK', 'topP', 'minP', 'typicalP', 'bias', 'allow', 'stop',
  'stopTokenIds', 'padTo', 'signal',
  'cacheSalt', 'onOverflow', 'onAbort', 'logprobs', 'logprobsOf', 'seed', 'numBeams', 'n', 'earlyStopping', 'beamScoring',
  'queueTimeoutMs', 'speculate',
  'controlText', 'parseSpecial', 'addSpecialTokens', 'skipSpecialTokens', 'forcedFirstToken', 'renormalize', 'repetitionPenalty',
  'noSuchOption']
const otherNames = ['positions', 'prefixToken', 'window', 'stride', 'onProgress', 'logger', 'template', 'system', 'history',
  'drainMs', 'promptTokens',
  'device', 'dtype', 'contextSize', 'kvMemory', 'compat', 'legacy', 'threads', 'prompt', 'eos_token_id', 'bad_words_ids',
  'sequence_bias', 'stop_strings',
  'suppress_tokens', 'max_length', 'do_sample', 'generation_config', 'turns', 'tokens']

/** Options that are right but for one or two values; sometimes something else altogether. */
function options(base: object = {}): unknown {
  if (random() < 0.2) return value()
  const made: Record<PropertyKey, unknown> = { ...base }
  for (let n = random() < 0.7 ? 1 : 2; n > 0; n--) made[pick(random() < 0.7 ? optionNames : otherNames)] = value()
  return random() < 0.1 ? withGetter(made, pick(optionNames)) : random() < 0.05 ? new Proxy(made, { get: fail }) : made
}
const prompt = (): unknown => (random() < 0.5 ? 'Rome is' : value())
const one = { maxTokens: 1 }

async function drain(iterable: AsyncIterable<unknown>): Promise<void> {
  let n = 0
  for await (const item of iterable) {
    const error = (item as { error?: unknown }).error
    if (error !== undefined) check(error)
    if (++n > 20) break
  }
}

/** A call of each function of the API; casts are the point of it. */
const api: ReadonlyArray<readonly [string, (model: Model, chat: Session) => unknown]> = [
  ['generate', m => m.generate(prompt() as never, options(one) as never)],
  ['stream', async m => await drain(await m.stream(prompt() as never, options(one) as never))],
  ['textStream', async m => { for await (const _ of (await m.stream('a', options(one) as never)).textStream) { /* all */ } }],
  ['generateEach', async m =>
    await drain(m.generateEach((random() < 0.7 ? value() : [prompt(), prompt()]) as never, options(one) as never))],
  ['logits', m => m.logits(prompt() as never, options() as never)],
  ['loglikelihood', m =>
    m.loglikelihood((random() < 0.5 ? value() : [{ context: value(), continuation: prompt() }]) as never, options() as never)],
  ['score', m => m.score(prompt() as never, options({ stride: 200 }) as never)],
  ['explain', m => m.explain(options() as never, (random() < 0.5 ? undefined : prompt()) as never)],
  ['createSession', async m => await m.createSession(options() as never).send(prompt() as never, one)],
  ['restoreSession', m => m.restoreSession(value() as never, options() as never)],
  ['dispose', async m => { await m.dispose(withGetter({ odd: value() }, 'drainMs')) }],
  ['send', (_, s) => s.send(prompt() as never, options(one) as never)],
  ['session.stream', async (_, s) => await drain(await s.stream(prompt() as never, options(one) as never))],
  ['append', (_, s) => s.append(prompt() as never, options() as never)],
  ['rewind', (_, s) => s.rewind(options() as never)],
  ['session.logits', (_, s) => s.logits(options() as never)],
  ['save', (_, s) => s.save((random() < 0.5 ? path.join(folder, 'saved.plm') : oddPath()) as never)],
  ['tokens', (_, s) => [s.fork().tokens, s.contextUsed, s.history]],
  ['encode', m => m.tokenizer.encode(prompt() as never, options() as never)],
  ['encodeWithOffsets', m => m.tokenizer.encodeWithOffsets(prompt() as never, options() as never)],
  ['count', m => m.tokenizer.count(prompt() as never, options() as never)],
  ['decode', m => m.tokenizer.decode(value() as never, options() as never)],
  ['createStreamDecoder', m => {
    const decoder = m.tokenizer.createStreamDecoder((random() < 0.3 ? { prompt: value() } : options()) as never)
    return [decoder.push(value() as never), decoder.finish(), decoder.finish()]
  }],
  ['load', async () => { await (await Model.load(oddDir() as never, options({ contextSize: 32 }) as never)).dispose() }],
  ['estimate', () => Model.estimate(oddDir() as never, options() as never)],
  ['devices', () => Model.devices()],
  ['Tokenizer.load', () => Tokenizer.load((random() < 0.3 ? demoModel : value()) as never, options() as never)],
  ['fromHuggingFace', () => fromHuggingFace(options() as never, (random() < 0.5 ? { promptTokens: value() } : value()) as never)],
  ['isPolyLMError', () => isPolyLMError(value(), value() as never)],
  ['PolyLMError', () => String(new PolyLMError('INTERNAL', 'x', { hint: 'y', cause: value(), odd: value() }))],
]
// Not a number: writeFile and open would take it for an open file.
const oddPath = (): unknown => { const v = value(); return typeof v === 'string' && v !== '' ? `${folder}/${v}` : v }
const oddDir = (): unknown => (random() < 0.1 ? tinyDir : value())

let folder: string
beforeAll(() => { folder = mkdtempSync(path.join(tmpdir(), 'polylm-odd-')) })
afterAll(() => { rmSync(folder, { recursive: true }) })

function check(error: unknown): void {
  if (isPolyLMError(error) && !error.fatal) return
  if (error === fromCalling || error === reason || error === 1) return
  if (error instanceof DOMException && ['TimeoutError', 'AbortError'].includes(error.name)) return
  throw error
}

test('odd calls end as they should, and the model answers afterwards', async () => {
  const [model, tiny] = [await loadDemo(), await loadTiny()]
  const before = (await model.generate('Rome is', { maxTokens: 8 })).text
  const wrong: string[] = []
  const codes = new Map<string, number>()
  for (let i = 0; i < calls; i++) {
    const [name, call] = pick(api)
    const at = state
    const chat = model.createSession({ template: pick(['none', 'assistant', 'multialpaca'] as const) })
    try {
      await Promise.resolve().then(() => call(random() < 0.8 ? model : tiny, chat))
      codes.set('done', (codes.get('done') ?? 0) + 1)
    } catch (e) {
      const code = isPolyLMError(e) ? e.code : 'own'
      codes.set(code, (codes.get(code) ?? 0) + 1)
      try {
        check(e)
      } catch {
        wrong.push(`${name} (state ${at}): ${e instanceof Error ? e.stack : String(e)}`)
      }
    }
  }
  expect(wrong).toEqual([])
  // The draw is not one of refusals alone.
  expect(codes.get('done')).toBeGreaterThan(calls / 20)
  expect(codes.get('INVALID_OPTION')).toBeGreaterThan(calls / 20)
  expect(codes.get('INVALID_PROMPT')).toBeGreaterThan(calls / 50)
  await Promise.all([model, tiny].map(idle))
  expect((await model.generate('Rome is', { maxTokens: 8 })).text).toBe(before)
  const { prompt: tokens, generated } = recorded.greedy[0] ?? { prompt: [], generated: [] }
  const { outputs } = await tiny.generate({ tokens }, { maxTokens: 8, stopTokenIds: [] })
  expect(Array.from(outputs[0]?.tokens ?? [])).toEqual(generated.slice(0, 8))
  expect([model.stats().state, tiny.stats().state]).toEqual(['ready', 'ready'])
  await Promise.all([model.dispose(), tiny.dispose()])
}, 300_000)
