// quote.test.ts: text of a stranger on its way to a person: nothing that a terminal obeys gets through, in messages,
// hints, warnings, tables and JSON, and the core's rule is the library's.
import fc from 'fast-check'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import {
  oneLine, printableJson, printableLines, quote, quotePath, unsafeRanges,
} from '../../lib/checkpoint/text.js'
import { describeFailure, UsageError } from '../../lib/cli/failure.js'
import { printable } from '../../lib/cli/terminal.js'
import { PolyLMError } from '../../lib/errors.js'
import { show } from '../../lib/option-reader.js'

/** Unicode's own classes, as this Node knows them; the ranges are ours and must not fall behind. */
const active = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u
const activeButLines = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u

/** What has been used against terminals and eyes. */
const attacks = [
  '\x1b[2J\x1b[31mred', '\x1b]0;title\x07', '\x07', '\b\b\b', '\x7f', '\x9b2J', '\x85', '\x90q\x9c', '\r\nfake: line',
  '\u202egnp.exe', '\u2066\u2069', '\u200b', '\u2028', '\u2029', '\ufeff', '\u00ad', '\u061c', '\u{e0041}\u{e007f}',
  '\ud800', '\udfff', 'x\ud83d', '"', '\\', '\0',
] as const

const hostile = fc.array(fc.oneof(
  fc.constantFrom(...attacks), fc.string({ unit: 'binary' }), fc.string({ unit: 'grapheme' }),
  fc.integer({ min: 0, max: 0xffff }).map(unit => String.fromCharCode(unit)),
), { maxLength: 40 }).map(parts => parts.join(''))

const bytesOf = (text: string): number => Buffer.byteLength(text)

test('the rule covers everything that Unicode calls a control, a format character or a separator', () => {
  for (let code = 0; code <= 0x10ffff; code++) {
    if (!active.test(String.fromCodePoint(code))) continue
    const ours = unsafeRanges.some(([first, last]) => code >= first && code <= last)
    if (!ours) throw new Error(`U+${code.toString(16)} is missing`)
  }
})

test('the core has the same rule', () => {
  const rows = readFileSync(path.join(__dirname, '../../csrc/platform/unsafe_chars.def'), 'utf8')
    .matchAll(/^ROW\((0x[0-9a-f]+), (0x[0-9a-f]+)\)$/gm)
  expect([...rows].map(([, first, last]) => [Number(first), Number(last)])).toEqual(unsafeRanges)
})

test('quoted text is one printable line of bounded length', () => {
  fc.assert(fc.property(hostile, fc.integer({ min: 8, max: 300 }), (text, limit) => {
    const quoted = quote(text, limit)
    expect(quoted).not.toMatch(active)
    expect(bytesOf(quoted)).toBeLessThanOrEqual(limit + '"..."'.length)
    expect(quoted).toMatch(/^"(?:[^"\\]|\\["\\]|\\u[0-9a-f]{4}|\\u\{[0-9a-f]+\})*(?:\.\.\.)?"$/su)
    expect(quotePath(text)).not.toMatch(active)
    expect(oneLine(text)).not.toMatch(active)
  }))
})

test('different short texts are shown differently', () => {
  fc.assert(fc.property(hostile, hostile, (a, b) => {
    fc.pre(a !== b && a.length < 500 && b.length < 500)
    expect(quote(a, 1e5)).not.toBe(quote(b, 1e5))
  }))
})

test('messages and hints of errors can be printed as they are, whatever they were made of', () => {
  fc.assert(fc.property(hostile, text => {
    const error = new PolyLMError('FILE_IO', `cannot read ${text}`, { hint: text, file: text })
    expect(error.message).not.toMatch(activeButLines)
    expect(error.hint).not.toMatch(activeButLines)
    expect(String(error)).not.toMatch(activeButLines)
    expect(error['file']).toBe(text)                        // fields are for programs: the name itself
    expect(describeFailure(new UsageError(text, text), true)).not.toMatch(activeButLines)
    expect(describeFailure(Object.assign(new Error(`ENOENT: open '${text}'`), { code: 'ENOENT' }), true))
      .not.toMatch(activeButLines)
    expect(show(text)).not.toMatch(active)
  }))
})

test('lines keep their ends and tabs, and safe text is left alone', () => {
  expect(printableLines('one\n\ttwo é 北京 😀 "x" \\')).toBe('one\n\ttwo é 北京 😀 "x" \\')
  expect(printableLines('\x1b[31m\r\x9b\u202e\u{e0041}')).toBe('\\u001b[31m\\u000d\\u009b\\u202e\\u{e0041}')
})

test('JSON for a terminal means the same and is printable', () => {
  fc.assert(fc.property(fc.dictionary(hostile, hostile), value => {
    const json = printableJson(JSON.stringify(value))
    expect(json).not.toMatch(active)
    expect(JSON.stringify(JSON.parse(json))).toBe(JSON.stringify(value))
  }))
})

test('text of a model on a terminal cannot move the cursor or turn lines, but keeps marks inside words', () => {
  const terminal = { isTTY: true } as NodeJS.WriteStream
  fc.assert(fc.property(hostile, text => {
    // eslint-disable-next-line no-control-regex
    expect(printable(text, terminal)).not.toMatch(/[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/)
  }))
  expect(printable('می\u200cخواهم\n', terminal)).toBe('می\u200cخواهم\n')
})
