// generate-each.ts: many prompts through one model: inputs are pulled as capacity frees, results come in
// the order of completion, and calls made beside it go first. Trap: one bad item is a result with an
// error; what would fail every item (the model is gone, the input throws) ends the iteration.
import { linkedController } from './abort.js'
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
  const source = iteratorOf(inputs)
  const running = new Map<number, Promise<GenerateManyItem>>()
  let next = 0
  let more = true
  try {
    for (;;) {
      while (more && running.size < most) {
        shared.signal?.throwIfAborted()
        const { done, value } = await source.next()
        if (done === true) more = false
        else running.set(next, answer(core, value, shared.given, stop.signal, next++))
      }
      if (running.size === 0) return
      const item = await Promise.race(running.values())
      running.delete(item.index)
      if (!item.ok) throwIfOver(item.error, shared.signal)
      yield item
    }
  } finally {
    stop.abort(new DOMException('the iteration was left', 'AbortError'))
    stop.release()
    if (more) await source.return?.()
    await Promise.allSettled(running.values())
  }
}

type Source = AsyncIterator<unknown> | Iterator<unknown>

function iteratorOf(inputs: unknown): Source {
  const source = inputs as Partial<AsyncIterable<unknown> & Iterable<unknown>> | null | undefined
  const iterator = typeof inputs === 'string' ? undefined
    : source?.[Symbol.asyncIterator]?.() ?? source?.[Symbol.iterator]?.()
  if (iterator === undefined) throw new TypeError('generateEach: inputs is neither an Iterable nor an AsyncIterable')
  return iterator
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
