// json-number.ts: a JSON number that is not an exact integer, kept with its spelling. It is a class
// of its own so that `1.0`, `1e3` and `-0` cannot pass where an integer is meant.

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
