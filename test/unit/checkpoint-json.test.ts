// The JSON reader: the same values as JSON.parse where both accept, stricter elsewhere, in slices.

import fc from 'fast-check'

import { JsonNumber } from '../../lib/checkpoint/json-number.js'
import { isJsonArray, isJsonObject, parseJson, type JsonValue } from '../../lib/checkpoint/json.js'
import { maxJsonMembers, maxJsonStringBytes, maxJsonValues } from '../../lib/checkpoint/limits.js'
import { isPolyLMError } from '../../lib/errors.js'

const parse = async (text: string | Buffer, maxBytes = 2 ** 27): Promise<JsonValue> =>
  await parseJson(Buffer.from(text as string), { maxBytes })

const codeOf = async (text: string | Buffer): Promise<string> => {
  const result: unknown = await parse(text).catch((e: unknown) => e)
  return isPolyLMError(result) ? result.code : `read ${JSON.stringify(plain(result as JsonValue))}`
}

// As JSON.parse would give it, with null prototypes.
function plain(value: JsonValue): unknown {
  if (value instanceof JsonNumber) return value.value
  if (typeof value === 'bigint') return Number(value)
  if (isJsonArray(value)) return value.map(plain)
  if (!isJsonObject(value)) return value
  const object = Object.create(null) as Record<string, unknown>
  for (const [key, member] of value) object[key] = plain(member)
  return object
}

// JSON.parse with a prototype that does not interfere.
function reference(text: string): unknown {
  return JSON.parse(text, (_, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? Object.assign(Object.create(null) as object, value)
      : value,
  )
}

test('every text of JSON.stringify gives the value that JSON.parse gives', async () => {
  await fc.assert(
    fc.asyncProperty(fc.jsonValue({ maxDepth: 6 }), fc.nat(4), async (value, indent) => {
      const text = JSON.stringify(value, null, indent)
      expect(plain(await parse(text))).toEqual(reference(text))
    }),
    { numRuns: 1000 },
  )
})

test('random texts: what is accepted, JSON.parse accepts with the same value', async () => {
  const piece = fc.constantFrom(
    ...['{', '}', '[', ']', ',', ':', '"', '"a"', '"b"', '\\', '\\u00e9', '\\ud83d\\ude00'],
    ...['0', '1', '-', '.', 'e', 'E+2', '-0', '12', 'true', 'false', 'null', ' ', '\n', 'é', 'x'],
  )
  let accepted = 0
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 12 }), async pieces => {
      const text = pieces.join('')
      const result: unknown = await parse(text).catch((e: unknown) => e)
      if (isPolyLMError(result)) {
        // JSON.parse takes the last of two equal keys, and infinity for 1e999.
        if (result.code === 'JSON_DUPLICATE') return
        if (result.message.includes('beyond all range')) return
        expect(() => reference(text)).toThrow()
        return
      }
      accepted++
      expect(plain(result as JsonValue)).toEqual(reference(text))
    }),
    { numRuns: 8000 },
  )
  expect(accepted).toBeGreaterThan(20)
})

test('random bytes never give anything but a value or a typed error', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 40 }), async bytes => {
      const result: unknown = await parse(Buffer.from(bytes)).catch((e: unknown) => e)
      if (result instanceof Error) expect(isPolyLMError(result)).toBe(true)
    }),
    { numRuns: 5000 },
  )
})

test.each([
  ['9007199254740991', 9007199254740991],
  ['-9007199254740991', -9007199254740991],
  ['9007199254740993', 9007199254740993n],
  ['18446744073709551615', 18446744073709551615n],
  ['-18446744073709551615', -18446744073709551615n],
  ['0', 0],
  ['-1', -1],
  ['999999999999999', 999999999999999],
])('the integer %s is exact', async (text, value) => {
  expect(await parse(text)).toBe(value)
})

test.each(['1.0', '1e3', '-0', '18446744073709551616', '1E-5', `1${'0'.repeat(60)}`])(
  '%s is not an exact integer and keeps its spelling',
  async text => {
    const value = await parse(text)
    if (!(value instanceof JsonNumber)) throw new Error('expected a JsonNumber')
    expect(value.text).toBe(text)
    expect(value.value).toBe(Number(text))
  },
)

test.each([
  ['{"a":1,"a":1}', 'JSON_DUPLICATE'],
  ['{"a":1,"\\u0061":1}', 'JSON_DUPLICATE'],
  ['{"a":{"b":1},"b":1}', 'read {"a":{"b":1},"b":1}'],
  ['[1,]', 'JSON_SYNTAX'],
  ['[01]', 'JSON_NUMBER'],
  ['[1.]', 'JSON_NUMBER'],
  ['[1e]', 'JSON_NUMBER'],
  ['[-]', 'JSON_SYNTAX'],
  ['"\\ud800"', 'JSON_SYNTAX'],
  ['"\\udc00\\ud800"', 'JSON_SYNTAX'],
  ['"\\ud83d\\u0041"', 'JSON_SYNTAX'],
  ['"\\u12g4"', 'JSON_SYNTAX'],
  ['"\\u12', 'JSON_SYNTAX'],
  ['"\\x41"', 'JSON_SYNTAX'],
  ['"\t"', 'JSON_SYNTAX'],
  ['"', 'JSON_SYNTAX'],
  ['tru', 'JSON_SYNTAX'],
  ['', 'JSON_SYNTAX'],
  ['1 2', 'JSON_SYNTAX'],
  ['\u00a01', 'JSON_SYNTAX'],
  ['\ufeff1', 'JSON_SYNTAX'],
  [`[${'9'.repeat(1025)}]`, 'JSON_NUMBER'],
  ['['.repeat(64) + ']'.repeat(64), `read ${'['.repeat(64)}${']'.repeat(64)}`],
  ['['.repeat(65) + ']'.repeat(65), 'JSON_DEPTH'],
])('%s', async (text, expected) => {
  expect(await codeOf(text)).toBe(expected)
})

test('limits of size, strings, values and members, at the limit and one past it', async () => {
  const text = '[1,2,3]'
  expect(plain(await parse(text, text.length))).toEqual([1, 2, 3])
  await expect(parse(text, text.length - 1)).rejects.toMatchObject({ code: 'LIMIT' })
  const long = 'x'.repeat(maxJsonStringBytes)
  expect(await parse(`"${long}"`)).toBe(long)
  await expect(parse(`"${long}x"`)).rejects.toMatchObject({ code: 'LIMIT' })
  const many = (count: number): string => `[${'0,'.repeat(count - 2)}0]`
  expect(await parse(many(maxJsonValues))).toHaveLength(maxJsonValues - 1)
  await expect(parse(many(maxJsonValues + 1))).rejects.toMatchObject({ code: 'LIMIT' })
  const wide = (count: number): string =>
    `{${Array.from({ length: count }, (_, i) => `"${i}":0`).join()}}`
  expect(await parse(wide(maxJsonMembers))).toHaveProperty('size', maxJsonMembers)
  await expect(parse(wide(maxJsonMembers + 1))).rejects.toMatchObject({ code: 'LIMIT' })
})

test('names of object members that mean something to JavaScript are only names', async () => {
  const value = await parse('{"__proto__":{"polluted":1},"constructor":2,"10":3,"2":4}')
  if (!isJsonObject(value)) throw new Error('expected an object')
  expect([...value.keys()]).toEqual(['__proto__', 'constructor', '10', '2'])
  expect(({} as { polluted?: number }).polluted).toBeUndefined()
})

test('errors say where, what was found and what was expected', async () => {
  await expect(parse('{"a" 1}')).rejects.toMatchObject({
    code: 'JSON_SYNTAX',
    offset: 5,
    message: expect.stringMatching(/found '1' at byte 5, expected ':'/) as string,
  })
})

describe('as Python reads it', () => {
  const warnings: string[] = []
  const read = async (text: string): Promise<JsonValue> =>
    await parseJson(Buffer.from(text), { maxBytes: 2 ** 20, python: { warnings } })
  beforeEach(() => { warnings.length = 0 })

  // What json.loads of Python 3.11 gives.
  test.each<[string, unknown]>([
    ['[NaN, Infinity, -Infinity, 1e999, -1e999]', [NaN, Infinity, -Infinity, Infinity, -Infinity]],
    ['"\\ud800"', '\ud800'],
    ['"\\udc00\\ud800x"', '\udc00\ud800x'],
    ['"\\ud83d\\u0041"', '\ud83dA'],
    ['"\\ud83d\\ude00"', '\u{1f600}'],
    ['{"a":1,"b":2,"a":3}', { a: 3, b: 2 }],
    ['{"a":{"b":1,"b":2}}', { a: { b: 2 } }],
    ['\ufeff{"a":1}', { a: 1 }],
  ])('%s', async (text, expected) => {
    // toMatchObject: objects of `plain` have no prototype.
    expect({ value: plain(await read(text)) }).toMatchObject({ value: expected })
  })

  test.each(['nan', 'NaNx', '-NaN', '+Infinity', 'infinity', 'Inf', '[1,]', "{'a':1}", '01', '1.', '"\t"', '"\\ud8"', ''])(
    '%s is refused as there', async text => {
      await expect(read(text)).rejects.toMatchObject({ code: expect.stringMatching(/^JSON_/) as string })
    })

  test('equal keys are one warning, however many', async () => {
    await read(`{${'"a":0,'.repeat(1000)}"b":[{"c":1,"c":2}]}`)
    expect(warnings).toEqual([expect.stringContaining('"a" twice: the last one counts')])
  })
})

describe('an opaque member', () => {
  const read = async (text: string): Promise<JsonValue> =>
    await parseJson(Buffer.from(text), { maxBytes: 2 ** 27, opaque: 'm' })

  test('is checked but not kept', async () => {
    expect(plain(await read('{"m":{"k":"v\\u00e9\\n","l":["w"],"n":1},"a":"b"}'))).toEqual({
      m: { k: '', l: [''], n: 1 },
      a: 'b',
    })
    const long = 'x'.repeat(2 * maxJsonStringBytes)
    expect(plain(await read(`{"m":{"k":"${long}"}}`))).toEqual({ m: { k: '' } })
  })

  test.each(['{"m":"\t"}', '{"m":"\\x"}', '{"m":"\\ud800"}', '{"m":"', '{"m":"x\\'])(
    '%s is refused',
    async text => {
      await expect(read(text)).rejects.toMatchObject({ code: 'JSON_SYNTAX' })
    },
  )

  test('applies to the outermost object only', async () => {
    expect(plain(await read('{"a":{"m":"kept"}}'))).toEqual({ a: { m: 'kept' } })
  })
})

describe('slices', () => {
  // Some 40 MB: half a second of work, whatever the machine.
  const entries = Array.from(
    { length: 60_000 },
    (_, i) => `"${'n'.repeat(500)}${i}":{"shape":[${i}]}`,
  )
  const large = Buffer.from(`{${entries.join(',')}}${' '.repeat(8_000_000)}`)

  test('the event loop turns while a large text is read', async () => {
    let turns = 0
    let reading = true
    const turn = (): void => {
      turns++
      if (reading) setImmediate(turn)
    }
    setImmediate(turn)
    const value = await parseJson(large, { maxBytes: large.length })
    reading = false
    expect(isJsonObject(value) && value.size).toBe(60_000)
    expect(turns).toBeGreaterThan(10)
  })

  test('aborting stops it in the middle', async () => {
    const controller = new AbortController()
    const reason = new Error('enough')
    const reading = parseJson(large, { maxBytes: large.length, signal: controller.signal })
    setImmediate(() => controller.abort(reason))
    await expect(reading).rejects.toBe(reason)
  })
})
