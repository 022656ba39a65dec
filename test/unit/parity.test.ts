// parity.test.ts: the tables that exist twice, in the core and in TypeScript, say the same.
import { errorCodes } from '../../lib/errors.js'
import { generateNames } from '../../lib/generate-options.js'
import { loadNative } from '../../lib/native.js'
import { derivedRows, optionLimits, optionTable } from '../../lib/option-table.js'

test('every row of the core\'s table of options is the row here', () => {
  expect(optionTable).toEqual(loadNative().describe().params)
})

test('the limits of lists are those of the core', () => {
  expect(optionLimits).toEqual(loadNative().describe().limits)
})

test('every scalar option can be given, under its own name or another one', () => {
  for (const { name } of loadNative().describe().params) {
    expect(generateNames.has(name) || derivedRows.has(name)).toBe(true)
  }
  for (const name of ['logprobsOf', 'padTo', 'speculate', 'stopMatching']) expect(generateNames.has(name)).toBe(true)
})

test('the error codes are those of the core, in its order', () => {
  expect(loadNative().describe().errorCodes).toEqual([...errorCodes])
})

test('a default lies in its range', () => {
  for (const { min, max, default: value } of optionTable) {
    expect(value).toBeGreaterThanOrEqual(min)
    expect(value).toBeLessThanOrEqual(max)
  }
})
