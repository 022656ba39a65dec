// text.ts: how error messages show what was found in a file. File content is hostile: it must not
// reach a terminal or a log as escape sequences or as megabytes.

import type { JsonValue } from './json.js'
import { JsonNumber } from './json-number.js'

const shownBytes = 200
// Controls, line separators, marks that reorder text, byte order mark, lone surrogates.
const unsafe = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u

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
  if (!unsafe.test(char)) return char
  const code = char.codePointAt(0) ?? 0
  return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, '0')}`
}
