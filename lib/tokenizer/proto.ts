// proto.ts: a strict walk over protocol buffer messages: field by field, no recursion, no schema.
// Whoever calls it says what the fields mean. Trap: a varint may need ten bytes (negative numbers);
// only its low 32 bits are given, which is all that a flag or an enum has.

import { PolyLMError } from '../errors.js'
import { quotePath } from '../checkpoint/text.js'

/** The file could not be walked as a protocol buffer. */
export function protoError(file: string, offset: number, found: string): PolyLMError {
  return new PolyLMError(
    'PROTO_FORMAT',
    `${quotePath(file)}: found ${found} at byte ${offset}`,
    { file, offset, hint: 'the file is damaged or no SentencePiece model: download it again' },
  )
}

/** How a field is stored. */
export const wireVarint = 0
export const wireBytes = 2
export const wireFixed32 = 5

/** Walks the fields of one message, or of a part of it. */
export class ProtoReader {
  /** Of the field that {@link next} stopped at. */
  field = 0
  wire = 0
  /** Low 32 bits of a varint, unsigned. */
  value = 0
  /** Where the content of a bytes or fixed field begins and ends. */
  start = 0
  end = 0

  readonly #bytes: Uint8Array
  readonly #file: string
  #at: number
  #limit: number
  #large = false

  constructor(bytes: Uint8Array, file: string, start = 0, end = bytes.length) {
    this.#bytes = bytes
    this.#file = file
    this.#at = start
    this.#limit = end
  }

  /** Byte offset of the next field. */
  get offset(): number {
    return this.#at
  }

  /** Starts over on another part of the same bytes. */
  enter(start: number, end: number): void {
    this.#at = start
    this.#limit = end
  }

  /**
   * Goes to the next field; false at the end.
   *
   * @throws PolyLMError PROTO_FORMAT
   */
  next(): boolean {
    if (this.#at >= this.#limit) return false
    const tagAt = this.#at
    const tag = this.#small()
    this.wire = tag & 7
    this.field = tag >>> 3
    if (this.field === 0) throw protoError(this.#file, tagAt, 'field number 0')
    switch (this.wire) {
      case wireVarint:
        this.value = this.#varint()
        return true
      case wireBytes:
        this.#content(this.#small(), tagAt)
        return true
      case wireFixed32:
        this.#content(4, tagAt)
        return true
      case 1:
        this.#content(8, tagAt)
        return true
      default:
        throw protoError(this.#file, tagAt, `wire type ${this.wire} in field ${this.field}`)
    }
  }

  /** Refuses the field unless it is stored as `wire`. */
  expect(wire: number): void {
    if (this.wire === wire) return
    throw protoError(this.#file, this.#at, `field ${this.field} with wire type ${this.wire}`)
  }

  #content(bytes: number, tagAt: number): void {
    this.start = this.#at
    this.end = this.#at + bytes
    if (this.end > this.#limit) {
      const left = this.#limit - this.start
      const found = `a field of ${bytes} bytes where ${left} are left`
      throw protoError(this.#file, tagAt, found)
    }
    this.#at = this.end
  }

  // Low 32 bits; #large says whether there were more.
  #varint(): number {
    const start = this.#at
    let value = 0
    this.#large = false
    for (let i = 0; i < 10; i++) {
      if (this.#at >= this.#limit) throw protoError(this.#file, start, 'an unfinished number')
      const byte = this.#bytes[this.#at++] as number
      if (i === 9 && byte > 1) break
      if (i < 5) value |= (byte & 0x7f) << (7 * i)
      if (i > 4 ? (byte & 0x7f) !== 0 : i === 4 && (byte & 0x70) !== 0) this.#large = true
      if (byte < 0x80) return value >>> 0
    }
    throw protoError(this.#file, start, 'a number of more than 64 bits')
  }

  // A tag or a length, which must fit 32 bits.
  #small(): number {
    const start = this.#at
    const value = this.#varint()
    if (this.#large) throw protoError(this.#file, start, 'a tag or length of more than 32 bits')
    return value
  }
}
