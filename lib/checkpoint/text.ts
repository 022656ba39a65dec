// text.ts: how messages show text of a stranger: what was found in a file, names of files, what the
// system said. Such text is hostile: it must not reach a terminal or a log as escape sequences or as
// megabytes. The core has the same rule (csrc/platform/quote.h); a test compares the two.

import type { JsonValue } from './json.js'
import { JsonNumber } from './json-number.js'

const shownBytes = 200

/**
 * Characters that a terminal, a log or a page obeys instead of showing them: controls, marks that
 * join or reorder text, line separators, byte order marks, tags (Unicode's classes Cc, Cf, Zl and
 * Zp) and lone surrogates. The rows of csrc/platform/unsafe_chars.def.
 */
export const unsafeRanges: ReadonlyArray<readonly [first: number, last: number]> = [
  [0x0000, 0x001f], [0x007f, 0x009f], [0x00ad, 0x00ad], [0x0600, 0x0605], [0x061c, 0x061c],
  [0x06dd, 0x06dd], [0x070f, 0x070f], [0x0890, 0x0891], [0x08e2, 0x08e2], [0x180e, 0x180e],
  [0x200b, 0x200f], [0x2028, 0x202e], [0x2060, 0x206f], [0xd800, 0xdfff], [0xfeff, 0xfeff],
  [0xfff9, 0xfffb], [0x110bd, 0x110bd], [0x110cd, 0x110cd], [0x13430, 0x1343f],
  [0x1bca0, 0x1bca3], [0x1d173, 0x1d17a], [0xe0000, 0xe007f],
]

const classOf = (ranges: typeof unsafeRanges): string =>
  ranges.map(([first, last]) => `\\u{${first.toString(16)}}-\\u{${last.toString(16)}}`).join('')
const unsafe = new RegExp(`[${classOf(unsafeRanges)}]`, 'u')
const unsafeEverywhere = new RegExp(`[${classOf(unsafeRanges)}]`, 'gu')
const unsafeInLines = new RegExp(`(?![\\n\\t])[${classOf(unsafeRanges)}]`, 'gu')

/**
 * `text` in double quotes, at most `limit` bytes of it, with everything invisible or active
 * escaped.
 */
export function quote(text: string, limit = shownBytes): string {
  let shown = ''
  let bytes = 0
  for (const char of text.slice(0, limit + 1)) {
    const piece = escapeChar(char)
    bytes += Buffer.byteLength(piece)
    if (bytes > limit) return `"${shown}..."`
    shown += piece
  }
  return `"${shown}"`
}

/** Like {@link quote} without quotes and without a limit: a name in a table or a path in a list. */
export function oneLine(text: string): string {
  return text.replace(unsafeEverywhere, escapeUnsafe)
}

/**
 * A whole message as it may be printed: what {@link quote} escapes is escaped, line ends and tabs
 * stay. For text that should be safe already: names the system puts into its errors, for instance.
 */
export function printableLines(text: string): string {
  return text.replace(unsafeInLines, escapeUnsafe)
}

/** JSON with the same characters as JSON's own escapes: no value changes. */
export function printableJson(json: string): string {
  return json.replace(unsafeEverywhere, char => (
    Array.from({ length: char.length }, (_, i) => escapeUnit(char.charCodeAt(i))).join('')
  ))
}

/** A path, which the user mostly knows, so more of it is shown. */
export function quotePath(path: string): string {
  return quote(path, 4096)
}

/** A value of a JSON file as an error message shows it. */
export function describe(value: JsonValue | undefined): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'null'
  if (typeof value === 'string') return quote(value)
  if (value instanceof JsonNumber)
    return value.text.length <= 40 ? value.text : `${value.text.slice(0, 40)}...`
  if (typeof value !== 'object') return String(value)
  return Array.isArray(value) ? 'an array' : 'an object'
}

function escapeChar(char: string): string {
  if (char === '"' || char === '\\') return `\\${char}`
  return unsafe.test(char) ? escapeUnsafe(char) : char
}

function escapeUnsafe(char: string): string {
  const code = char.codePointAt(0) ?? 0
  return code > 0xffff ? `\\u{${code.toString(16)}}` : escapeUnit(code)
}

const escapeUnit = (unit: number): string => `\\u${unit.toString(16).padStart(4, '0')}`
