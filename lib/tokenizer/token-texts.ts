// token-texts.ts: the texts of single tokens, for log-probabilities: 20 alternatives of thousands of tokens are asked
// for at once, on the event loop. Texts come from the core by pages, when a token of the page is first asked for.
// Not here: decoding, in which a token's neighbours have a say.
import type { NativeTokenizer } from './native-tokenizer.js'

const pageSize = 1024

interface Page {
  readonly texts: readonly string[]
  readonly bytes: ReadonlyMap<number, readonly number[]>
}

/** Texts of tokens by id. */
export class TokenTexts {
  readonly #native: NativeTokenizer
  readonly #pages: Array<Page | undefined> = []

  constructor(native: NativeTokenizer) {
    this.#native = native
  }

  /** Text of a token; U+FFFD when it is a part of a character, '' for an id without a token. */
  text(id: number): string {
    return this.#page(id).texts[id % pageSize] ?? ''
  }

  /** Bytes of a token that is a part of a character; undefined for every other. */
  bytes(id: number): readonly number[] | undefined {
    return this.#page(id).bytes.get(id)
  }

  #page(id: number): Page {
    const index = Math.floor(id / pageSize)
    return this.#pages[index] ??= this.#read(index * pageSize)
  }

  #read(first: number): Page {
    const { text, ends, partial } = this.#native.texts(first, pageSize)
    const bytes = new Map<number, readonly number[]>()
    for (let at = 0; at < partial.length;) {
      const [id = 0, length = 0] = partial.subarray(at, at + 2)
      bytes.set(id, Array.from(partial.subarray(at + 2, at + 2 + length)))
      at += 2 + length
    }
    return { texts: Array.from(ends, (end, i) => text.slice(i === 0 ? 0 : ends[i - 1], end)), bytes }
  }
}
