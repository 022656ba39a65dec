// errors.test.ts: the error class, its brand, and errors of the core on their way out.
import { errorCodes, isPolyLMError, PolyLMError } from '../../lib/errors.js'
import { demoModel, Model, Tokenizer } from '../../lib/index.js'
import { fromCore, fromNative, inCore, loadNative } from '../../lib/native.js'

// What looking for the addon throws, or an addon that is not ours.
let mockThrown: Error | undefined
jest.mock('node-gyp-build', () => () => {
  if (mockThrown !== undefined) throw mockThrown
  return { notOurs: true }
})

test('an error carries its code, hint, cause and the data of its code', () => {
  const cause = new Error('below')
  const e = new PolyLMError('CONTEXT_OVERFLOW', 'too long', { hint: 'cut', cause, promptTokens: 7, contextSize: 5 })
  expect(e).toBeInstanceOf(Error)
  expect({ ...e }).toMatchObject({ code: 'CONTEXT_OVERFLOW', hint: 'cut', promptTokens: 7, contextSize: 5 })
  expect([e.name, e.message, e.cause]).toEqual(['PolyLMError', 'too long', cause])
  expect(String(e)).toBe('PolyLMError [CONTEXT_OVERFLOW]: too long\n  hint: cut')
  expect('cause' in new PolyLMError('INTERNAL', 'x')).toBe(false)
})

test('what may be tried again and what means the model must be reloaded', () => {
  const retryable = errorCodes.filter(code => new PolyLMError(code, '').retryable)
  const fatal = errorCodes.filter(code => new PolyLMError(code, '').fatal)
  expect(retryable).toEqual(['QUEUE_FULL', 'QUEUE_TIMEOUT'])
  expect(fatal).toEqual(['DEVICE', 'INTERNAL'])
})

test('the brand survives a second copy of the package', () => {
  let other: typeof import('../../lib/errors.js') | undefined
  jest.isolateModules(() => { other = jest.requireActual('../../lib/errors.js') })
  const e: unknown = new (other as typeof import('../../lib/errors.js')).PolyLMError('QUEUE_FULL', 'x')
  expect(e).not.toBeInstanceOf(PolyLMError)
  expect(isPolyLMError(e)).toBe(true)
  expect(isPolyLMError(e, 'DISPOSED', 'QUEUE_FULL')).toBe(true)
  expect(isPolyLMError(e, 'DISPOSED')).toBe(false)
})

test.each([undefined, null, 5, 'QUEUE_FULL', {}, new Error('x'), { code: 'QUEUE_FULL' }])('%p is not one', e => {
  expect(isPolyLMError(e)).toBe(false)
})

test('an error of the core becomes a PolyLMError with its fields', () => {
  const raw = Object.assign(new Error('promptTokens 9 ...'), { code: 'CONTEXT_OVERFLOW', hint: 'cut', promptTokens: 9 })
  expect(fromNative(raw)).toMatchObject({
    name: 'PolyLMError', code: 'CONTEXT_OVERFLOW', message: 'promptTokens 9 ...', hint: 'cut', promptTokens: 9,
  })
})

test('an INVALID_OPTION of the core names its option at the beginning', () => {
  const raw = Object.assign(new Error('numBeams: found 9, expected at most 8'), { code: 'INVALID_OPTION' })
  expect(fromNative(raw)).toMatchObject({ option: 'numBeams', reason: 'found 9, expected at most 8' })
})

test('what is not an error of the core stays what it is', async () => {
  const error = new TypeError('x')
  const unknown = Object.assign(new Error('x'), { code: 'ENOENT' })
  for (const value of [error, unknown, null, undefined, 'text']) expect(fromNative(value)).toBe(value)
  expect(() => inCore(() => { throw unknown })).toThrow(unknown)
  await expect(fromCore(() => Promise.reject(error))).rejects.toBe(error)
  expect(inCore(() => 5)).toBe(5)
})

describe('a missing binary', () => {
  const load = (error: Error): unknown => {
    mockThrown = error
    try {
      return loadNative()
    } catch (e) {
      return e
    }
  }

  test('says for which platform, where it looked and what to run', () => {
    const e = load(new Error('No native build was found for platform=x'))
    expect(e).toMatchObject({ code: 'NO_BINARY', platform: `${process.platform}-${process.arch}` })
    const { tried, message, hint } = e as { tried: string[]; message: string; hint: string }
    expect(tried.length).toBeGreaterThan(2)
    for (const folder of tried) expect(message).toContain(`\n  ${folder}: `)
    expect(hint).toContain('npx polylm-build')
  })

  test('is what load rejects with and what devices answers', async () => {
    mockThrown = new Error('No native build was found')
    await expect(Model.load(demoModel)).rejects.toMatchObject({ code: 'NO_BINARY' })
    await expect(Tokenizer.load('no directory')).rejects.toMatchObject({ code: 'NO_BINARY' })
    expect(await Model.devices()).toEqual([expect.objectContaining({
      kind: 'cpu', usable: false, reason: expect.stringContaining('no native binary'),
    })])
  })

  test('one that cannot be loaded says why', () => {
    const e = load(new Error('libfoo.so: cannot open shared object file'))
    expect(e).toMatchObject({ code: 'NO_BINARY' })
    expect((e as Error).message).toContain('libfoo.so: cannot open shared object file')
  })

  test('where Node may not load addons, the hint names the flag', () => {
    const said = new Error('Cannot load native addon because loading addons is disabled.')
    expect(load(Object.assign(said, { code: 'ERR_DLOPEN_DISABLED' }))).toMatchObject({
      code: 'NO_BINARY', hint: expect.stringContaining('without --no-addons') as string,
    })
  })

  test('an addon of somebody else is none', () => {
    mockThrown = undefined
    expect(() => loadNative()).toThrow(expect.objectContaining({
      code: 'NO_BINARY', message: expect.stringContaining('the addon that was found is not polylm\'s') as string,
    }))
  })
})
