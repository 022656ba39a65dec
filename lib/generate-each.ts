// generate-each.ts: many prompts through one model: inputs are pulled as capacity frees, results come in
// the order of completion, and calls made beside it go first. Trap: one bad item is a result with an
// error; what would fail every item (the model is gone, the input throws) ends the iteration.
import { linkedController } from './abort.js'
import { settler } from './call.js'
import { prepareGenerate, runGenerate, type Core } from './core.js'
import { isPolyLMError } from './errors.js'
import { checkGenerate } from './generate-options.js'
import type { GenerateOptions } from './options.js'
import { readProperty } from './option-reader.js'
import type { Prompt } from './prompt.js'
import type { GenerateResult } from './result.js'

/** A prompt with options of its own, which go over those of the whole run. */
export interface GenerateInput {
  readonly prompt: Prompt
  readonly options?: GenerateOptions | undefined
}

/** One answer of `generateEach`. */
export type GenerateManyItem =
  | { readonly index: number; readonly ok: true; readonly result: GenerateResult }
  | { readonly index: number; readonly ok: false; readonly error: unknown }

type Inputs = Iterable<Prompt | GenerateInput> | AsyncIterable<Prompt | GenerateInput>

/** The iteration behind `model.generateEach`. */
export async function * generateEach(
  core: Core, inputs: Inputs, options: GenerateOptions | undefined,
): AsyncGenerator<GenerateManyItem, void, undefined> {
  const shared = checkGenerate(options, core.options, 'generateEach')
  const width = Math.max(Number(shared.params['numBeams']), Number(shared.params['n']))
  // Twice what runs at once: the next ones are encoded and waiting when a row becomes free.
  const most = Math.max(2, Math.ceil((2 * core.maxSequences) / width))
  const stop = linkedController(shared.signal)
  const source = new Source(inputs)
  const running = new Map<number, Promise<GenerateManyItem>>()
  const aborted = rejection(stop.signal)
  let next = 0
  try {
    for (;;) {
      // An input that is slow to come must not hold back the answers that are there.
      const pull = running.size < most ? source.pull() : undefined
      if (pull === undefined && running.size === 0) return
      const first = await Promise.race([aborted, ...(pull === undefined ? [] : [pull]), ...running.values()])
      if ('input' in first) {
        if (source.take()) running.set(next, answer(core, first.input, shared.given, stop.signal, next++))
        continue
      }
      running.delete(first.index)
      if (!first.ok) throwIfOver(first.error, shared.signal)
      yield first
    }
  } finally {
    stop.abort(new DOMException('the iteration was left', 'AbortError'))
    stop.release()
    await source.leave()
    await Promise.allSettled(running.values())
  }
}

/** The inputs, asked for one at a time. */
class Source {
  readonly #iterator: AsyncIterator<unknown> | Iterator<unknown>
  #pending: Promise<{ readonly input: unknown }> | undefined
  #ended = false

  constructor(inputs: unknown) {
    const given = inputs as Partial<AsyncIterable<unknown> & Iterable<unknown>> | null | undefined
    const iterator = typeof inputs === 'string' ? undefined
      : given?.[Symbol.asyncIterator]?.() ?? given?.[Symbol.iterator]?.()
    if (iterator === undefined) throw new TypeError('generateEach: inputs is neither an Iterable nor an AsyncIterable')
    this.#iterator = iterator
  }

  /** The next input, the same promise until it is taken; undefined after the last one. */
  pull(): Promise<{ readonly input: unknown }> | undefined {
    if (this.#ended) return undefined
    return this.#pending ??= this.#next()
  }

  async #next(): Promise<{ readonly input: unknown }> {
    const { done, value } = await this.#iterator.next()
    if (done === true) this.#ended = true
    return { input: value }
  }

  /** Whether what arrived is an input and not the end. */
  take(): boolean {
    this.#pending = undefined
    return !this.#ended
  }

  /** Lets the iterator clean up; one that is still being waited for does that when it comes. */
  async leave(): Promise<void> {
    if (this.#ended) return
    const left = this.#iterator.return?.()
    if (this.#pending === undefined) await left
    else Promise.resolve(left).catch(() => { /* nobody waits any more */ })
  }
}

/** A promise that rejects with the signal's reason. */
function rejection(signal: AbortSignal): Promise<never> {
  const { promise, reject } = settler<never>()
  if (signal.aborted) reject(signal.reason)
  else signal.addEventListener('abort', () => { reject(signal.reason) }, { once: true })
  return promise
}

async function answer(
  core: Core, input: unknown, shared: Readonly<Record<string, unknown>>, signal: AbortSignal, index: number,
): Promise<GenerateManyItem> {
  try {
    const own = typeof input === 'object' && input !== null ? readProperty(input, 'prompt') : undefined
    const more = own === undefined ? undefined : readProperty(input as object, 'options')
    const options = { ...shared, ...(typeof more === 'object' && more !== null ? defined(more) : {}), signal }
    const prepared = prepareGenerate(core, own ?? input, options, 'generateEach')
    return { index, ok: true, result: await submitWhenRoom(() => runGenerate(core, prepared, true), signal) }
  } catch (error) {
    return { index, ok: false, error }
  }
}

const defined = (options: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))

/** Runs a call, waiting while the queue is full. */
export async function submitWhenRoom<T>(run: () => Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  for (;;) {
    try {
      return await run()
    } catch (e) {
      if (!isPolyLMError(e, 'QUEUE_FULL')) throw e
      await new Promise(resolve => setTimeout(resolve, 20))
      signal?.throwIfAborted()
    }
  }
}

// Errors that the next item would meet as well.
function throwIfOver(error: unknown, signal: AbortSignal | undefined): void {
  signal?.throwIfAborted()
  if (isPolyLMError(error) && (error.fatal || error.code === 'DISPOSED' || error.code === 'DRAINING')) throw error
}
