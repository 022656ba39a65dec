// events.ts: the way back from the engine: batches of events, packed into numbers, bytes of text and
// the few objects that end a request, are taken apart and handed to the call they belong to.
// Trap: a batch is delivered in one call from the core, so nothing here may throw; sinks must not either.
import { fromNative, type NativeEvents, type NativeResult } from './native.js'
import type { TokenTexts } from './tokenizer/token-texts.js'

/** An alternative of {@link TokenLogprob}. */
export interface TopLogprob {
  readonly id: number
  /** Natural logarithm; finite, at least float32's lowest number (-3.4028234663852886e+38), so JSON keeps it. */
  readonly logprob: number
  /**
   * The token's own text, with a space where its piece has `\u2581`: `' Paris'`. A special token's name; U+FFFD when
   * the token is only a part of a character; empty without a tokenizer and for ids that have no token.
   */
  readonly text: string
  /** The token's bytes, when it is only a part of a character. */
  readonly bytes?: readonly number[] | undefined
}

/**
 * A token with its log-probability. `text` is the token alone; what it became in the output is
 * `output.text.slice(start, end)`.
 */
export interface TokenLogprob extends TopLogprob {
  /** Where its text begins in the output's `text`, in UTF-16 code units. */
  readonly start: number
  /** Where its text ends. */
  readonly end: number
  /** The most probable tokens at this place, best first. */
  readonly top: readonly TopLogprob[]
}

/** Receives what happens to one request; `finished` or `failed` comes last. */
export interface EventSink {
  admitted(): void
  prefill(done: number, total: number): void
  delta(output: number, text: string, tokens: readonly TokenLogprob[]): void
  finished(result: NativeResult): void
  failed(error: unknown): void
}

/** The kinds of events, as csrc/binding/event_batch.cc packs them. */
const kinds = { admitted: 0, prefill: 1, delta: 2, finished: 3, failed: 4 } as const

/**
 * Reads `count` packed tokens from `at`: id, log-probability, start, end, number of alternatives, and
 * their ids and log-probabilities. Returns where it stopped.
 */
export function readTokens(
  numbers: Float64Array, at: number, count: number, texts: TokenTexts | undefined, into: TokenLogprob[],
): number {
  const next = (): number => numbers[at++] ?? 0
  for (let i = 0; i < count; i++) {
    const [id, logprob, start, end, tops] = [next(), next(), next(), next(), next()]
    const top: TopLogprob[] = []
    for (let j = 0; j < tops; j++) top.push(alternative(next(), next(), texts))
    into.push({ ...alternative(id, logprob, texts), start, end, top })
  }
  return at
}

function alternative(id: number, logprob: number, texts: TokenTexts | undefined): TopLogprob {
  const text = texts?.text(id) ?? ''
  const bytes = text === '\ufffd' ? texts?.bytes(id) : undefined
  return bytes === undefined ? { id, logprob, text } : { id, logprob, text, bytes }
}

/** All tokens of a packed list. */
export function unpackTokens(numbers: Float64Array, texts: TokenTexts | undefined): TokenLogprob[] {
  const tokens: TokenLogprob[] = []
  for (let at = 0; at < numbers.length;) at = readTokens(numbers, at, 1, texts, tokens)
  return tokens
}

/** Routes events to the requests of one engine. */
export class EventRouter {
  readonly #sinks = new Map<number, EventSink>()
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  readonly #texts: TokenTexts | undefined

  /** `texts` are those of the model's tokens, when it has a tokenizer. */
  constructor(texts: TokenTexts | undefined) {
    this.#texts = texts
  }

  /** Requests that have not ended. */
  get pending(): number {
    return this.#sinks.size
  }

  /** Starts routing; the id was just given by the engine. */
  add(id: number, sink: EventSink): void {
    this.#sinks.set(id, sink)
  }

  /** What the core calls. */
  readonly receive: NativeEvents = (numbers, text, objects) => {
    let at = 0
    let textAt = 0
    while (at < numbers.length) {
      const sink = this.#sinks.get(numbers[at] ?? 0)
      const id = numbers[at] ?? 0
      const kind = numbers[at + 1]
      at += 2
      if (kind === kinds.admitted) {
        sink?.admitted()
      } else if (kind === kinds.prefill) {
        sink?.prefill(numbers[at] ?? 0, numbers[at + 1] ?? 0)
        at += 2
      } else if (kind === kinds.delta) {
        const [output, bytes, count] = [numbers[at] ?? 0, numbers[at + 1] ?? 0, numbers[at + 2] ?? 0]
        const tokens: TokenLogprob[] = []
        at = readTokens(numbers, at + 3, count, this.#texts, tokens)
        const part = text.subarray(textAt, textAt + bytes)
        textAt += bytes
        sink?.delta(output, this.#decoder.decode(part), tokens)
      } else {
        this.#sinks.delete(id)
        const object = objects[numbers[at] ?? 0]
        at += 1
        if (kind === kinds.finished) sink?.finished(object as NativeResult)
        else sink?.failed(fromNative(object))
      }
    }
  }
}
