// json.ts: a strict JSON reader for files that others wrote. Unlike JSON.parse it refuses duplicate
// keys, keeps exact integers apart from other numbers, bounds depth, size and the count of values,
// checks UTF-8, and lets the event loop turn every few milliseconds. Small files beside the weights
// are read with `python`, as the json module of Python reads them. Objects become Maps: a key such
// as `__proto__` is only a key. No recursion anywhere; the trap is any single step whose cost grows
// with the file.

import { isUtf8 } from 'node:buffer'

import { PolyLMError, type ErrorCode } from '../errors.js'
import { withFile } from './file.js'
import { JsonNumber } from './json-number.js'
import {
  maxJsonDepth,
  maxJsonMembers,
  maxJsonNumberBytes,
  maxJsonStringBytes,
  maxJsonValues,
} from './limits.js'
import { Slicer } from './slicer.js'
import { mistakenFor, sniffBytes } from './sniff.js'
import { quote, quotePath } from './text.js'

/** A JSON object in file order. */
export type JsonObject = ReadonlyMap<string, JsonValue>

/**
 * A JSON value. Integers are `number` while exact, `bigint` from there to 64 bits; every other
 * number is a {@link JsonNumber}.
 */
export type JsonValue =
  null | boolean | number | bigint | JsonNumber | string | readonly JsonValue[] | JsonObject

/** How to read one JSON text. */
export interface JsonOptions {
  /** Named in errors. */
  readonly file?: string | undefined
  /** Refused with LIMIT beyond. */
  readonly maxBytes: number
  /** Members of one object. @default {@link maxJsonMembers} */
  readonly maxMembers?: number | undefined
  /** Accept a UTF-8 byte order mark in front. @default false */
  readonly allowBom?: boolean | undefined
  /**
   * Name of a top-level member whose string values may be of any length and are checked but not
   * kept: they come back as ''.
   */
  readonly opaque?: string | undefined
  /**
   * Read what Python's json module reads and JSON does not have: `NaN` and `Infinity`, numbers
   * beyond all range, halves of surrogate pairs, a byte order mark in front, and of two equal keys
   * the last, about which a line is added to `warnings`.
   */
  readonly python?: { readonly warnings: string[] } | undefined
  readonly signal?: AbortSignal | undefined
}

/** True when a JSON value is an object. */
export function isJsonObject(value: JsonValue | undefined): value is JsonObject {
  return value instanceof Map
}

/** True when a JSON value is an array. */
export function isJsonArray(value: JsonValue | undefined): value is readonly JsonValue[] {
  return Array.isArray(value)
}

/**
 * Reads one JSON text.
 *
 * @throws PolyLMError JSON_SYNTAX, JSON_DEPTH, JSON_DUPLICATE, JSON_NUMBER, HEADER_UTF8 or LIMIT,
 * with `file` and `offset`; or the signal's reason.
 */
export async function parseJson(bytes: Uint8Array, options: JsonOptions): Promise<JsonValue> {
  const slicer = new Slicer(options.signal)
  const file = options.file === undefined ? 'the JSON text' : quotePath(options.file)
  if (bytes.length > options.maxBytes) {
    throw new PolyLMError(
      'LIMIT',
      `${file} has ${bytes.length} bytes, at most ${options.maxBytes} are accepted`,
      { file: options.file },
    )
  }
  await checkUtf8(bytes, file, options.file, slicer)
  const parser = new Parser(bytes, file, options)
  while (!parser.run()) {
    if (slicer.due()) await slicer.pause()
  }
  return parser.result
}

/** Reads a JSON file; as {@link parseJson}, and FILE_NOT_FOUND, FILE_IO and FILE_TRUNCATED. */
export async function readJsonFile(path: string, options: JsonOptions): Promise<JsonValue> {
  return await withFile(path, async file => {
    const { size, path: absolute } = file.entry
    if (size > options.maxBytes) {
      throw new PolyLMError(
        'LIMIT',
        `${quotePath(absolute)} has ${size} bytes, at most ${options.maxBytes} are accepted`,
        { file: absolute },
      )
    }
    const bytes = await file.read(0, size, options.signal)
    const mistaken = mistakenFor(bytes.subarray(0, sniffBytes), size, absolute)
    if (mistaken !== undefined) {
      const { what, hint } = mistaken
      const text = `${quotePath(absolute)} ${what}`
      throw new PolyLMError('JSON_SYNTAX', text, { file: absolute, hint })
    }
    return await parseJson(bytes, { ...options, file: absolute })
  })
}

async function checkUtf8(
  bytes: Uint8Array,
  shown: string,
  file: string | undefined,
  slicer: Slicer,
): Promise<void> {
  const pieceBytes = 1024 * 1024
  let start = 0
  while (start < bytes.length) {
    let end = Math.min(start + pieceBytes, bytes.length)
    // Not through a character: back to its first byte, which is at most three away.
    for (let i = 0; i < 3 && end < bytes.length && ((bytes[end] ?? 0) & 0xc0) === 0x80; i++) end--
    if (!isUtf8(bytes.subarray(start, end))) {
      throw new PolyLMError('HEADER_UTF8', `${shown} is not UTF-8 text (after byte ${start})`, {
        file,
        offset: start,
        hint: file === undefined ? undefined : 'download it again, or save it as UTF-8',
      })
    }
    start = end
    if (slicer.due()) await slicer.pause()
  }
}

type State =
  'value' | 'first-item' | 'first-key' | 'key' | 'colon' | 'after-value' | 'opaque-string' | 'done'

// Bytes between two looks at the clock.
const stepBytes = 32 * 1024
const endOfText = 'the end of the text'
const quoteByte = 0x22
const backslash = 0x5c
const escapes: ReadonlyMap<number, string> = new Map(
  [
    ['"', '"'],
    ['\\', '\\'],
    ['/', '/'],
    ['b', '\b'],
    ['f', '\f'],
    ['n', '\n'],
    ['r', '\r'],
    ['t', '\t'],
  ].map(([from, to]) => [(from ?? '').charCodeAt(0), to ?? '']),
)

// Value of each byte as a hexadecimal digit; 16 for those that are none.
const hexDigits = Uint8Array.from({ length: 256 }, (_, byte) => {
  const char = String.fromCharCode(byte)
  return /[0-9a-fA-F]/.test(char) ? Number.parseInt(char, 16) : 16
})

type Container = JsonValue[] | Map<string, JsonValue>

// A state machine that can stop between any two tokens and inside opaque strings and white space.
class Parser {
  result: JsonValue = null
  readonly #bytes: Buffer
  readonly #shown: string
  readonly #options: JsonOptions
  #at = 0
  #state: State = 'value'
  #values = 0
  // Open containers, outermost first, and the key that waits for its value in each.
  readonly #stack: Container[] = []
  readonly #keys: string[] = []
  #inOpaque = false
  #duplicates = 0

  constructor(bytes: Uint8Array, shown: string, options: JsonOptions) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#shown = shown
    this.#options = options
    if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) {
      if (options.allowBom !== true && options.python === undefined)
        throw this.#error('JSON_SYNTAX', 'a byte order mark')
      this.#at = 3
    }
  }

  // Works through the next piece; true when the text is complete.
  run(): boolean {
    const bytes = this.#bytes
    const limit = Math.min(this.#at + stepBytes, bytes.length)
    while (this.#at < limit) {
      if (this.#state === 'opaque-string') {
        this.#opaqueString(limit)
        continue
      }
      const byte = bytes[this.#at] ?? 0
      if (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) this.#at++
      else this.#token(byte)
    }
    if (this.#at < bytes.length) return false
    if (this.#state !== 'done') throw this.#error('JSON_SYNTAX', endOfText)
    return true
  }

  #token(byte: number): void {
    switch (this.#state) {
      case 'value':
        return this.#value(byte)
      case 'first-item':
        return byte === 0x5d ? this.#close() : this.#value(byte)
      case 'first-key':
        return byte === 0x7d ? this.#close() : this.#key(byte)
      case 'key':
        return this.#key(byte)
      case 'colon':
        if (byte !== 0x3a) throw this.#error('JSON_SYNTAX', this.#found(), "':'")
        this.#at++
        this.#state = 'value'
        return
      case 'after-value':
        return this.#afterValue(byte)
      default:
        throw this.#error('JSON_SYNTAX', this.#found(), 'nothing after the value')
    }
  }

  #value(byte: number): void {
    if (++this.#values > maxJsonValues)
      throw this.#error('LIMIT', `more than ${maxJsonValues} values`)
    if (byte === quoteByte) return this.#stringValue()
    if (byte === 0x7b) return this.#open(new Map(), 'first-key')
    if (byte === 0x5b) return this.#open([], 'first-item')
    if (byte === 0x2d && this.#options.python !== undefined && this.#bytes[this.#at + 1] === 0x49) {
      return this.#word('-Infinity', new JsonNumber('-Infinity'))
    }
    if (byte === 0x2d || (byte >= 0x30 && byte <= 0x39)) return this.#finish(this.#number())
    if (byte === 0x74) return this.#word('true', true)
    if (byte === 0x66) return this.#word('false', false)
    if (byte === 0x6e) return this.#word('null', null)
    if (this.#options.python !== undefined) {
      if (byte === 0x4e) return this.#word('NaN', new JsonNumber('NaN'))
      if (byte === 0x49) return this.#word('Infinity', new JsonNumber('Infinity'))
    }
    throw this.#error('JSON_SYNTAX', this.#found(), 'a value')
  }

  #open(container: Container, state: State): void {
    if (this.#stack.length >= maxJsonDepth)
      throw this.#error('JSON_DEPTH', `nesting deeper than ${maxJsonDepth}`)
    this.#at++
    this.#stack.push(container)
    this.#keys.push('')
    this.#state = state
  }

  #close(): void {
    this.#at++
    this.#keys.pop()
    this.#finish(this.#stack.pop() ?? null)
  }

  #afterValue(byte: number): void {
    const isArray = Array.isArray(this.#stack.at(-1))
    if (byte === 0x2c) {
      this.#at++
      this.#state = isArray ? 'value' : 'key'
    } else if (byte === (isArray ? 0x5d : 0x7d)) {
      this.#close()
    } else {
      throw this.#error('JSON_SYNTAX', this.#found(), isArray ? "',' or ']'" : "',' or '}'")
    }
  }

  #key(byte: number): void {
    const members = this.#stack.at(-1) as Map<string, JsonValue>
    if (byte !== quoteByte)
      throw this.#error('JSON_SYNTAX', this.#found(), 'a key in double quotes')
    const start = this.#at
    const key = this.#string()
    const limit = this.#options.maxMembers ?? maxJsonMembers
    if (members.size >= limit)
      throw this.#error('LIMIT', `more than ${limit} members of one object`)
    if (members.has(key)) this.#duplicate(key, start)
    this.#keys[this.#keys.length - 1] = key
    if (this.#stack.length === 1) this.#inOpaque = key === this.#options.opaque
    this.#state = 'colon'
  }

  #duplicate(key: string, at: number): void {
    const { python } = this.#options
    if (python === undefined) {
      const found = `a key twice in one object: ${quote(key)}`
      throw this.#error('JSON_DUPLICATE', found, undefined, at)
    }
    if (++this.#duplicates > 1) return
    python.warnings.push(`${this.#shown} has the key ${quote(key)} twice: the last one counts`)
  }

  // Puts a complete value where it belongs.
  #finish(value: JsonValue): void {
    const container = this.#stack.at(-1)
    if (container === undefined) {
      this.result = value
      this.#state = 'done'
      return
    }
    if (Array.isArray(container)) container.push(value)
    else container.set(this.#keys.at(-1) ?? '', value)
    this.#state = 'after-value'
  }

  #word(word: string, value: JsonValue): void {
    const end = this.#at + word.length
    if (this.#bytes.toString('latin1', this.#at, Math.min(end, this.#bytes.length)) !== word) {
      throw this.#error('JSON_SYNTAX', this.#found(), 'a value')
    }
    this.#at = end
    this.#finish(value)
  }

  #stringValue(): void {
    if (!this.#inOpaque) return this.#finish(this.#string())
    this.#at++
    this.#state = 'opaque-string'
  }

  // Checks a string that is not kept, up to `limit`; escapes are looked at whole.
  #opaqueString(limit: number): void {
    while (this.#at < limit) {
      const byte = this.#bytes[this.#at] ?? 0
      if (byte === quoteByte) {
        this.#at++
        return this.#finish('')
      }
      if (byte < 0x20) throw this.#error('JSON_SYNTAX', 'a control character in a string')
      if (byte === backslash) this.#escape()
      else this.#at++
    }
  }

  #string(): string {
    const bytes = this.#bytes
    const start = ++this.#at
    let text = ''
    let run = start
    for (;;) {
      const byte = bytes[this.#at]
      if (byte === quoteByte) break
      if (byte === undefined)
        throw this.#error('JSON_SYNTAX', endOfText, 'the end of a string')
      if (byte < 0x20) throw this.#error('JSON_SYNTAX', 'a control character in a string')
      if (this.#at - start >= maxJsonStringBytes) {
        throw this.#error('LIMIT', `a string of more than ${maxJsonStringBytes} bytes`)
      }
      if (byte === backslash) {
        text += bytes.toString('utf8', run, this.#at)
        text += this.#escape()
        run = this.#at
      } else {
        this.#at++
      }
    }
    text += bytes.toString('utf8', run, this.#at)
    this.#at++
    return text
  }

  // One escape, a surrogate pair being one; leaves the position behind it.
  #escape(): string {
    const letter = this.#bytes[this.#at + 1] ?? 0
    if (letter !== 0x75) {
      const char = escapes.get(letter)
      if (char === undefined) throw this.#error('JSON_SYNTAX', 'an unknown escape in a string')
      this.#at += 2
      return char
    }
    const unit = this.#hex(this.#at + 2)
    if (unit < 0xd800 || unit > 0xdfff) {
      this.#at += 6
      return String.fromCharCode(unit)
    }
    const low =
      this.#bytes[this.#at + 6] === backslash && this.#bytes[this.#at + 7] === 0x75
        ? this.#hex(this.#at + 8)
        : 0
    if (unit > 0xdbff || low < 0xdc00 || low > 0xdfff) {
      if (this.#options.python === undefined)
        throw this.#error('JSON_SYNTAX', 'half a surrogate pair')
      this.#at += 6
      return String.fromCharCode(unit)
    }
    this.#at += 12
    return String.fromCharCode(unit, low)
  }

  #hex(at: number): number {
    let value = 0
    for (let i = at; i < at + 4; i++) {
      const digit = hexDigits[this.#bytes[i] ?? 0] ?? 16
      if (digit > 15) throw this.#error('JSON_SYNTAX', 'a \\u escape without four digits')
      value = value * 16 + digit
    }
    return value
  }

  #number(): JsonValue {
    const bytes = this.#bytes
    const start = this.#at
    let end = start
    let value = 0
    let byte = bytes[end] ?? 0
    while (byte >= 0x30 && byte <= 0x39 && end - start < 15) {
      value = value * 10 + (byte - 0x30)
      byte = bytes[++end] ?? 0
    }
    const plain = end > start && (bytes[start] !== 0x30 || end === start + 1)
    if (!plain || isNumberByte(byte)) return this.#longNumber(start)
    this.#at = end
    return value
  }

  #longNumber(start: number): JsonValue {
    let end = start
    while (isNumberByte(this.#bytes[end] ?? 0) && end - start <= maxJsonNumberBytes) end++
    const text = this.#bytes.toString('latin1', start, end)
    if (text === '-') throw this.#error('JSON_SYNTAX', "'-' without a number")
    if (
      end - start > maxJsonNumberBytes ||
      !/^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/.test(text)
    ) {
      throw this.#error('JSON_NUMBER', `the malformed number ${text.slice(0, 40)}`)
    }
    const value = Number(text)
    if (!Number.isFinite(value) && this.#options.python === undefined)
      throw this.#error('JSON_NUMBER', `the number ${text.slice(0, 40)} beyond all range`)
    this.#at = end
    if (text === '-0' || !/^-?\d+$/.test(text)) return new JsonNumber(text)
    if (Number.isSafeInteger(value)) return value
    const digits = text.length - (text.startsWith('-') ? 1 : 0)
    if (digits > 20) return new JsonNumber(text)
    const big = BigInt(text)
    return big < 2n ** 64n && big > -(2n ** 64n) ? big : new JsonNumber(text)
  }

  #found(): string {
    const code =
      this.#bytes
        .toString('utf8', this.#at, Math.min(this.#at + 4, this.#bytes.length))
        .codePointAt(0) ?? 0
    return code > 0x20 && code < 0x7f
      ? `'${String.fromCodePoint(code)}'`
      : `the character U+${hex4(code)}`
  }

  #error(code: ErrorCode, found: string, expected?: string, at = this.#at): PolyLMError {
    const wanted = expected === undefined ? '' : `, expected ${expected}`
    return new PolyLMError(code, `${this.#shown}: found ${found} at byte ${at}${wanted}`, {
      file: this.#options.file,
      offset: at,
      hint: found === endOfText ? 'the file is incomplete: download it again' : undefined,
    })
  }
}

function isNumberByte(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    byte === 0x2e ||
    byte === 0x65 ||
    byte === 0x45 ||
    byte === 0x2b ||
    byte === 0x2d
  )
}

function hex4(code: number): string {
  return code.toString(16).toUpperCase().padStart(4, '0')
}
