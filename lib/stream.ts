// stream.ts: a generate call whose text arrives while it is made. Events wait in a queue until they are
// read; a request can never make more of them than its maxTokens, so a slow reader costs bounded memory.
// Trap: there is one consumer. Leaving its loop cancels the request, which then ends with what it has.
import { startCall, settler, type AbortRules, type Call, type Engine } from './call.js'
import { PolyLMError } from './errors.js'
import type { TokenLogprob } from './events.js'
import type { NativeRequest, NativeResult } from './native.js'
import type { GenerateResult } from './result.js'

/** New text of one output; the texts of an output joined are its `text`. Never splits a character. */
export interface TextEvent {
  readonly type: 'text'
  /** Index of the output; with beams always 0. */
  readonly output: number
  readonly text: string
  /** The tokens that became certain, when `logprobs` was given; else empty. */
  readonly tokens: readonly TokenLogprob[]
}

/** Progress of the prompt's computation. */
export interface PrefillEvent {
  readonly type: 'prefill'
  readonly done: number
  readonly total: number
}

/** The last event. */
export interface FinishEvent {
  readonly type: 'finish'
  readonly result: GenerateResult
}

/** What a {@link GenerateStream} yields. */
export type StreamEvent = TextEvent | PrefillEvent | FinishEvent

/** A running generate call. It has one consumer: a loop, `textStream` or `toReadableStream`. */
export interface GenerateStream extends AsyncIterable<StreamEvent> {
  /** @throws PolyLMError STREAM_USED when the stream already has a consumer. */
  [Symbol.asyncIterator](): AsyncIterator<StreamEvent, undefined, undefined>
  /**
   * What generate() would give. Never an unhandled rejection. When the consumer left early it resolves
   * with the part that was made and finishReason `abort`.
   */
  readonly result: Promise<GenerateResult>
  /** The text of output 0 alone. Taking it makes it the consumer. */
  readonly textStream: AsyncIterable<string>
  /** The text of output 0 as UTF-8. Cancelling it cancels the request. */
  toReadableStream(): ReadableStream<Uint8Array>
}

/** Submits a request and resolves once the engine has admitted it. */
export async function openStream(
  engine: Engine,
  request: NativeRequest,
  rules: AbortRules,
  finish: (native: NativeResult) => GenerateResult,
): Promise<GenerateStream> {
  const queue = new EventQueue<StreamEvent>()
  const admission = settler<undefined>()
  const call = startCall(engine, { ...request, stream: true, returnOnAbort: true }, rules, {
    admitted: () => { admission.resolve(undefined) },
    prefill: (done, total) => { queue.push({ type: 'prefill', done, total }) },
    delta: (output, text, tokens) => { queue.push({ type: 'text', output, text, tokens }) },
  })
  const result = call.result.then(
    native => {
      const made = finish(native)
      queue.push({ type: 'finish', result: made })
      queue.end()
      admission.resolve(undefined)
      return made
    },
    (e: unknown) => {
      queue.fail(e)
      admission.reject(e)
      throw e
    },
  )
  result.catch(() => { /* whoever awaits it is told */ })
  await admission.promise
  return new TokenStream(call, queue, result)
}

class TokenStream implements GenerateStream {
  readonly result: Promise<GenerateResult>
  readonly #call: Call
  readonly #queue: EventQueue<StreamEvent>
  #used = false

  constructor(call: Call, queue: EventQueue<StreamEvent>, result: Promise<GenerateResult>) {
    this.#call = call
    this.#queue = queue
    this.result = result
  }

  [Symbol.asyncIterator](): AsyncIterator<StreamEvent, undefined, undefined> {
    if (this.#used) throw new PolyLMError('STREAM_USED', 'the stream already has a consumer', {
      hint: 'a stream is read once; keep the text, or await stream.result',
    })
    this.#used = true
    let left = false
    return {
      next: async () => (left ? { done: true, value: undefined } : await this.#queue.next()),
      return: () => {
        left = true
        this.#queue.drop()
        this.#call.cancel()
        return Promise.resolve({ done: true, value: undefined })
      },
    }
  }

  get textStream(): AsyncIterable<string> {
    return texts(this)
  }

  toReadableStream(): ReadableStream<Uint8Array> {
    const source = texts(this)[Symbol.asyncIterator]()
    const encoder = new TextEncoder()
    return new ReadableStream<Uint8Array>({
      pull: async controller => {
        const { done, value } = await source.next()
        if (done === true) controller.close()
        else controller.enqueue(encoder.encode(value))
      },
      cancel: async () => { await source.return?.() },
    }, { highWaterMark: 0 })
  }
}

// Becomes the consumer at once, so that a second one fails where it is made.
function texts(stream: GenerateStream): AsyncIterable<string> {
  const events = stream[Symbol.asyncIterator]()
  const next = async (): Promise<IteratorResult<string, undefined>> => {
    for (;;) {
      const { done, value } = await events.next()
      if (done === true) return { done, value: undefined }
      if (value.type === 'text' && value.output === 0 && value.text !== '') return { done: false, value: value.text }
    }
  }
  const iterator: AsyncIterator<string, undefined, undefined> = {
    next,
    return: async () => {
      await events.return?.()
      return { done: true, value: undefined }
    },
  }
  return { [Symbol.asyncIterator]: () => iterator }
}

/** A queue with one reader: items, then an end or an error. */
export class EventQueue<T> {
  readonly #items: T[] = []
  readonly #waiting: Array<{ resolve: (r: IteratorResult<T, undefined>) => void; reject: (e: unknown) => void }> = []
  #end: { readonly error?: unknown; readonly failed: boolean } | undefined
  #dropped = false

  push(item: T): void {
    if (this.#dropped || this.#end !== undefined) return
    const waiter = this.#waiting.shift()
    if (waiter === undefined) this.#items.push(item)
    else waiter.resolve({ done: false, value: item })
  }

  end(): void {
    this.#close({ failed: false })
  }

  fail(error: unknown): void {
    this.#close({ failed: true, error })
  }

  /** The reader left: nothing is kept any more. */
  drop(): void {
    this.#dropped = true
    this.#items.length = 0
    this.#close({ failed: false })
  }

  next(): Promise<IteratorResult<T, undefined>> {
    const item = this.#items.shift()
    if (item !== undefined) return Promise.resolve({ done: false, value: item })
    if (this.#end !== undefined) return this.#ended(this.#end)
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }))
  }

  #close(end: { readonly error?: unknown; readonly failed: boolean }): void {
    if (this.#end !== undefined) return
    this.#end = end
    const [first, ...others] = this.#waiting.splice(0)
    if (first !== undefined) this.#ended(end).then(first.resolve, first.reject)
    for (const waiter of others) waiter.resolve({ done: true, value: undefined })
  }

  // An error is thrown once; afterwards the iteration has ended.
  #ended(end: { readonly error?: unknown; readonly failed: boolean }): Promise<IteratorResult<T, undefined>> {
    if (!end.failed) return Promise.resolve({ done: true, value: undefined })
    this.#end = { failed: false }
    return Promise.reject(end.error)
  }
}
