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
import { EventQueue } from './stream.js'

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
  // Inputs and answers arrive in one queue: a slow input must not hold back the answers that are there.
  const arrivals = new EventQueue<IteratorResult<unknown> | GenerateManyItem>()
  const running = new Set<Promise<void>>()
  let [next, asking, more] = [0, false, true]
  const ask = async (): Promise<void> => {
    asking = true
    await Promise.resolve(source.next()).then(input => { arrivals.push(input) }, (e: unknown) => { arrivals.fail(e) })
  }
  const start = (input: unknown): void => {
    const call = answer(core, input, shared.given, stop.signal, next++)
      .then(item => { arrivals.push(item) }).finally(() => { running.delete(call) })
    running.add(call)
  }
  stop.signal.throwIfAborted()
  stop.signal.addEventListener('abort', () => { arrivals.fail(stop.signal.reason) }, { once: true })
  try {
    let unanswered = 0
    while (more || unanswered > 0) {
      if (more && !asking && unanswered < most) ask().catch((e: unknown) => { arrivals.fail(e) })
      const { value: arrived } = await arrivals.next()
      if (arrived === undefined) return
      if ('index' in arrived) {
        unanswered--
        if (!arrived.ok) throwIfOver(arrived.error, shared.signal)
        yield arrived
        continue
      }
      asking = false
      more = arrived.done !== true
      if (!more) continue
      unanswered++
      start(arrived.value)
    }
  } finally {
    stop.abort(new DOMException('the iteration was left', 'AbortError'))
    stop.release()
    // The input cleans up; one that is still being waited for does that when it comes.
    const left = more ? Promise.resolve(source.return?.()) : undefined
    if (asking) left?.catch(() => { /* nobody waits any more */ })
    else await left
    await Promise.all(running)
  }
}

function iteratorOf(inputs: unknown): AsyncIterator<unknown> | Iterator<unknown> {
  const given = inputs as Partial<AsyncIterable<unknown> & Iterable<unknown>> | null | undefined
  const iterator = typeof inputs === 'string' ? undefined
    : given?.[Symbol.asyncIterator]?.() ?? given?.[Symbol.iterator]?.()
  if (iterator === undefined) throw new TypeError('generateEach: inputs is neither an Iterable nor an AsyncIterable')
  return iterator
}

async function answer(
  core: Core, input: unknown, shared: Readonly<Record<string, unknown>>, signal: AbortSignal, index: number,
): Promise<GenerateManyItem> {
  try {
    const own = typeof input === 'object' && input !== null ? readProperty(input, 'prompt') : undefined
    const more = own === undefined ? undefined : readProperty(input as object, 'options')
    const options = { ...shared, ...(typeof more === 'object' && more !== null ? defined(more) : {}) }
    const { checked, request } = prepareGenerate(core, own ?? input, options, 'generateEach')
    const either = linkedController(checked.signal, signal)
    try {
      const batch = checked.priority !== 'interactive'
      const prepared = { request: { ...request, batch }, checked: { ...checked, signal: either.signal } }
      const result = await submitWhenRoom(() => runGenerate(core, prepared), either.signal)
      return { index, ok: true, result }
    } finally {
      either.release()
    }
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
