// score-rules.test.ts: the rules of Python that scores follow: white space, and the sum of floats.
import fc from 'fast-check'
import { CompensatedSum, compensatedSum } from '../../lib/compensated-sum.js'
import { pythonRstrip } from '../../lib/python-text.js'

// [chr(i) for i in range(0x110000) if chr(i).isspace()], Python 3.12
const pythonSpaces = new Set([
  ...[9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 0x85, 0xA0, 0x1680], ...Array.from({ length: 11 }, (_, i) => 0x2000 + i),
  0x2028, 0x2029, 0x202F, 0x205F, 0x3000,
])

test('rstrip takes off what Python calls white space, of all characters', () => {
  for (let code = 0; code < 0x110000; code++) {
    const text = `a ${String.fromCodePoint(code)}`
    const stripped = pythonRstrip(text)
    if (stripped !== (pythonSpaces.has(code) ? 'a' : text)) throw new Error(`U+${code.toString(16)}: ${JSON.stringify(stripped)}`)
  }
})

test('rstrip: all of the end, nothing else, and JavaScript would differ', () => {
  expect(pythonRstrip(' \u0085 a b\u001C\u001D\u001E\u001F\u0085\u3000 \t\r\n')).toBe(' \u0085 a b')
  expect(pythonRstrip('a\uFEFF')).toBe('a\uFEFF')
  expect('a\uFEFF'.trimEnd()).toBe('a')
  expect(pythonRstrip('a\u200B')).toBe('a\u200B')
  expect([pythonRstrip(''), pythonRstrip(' \u001F')]).toEqual(['', ''])
})

// Log-probabilities of tokens that are nearly certain: plainly added they give -0.03510898481191374.
const certain = [
  -1.136197003148709e-08, -1.2349933342648e-07, -0.02664962224662304, -2.3090654822227608e-12, -4.841534610022791e-05,
  -0.008410812355577946,
]

// math.fsum and sum() of Python 3.12 agree on these; adding plainly does not.
test.each<[number[], number]>([
  [Array<number>(10).fill(0.1), 1], [[1e16, 1, -1e16], 1], [[1, 1e100, 1, -1e100], 2], [[], 0], [[-2.5], -2.5],
  [[-1.1, -2.2, -3.3, -4.4, -5.5].map(Math.fround), -16.50000011920929],
  [certain, -0.035108984811913733],
])('the sum of %j is %d', (terms, sum) => {
  expect(compensatedSum(terms)).toBe(sum)
})

test('infinities and NaN stay what they are', () => {
  expect(compensatedSum([-1, -Infinity, -2])).toBe(-Infinity)
  expect(compensatedSum([-Infinity, Infinity])).toBeNaN()
  expect(compensatedSum([1, NaN])).toBeNaN()
})

test('of log-probabilities it is the exact sum, rounded once', () => {
  const logprob = fc.double({ min: -30, max: 0, noNaN: true }).map(Math.fround)
  fc.assert(fc.property(fc.array(logprob, { maxLength: 60 }), terms => {
    const scale = 2n ** 170n                        // the smallest float32 is 2^-149
    const exact = terms.reduce((sum, term) => sum + BigInt(term * 2 ** 149) * 2n ** 21n, 0n)
    const sum = new CompensatedSum()
    for (const term of terms) sum.add(term)
    const error = BigInt(Math.round(sum.value * 2 ** 140)) * 2n ** 30n - exact
    // One unit in the last place of a sum below 2048 is 2^-42.
    expect(error < scale / 2n ** 42n && error > -(scale / 2n ** 42n)).toBe(true)
  }))
})
