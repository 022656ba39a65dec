// json-number.ts: a JSON number that is not an exact integer, kept with its spelling. It is a class
// of its own so that `1.0`, `1e3` and `-0` cannot pass where an exact integer is meant.

import type { JsonValue } from './json.js'

/** A number literal with a fraction, an exponent, a negative zero or more than 64 bits. */
export class JsonNumber {
  /** As written in the file. */
  readonly text: string

  constructor(text: string) {
    this.text = text
  }

  /** The nearest double. */
  get value(): number {
    return Number(this.text)
  }
}

/**
 * The integer that a number of a JSON file is, `2048.0` and `1e3` included; undefined for all else.
 * For the files beside the weights, which hand-written tools write too; offsets and shapes must be
 * spelled as integers.
 */
export function toInteger(value: JsonValue | undefined): number | bigint | undefined {
  if (typeof value === 'number' || typeof value === 'bigint') return value
  if (!(value instanceof JsonNumber) || !Number.isInteger(value.value)) return undefined
  // Adding 0 makes a negative zero a plain one.
  return value.value + 0
}

/** True or false, also as the 1 or 0 that Python takes for it; undefined for all else. */
export function toBoolean(value: JsonValue | undefined): boolean | undefined {
  if (typeof value === 'boolean') return value
  const integer = toInteger(value)
  return integer === 0 || integer === 1 ? integer === 1 : undefined
}

/** True for the id of a token of a vocabulary. */
export function isTokenId(value: JsonValue | undefined, vocabSize: number): boolean {
  const id = toInteger(value)
  return id !== undefined && id >= 0 && id < vocabSize
}
