// options.test.ts: what options are accepted and with which sentence the others are refused.
import fc from 'fast-check'
import { PolyLMError } from '../../lib/errors.js'
import { checkGenerate, type OptionContext } from '../../lib/generate-options.js'
import { checkEstimate, checkLoad, contextOf } from '../../lib/load-options.js'
import { nearest, readBag, readIds, show } from '../../lib/option-reader.js'
import { derivedRows, optionTable } from '../../lib/option-table.js'
import { samples } from '../../lib/sampling.js'

const context: OptionContext = {
  vocabSize: 512, stopTokenIds: [2, 511], compat: 'hf-4.55', hasTokenizer: true,
  encodeContinuation: text => Int32Array.from(text, c => c.charCodeAt(0)),
}

function refusal(options: unknown, where: OptionContext = context): { code: string; option: unknown; message: string } {
  try {
    checkGenerate(options, where)
  } catch (e) {
    if (e instanceof PolyLMError) return { code: e.code, option: e['option'], message: e.message }
    throw e
  }
  throw new Error('the options were accepted')
}

describe('scalars', () => {
  const given = optionTable.filter(row => !derivedRows.has(row.name))

  test.each(given.filter(row => row.type !== 'bool'))('$name is taken in its range and refused outside', row => {
    const least = row.min === -1 ? 0 : row.min
    for (const value of [least, row.max]) {
      expect(checkGenerate({ [row.name]: value }, context).params[row.name]).toBe(value)
    }
    const wrong = [least - 1, row.max * 2 + 1, NaN, Infinity, -Infinity, '1', null, [], {}, true, 1n]
    for (const value of row.type === 'int' ? [...wrong, least + 0.5] : wrong) {
      expect(refusal({ [row.name]: value })).toMatchObject({ code: 'INVALID_OPTION', option: row.name })
    }
  })

  test.each(given.filter(row => row.type === 'bool'))('$name is true or false', row => {
    expect(checkGenerate({ [row.name]: true }, context).params[row.name]).toBe(true)
    expect(checkGenerate({}, context).params[row.name]).toBe(row.default === 1)
    for (const value of [0, 1, 'true', null]) expect(refusal({ [row.name]: value }).option).toBe(row.name)
  })

  test('the sentence names the option, what was found and what was expected', () => {
    expect(refusal({ temperature: -1 }).message).toBe('temperature: found -1, expected a number from 0 to 100')
    expect(refusal({ topK: 1.5 }).message).toBe('topK: found 1.5, expected an integer from 0 to 1048576')
    expect(refusal({ renormalize: 'yes' }).message).toBe('renormalize: found "yes", expected true or false')
  })

  test('undefined is absent and -0 is 0', () => {
    const { params, given: bag } = checkGenerate({ temperature: -0, topK: undefined, stop: undefined }, context)
    expect(Object.is(params['temperature'], 0)).toBe(true)
    expect(Object.keys(bag)).toEqual(['temperature'])
  })
})

describe('sampling without a temperature', () => {
  const temperature = (options: object): unknown => checkGenerate(options, context).params['temperature']

  test.each([
    { topK: 5 }, { topP: 0.9 }, { topP: 0 }, { minP: 0.1 }, { typicalP: 0.9 }, { epsilonCutoff: 1e-4 }, { etaCutoff: 1e-4 },
    { topP: 0.9, n: 3 }, { numBeams: 3, sampleBeams: true }, { numBeams: 3, sampleBeams: true, topP: 0.9 },
  ])('%j means temperature 1', options => {
    expect(temperature(options)).toBe(1)
    expect(temperature({ ...options, temperature: undefined })).toBe(1)
    expect(temperature({ ...options, temperature: 0.5 })).toBe(0.5)
    expect(temperature({ ...options, temperature: 0 })).toBe(0)
    expect([samples(options), samples({ ...options, temperature: 0 })]).toEqual([true, false])
  })

  test.each([
    {}, { topK: 0 }, { topP: 1 }, { minP: 0 }, { typicalP: 1 }, { epsilonCutoff: 0 }, { epsilonCutoff: 1 }, { etaCutoff: 1 },
    { seed: 7 }, { sampleBeams: true }, { numBeams: 3 }, { repetitionPenalty: 1.2 },
    { topK: 0, topP: 1, minP: 0, typicalP: 1, epsilonCutoff: 0, etaCutoff: 0, temperature: undefined },
  ])('%j stays greedy', options => {
    expect(temperature(options)).toBe(0)
    expect(samples(options)).toBe(false)
  })

  test('with beams it is refused unless their candidates are sampled', () => {
    expect(refusal({ numBeams: 3, topP: 0.9 })).toMatchObject({
      code: 'INVALID_OPTION', option: 'topP',
      message: 'topP: found 0.9, with numBeams 3, expected sampleBeams: true to sample the candidates of the beams',
    })
    expect(temperature({ numBeams: 3, topP: 0.9, temperature: 0 })).toBe(0)
  })

  test('a value out of range is refused as such', () => {
    expect(refusal({ topP: -1 }).message).toBe('topP: found -1, expected a number from 0 to 1')
    expect(refusal({ topK: '5' }).option).toBe('topK')
  })
})

describe('names', () => {
  test.each([
    ['maxToken', 'maxTokens'], ['max_tokens', 'maxTokens'], ['max_new_tokens', 'maxTokens'], ['top_k', 'topK'],
    ['tempurature', 'temperature'], ['num_beams', 'numBeams'], ['abortSignal', 'signal'], ['lenghtPenalty', 'lengthPenalty'],
    ['stopSequences', 'stop'], ['logitBias', 'bias'], ['repeat_penalty', 'repetitionPenalty'],
  ])('%s: did you mean %s?', (typo, meant) => {
    expect(refusal({ [typo]: 1 }).message).toBe(`${typo}: is not an option of generate; did you mean ${meant}?`)
  })

  test('a name that resembles nothing gets no guess', () => {
    expect(refusal({ frobnicate: 1 }).message).toBe('frobnicate: is not an option of generate')
    expect(nearest('x', new Set(['n', 'seed']))).toBeUndefined()
  })

  test('__proto__ as an own key is an unknown option, and a polluted prototype has no say', () => {
    expect(refusal(JSON.parse('{"__proto__": {"temperature": 1}}')).option).toBe('__proto__')
    Object.defineProperty(Object.prototype, 'temperature', { value: 5, configurable: true, enumerable: true })
    try {
      expect(checkGenerate({}, context).params['temperature']).toBe(0)
    } finally {
      delete (Object.prototype as Record<string, unknown>)['temperature']
    }
  })
})

describe('objects that do things', () => {
  test('each property is read exactly once', () => {
    let reads = 0
    const options = { get temperature() { reads++; return reads === 1 ? 0.5 : -1 } }
    expect(checkGenerate(options, context).params['temperature']).toBe(0.5)
    expect(reads).toBe(1)
  })

  test('a getter that throws becomes the cause', () => {
    const cause = new Error('no')
    const options = { get topK(): number { throw cause } }
    expect(() => checkGenerate(options, context)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION', cause }))
  })

  test('a hostile proxy is an invalid option', () => {
    const options = new Proxy({}, { ownKeys() { throw new Error('x') } })
    expect(refusal(options).code).toBe('INVALID_OPTION')
  })

  test.each([null, 5, 'text', true, []])('options that are %p are refused', options => {
    expect(refusal(options).message).toContain('expected an object')
  })

  test('ids are copied before they are checked', () => {
    const shared = new Int32Array(new SharedArrayBuffer(8))
    shared.set([1, 2])
    const ids = readIds(shared, 10, reason => new Error(reason))
    shared[0] = 999
    expect(Array.from(ids)).toEqual([1, 2])
    const liar = { length: 1, reads: 0, get 0() { return this.reads++ === 0 ? 3 : 99 } }
    expect(Array.from(readIds(liar, 10, reason => new Error(reason)))).toEqual([3])
  })

  test.each([{ length: -1 }, { length: 2 ** 40 }, { length: 1.5 }, { length: '3' }, null, 5, 'abc', undefined])(
    'ids that are %p are refused', value => {
      expect(() => readIds(value, 10, reason => new Error(reason))).toThrow(/expected/)
    })

  test('whatever is shown in a message is one short line', () => {
    fc.assert(fc.property(fc.anything(), value => {
      const shown = show(value)
      expect(shown.length).toBeLessThan(500)
      expect(shown).not.toMatch(/[\n\r]/)
    }))
  })

  test('no value whatever gets through as an option of any name', () => {
    const names = [...optionTable.map(row => row.name), 'stop', 'bias', 'allow', 'padTo', 'signal', 'stopTokenIds', 'x']
    fc.assert(fc.property(fc.constantFrom(...names), fc.anything(), (name, value) => {
      try {
        const { params } = checkGenerate({ [name]: value }, context)
        for (const row of optionTable) expect(['number', 'boolean']).toContain(typeof params[row.name])
      } catch (e) {
        expect(e).toBeInstanceOf(PolyLMError)
        expect((e as PolyLMError).code).toBe('INVALID_OPTION')
      }
    }), { numRuns: 2000 })
  })
})

describe('lists and choices', () => {
  test('stop', () => {
    expect(checkGenerate({ stop: 'a' }, context).stop).toEqual(['a'])
    expect(checkGenerate({ stop: ['a', 'é'] }, context).stop).toEqual(['a', 'é'])
    expect(refusal({ stop: '' }).option).toBe('stop')
    expect(refusal({ stop: ['a', 5] }).option).toBe('stop')
    expect(refusal({ stop: Array(1025).fill('a') }).message).toContain('at most 1024')
    expect(refusal({ stop: 'é'.repeat(32_769) }).message).toContain('65538 bytes')
    expect(refusal({ stop: ['x'.repeat(65_000), 'y'.repeat(537)] }).message).toContain('65537 bytes of UTF-8 in all')
    expect(checkGenerate({ stop: 'é'.repeat(32_768) }, context).stop).toHaveLength(1)
    expect(checkGenerate({ stop: Array.from({ length: 1024 }, (_, i) => `${i}`) }, context).stop).toHaveLength(1024)
    expect(refusal({ stop: 'a' }, { ...context, hasTokenizer: false }).code).toBe('TOKENIZER_MISSING')
  })

  test('stopTokenIds: a list replaces the default, [] disables, duplicates count once', () => {
    expect(Array.from(checkGenerate({}, context).params.stopTokenIds)).toEqual([2, 511])
    expect(Array.from(checkGenerate({ stopTokenIds: [] }, context).params.stopTokenIds)).toEqual([])
    expect(Array.from(checkGenerate({ stopTokenIds: [5, 5, 6] }, context).params.stopTokenIds)).toEqual([5, 6])
    expect(refusal({ stopTokenIds: [512] }).message).toContain('expected an integer from 0 to 511')
    expect(refusal({ stopTokenIds: Array.from({ length: 65 }, (_, i) => i) }).message).toContain('expected at most 64')
  })

  test('bias', () => {
    const { params } = checkGenerate({ bias: [[3, -Infinity], [[4, 5], 1.5], [[6], 2]] }, context)
    expect([Array.from(params.biasIds), Array.from(params.biasAmounts)]).toEqual([[3, 6], [-Infinity, 2]])
    expect(params.biasTokens.map(ids => Array.from(ids))).toEqual([[4, 5]])
    expect(Array.from(params.biasValues)).toEqual([1.5])
    for (const bias of [
      [[3, Infinity]], [[3, NaN]], [[3]], [[[], 1]], [[512, 1]], [[-1, 1]], [[1.5, 1]], {}, 'x', [3], [[3, 1], [[3], 1]],
      [[[3, 4], 1], [[3, 4], 2]],
    ]) expect(refusal({ bias }).option).toBe('bias')
    for (const bias of [[[3, 1e308]], [[3, -3.41e38]]]) expect(refusal({ bias }).option).toBe('bias')
    const ends = checkGenerate({ bias: [[3, 3.4028234663852886e38], [4, -3.4028234663852886e38], [5, 1e-320]] }, context)
    expect(Array.from(ends.params.biasAmounts, Math.fround).every(Number.isFinite)).toBe(true)
    expect(refusal({ bias: [[3, 1e39]] }).message).toContain('rule 0 adds 1e+39, expected a number from -3.4028234663852886e+38')
    const long = Array.from({ length: 3 }, (_, i) => [new Int32Array(400_000).fill(i), 1])
    expect(refusal({ bias: long }).message).toContain('rule 2: expected at most 248576 token ids, found 400000')
  })

  test('biasSparesStops: a ban does not count for a stop token', () => {
    const bias = [[2, -Infinity], [511, -Infinity], [[511, 3], -Infinity], [7, -Infinity]]
    const ids = (more: object): number[] => Array.from(checkGenerate({ bias, ...more }, context).params.biasIds)
    expect(ids({})).toEqual([2, 511, 7])
    expect(ids({ biasSparesStops: [2, 7] })).toEqual([511, 7])
    expect(ids({ biasSparesStops: [2, 7], stopTokenIds: [7] })).toEqual([2, 511])
    expect(checkGenerate({ bias, biasSparesStops: [511] }, context).params.biasTokens).toHaveLength(1)
    expect(Array.from(checkGenerate({ bias: [[2, 3]], biasSparesStops: [2] }, context).params.biasIds)).toEqual([2])
    expect(refusal({ biasSparesStops: [512] }).option).toBe('biasSparesStops')
  })

  test('stopMatching', () => {
    expect(checkGenerate({ stop: 'a', stopMatching: 'hf' }, context).params['stopHf']).toBe(true)
    expect(checkGenerate({ stop: 'a', stopMatching: 'output' }, context).params['stopHf']).toBe(false)
    expect(refusal({ stopMatching: 'prompt' }).option).toBe('stopMatching')
  })

  test('allow', () => {
    expect(Array.from(checkGenerate({ allow: { tokens: [7, 7, 8] } }, context).params.allowTokens)).toEqual([7, 8])
    const { params } = checkGenerate({ allow: { choices: ['ab', { tokens: [1, 2] }] } }, context)
    expect(params.allowChoices.map(ids => Array.from(ids))).toEqual([[97, 98], [1, 2]])
    for (const allow of [{}, { tokens: [] }, { choices: [] }, { choices: [''] }, { tokens: [1], choices: ['a'] }, 5]) {
      expect(refusal({ allow }).option).toBe('allow')
    }
  })

  test('padTo, earlyStopping, beamScoring, logprobsOf', () => {
    const { params } = checkGenerate(
      { padTo: { length: 9, tokenId: 0 }, earlyStopping: 'never', beamScoring: 'hf-4.31', logprobsOf: 'processed' }, context)
    expect(params).toMatchObject({
      padToLength: 9, padToToken: 0, earlyStopping: 2, beamScoring: 1, logprobsProcessed: true,
    })
    expect(checkGenerate({}, { ...context, compat: 'hf-4.31' }).params.beamScoring).toBe(1)
    for (const options of [
      { padTo: { length: 0, tokenId: 0 } }, { padTo: { length: 3 } }, { padTo: 3 }, { earlyStopping: 'maybe' },
      { beamScoring: 'hf-4.30' }, { logprobsOf: 'raw' }, { padTo: { length: 3, tokenId: 512 } },
    ]) expect(refusal(options).code).toBe('INVALID_OPTION')
  })

  test('speculate is lookup or false', () => {
    expect(checkGenerate({ speculate: 'lookup' }, context).params['speculateLookup']).toBe(true)
    for (const options of [{}, { speculate: false }, { speculate: undefined }]) {
      expect(checkGenerate(options, context).params['speculateLookup']).toBe(false)
    }
    for (const speculate of [true, 'draft', null, 4]) expect(refusal({ speculate }).option).toBe('speculate')
    expect(refusal({ speculate: true }).message).toBe("speculate: found true, expected 'lookup' or false")
  })

  test('truncateLeft needs maxTokens', () => {
    expect(refusal({ onOverflow: 'truncateLeft' }).message).toContain('needs maxTokens')
    expect(checkGenerate({ onOverflow: 'truncateLeft', maxTokens: 5 }, context).truncateLeft).toBe(true)
  })

  test('signal: anything that behaves like one', () => {
    const { signal } = new AbortController()
    expect(checkGenerate({ signal }, context).signal).toBe(signal)
    for (const value of [{}, null, 5, { aborted: false }]) expect(refusal({ signal: value }).option).toBe('signal')
  })

  test('a seed that was not given is an integer that can be given', () => {
    for (let i = 0; i < 100; i++) {
      const seed = checkGenerate({}, context).params['seed']
      expect(checkGenerate({ seed }, context).params['seed']).toBe(seed)
    }
  })
})

describe('load', () => {
  test('defaults', () => {
    expect(checkLoad(undefined)).toMatchObject({
      device: 'auto', precision: 'bf16', contextSize: undefined, maxSequences: 64, kvMemory: undefined,
      maxQueue: 4096, threads: 0, compat: 'hf-4.55', legacyTokenizer: undefined,
    })
  })

  test.each([
    ['4GiB', 2 ** 32], ['1.5MB', 1_500_000], ['16 KiB', 16384], [1234, 1234], ['7B', 7], ['auto', undefined],
  ])('kvMemory %p is %p bytes', (kvMemory, bytes) => {
    expect(checkLoad({ kvMemory }).kvMemory).toBe(bytes)
  })

  test.each([
    { kvMemory: '4 gigs' }, { kvMemory: -1 }, { kvMemory: NaN }, { kvMemory: 0 }, { kvMemory: '1e9B' }, { device: 'gpu' },
    { device: 'cuda:' }, { device: 'cuda:-1' }, { dtype: 'fp16' }, { contextSize: 0 }, { maxSequences: 1025 },
    { threads: 0 }, { threads: 'all' }, { maxQueue: 0 }, { compat: 'hf-4.30' }, { logger: 5 }, { onProgress: {} },
    { signal: 5 }, { legacyTokenizer: 1 }, { prefixCache: 'yes' },
  ])('%p is refused', options => {
    expect(() => checkLoad(options)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION', option: Object.keys(options)[0] }))
  })

  test.each([{ dtype: 'int8' }, { dtype: 'int4' }])('%p is not implemented yet', options => {
    expect(() => checkLoad(options)).toThrow(/not implemented yet/)
  })

  test('what load takes may be given to estimate', () => {
    expect(checkEstimate({ maxQueue: 5, contextSize: 9 }).contextSize).toBe(9)
    expect(() => checkEstimate({ context: 9 })).toThrow(/did you mean|is not an option/)
  })

  test('a context larger than the checkpoint\'s positions is refused', () => {
    expect(contextOf(checkLoad({}), 256)).toBe(256)
    expect(contextOf(checkLoad({ contextSize: 100 }), 256)).toBe(100)
    expect(() => contextOf(checkLoad({ contextSize: 257 }), 256)).toThrow(/257, the checkpoint has 256/)
  })
})

test('an empty bag stays empty whatever Object.prototype says', () => {
  expect(Object.getPrototypeOf(readBag(undefined, new Set(), 'x'))).toBeNull()
})
