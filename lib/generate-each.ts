// generate-each.ts: many prompts through one model: inputs are pulled as capacity frees, results come in
// the order of completion, and calls made beside it go first. Trap: one bad item is a result with an
// error; what would fail every item (the model is gone, the input throws) ends the iteration.
import { linkedController } from './abort.js'
import { Slicer } from './checkpoint/slicer.js'
import { prepareGenerate, runGenerate, type Core } from './core.js'
import { isPolyLMError } from './errors.js'
import { checkGenerate, generateNames } from './generate-options.js'
import type { GenerateOptions } from './options.js'
import { readBag, readProperty, show } from './option-reader.js'
import { invalidPrompt, type Prompt } from './prompt.js'
import type { GenerateResult } from './result.js'
import { EventQueue } from './stream.js'
import { ignore, reading } from './untrusted.js'

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
  const arrivals = new EventQueue<Input | GenerateManyItem>()
  const running = new Set<Promise<void>>()
  const slicer = new Slicer()
  let [next, asking, more, failed] = [0, false, true, false]
  const ask = async (): Promise<void> => {
    asking = true
    arrivals.push(readInput(await source.next()))
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
      if (slicer.due()) await slicer.pause()   // bad items are answered at once, however many there are
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
  } catch (e) {
    failed = true
    throw e
  } finally {
    stop.abort(new DOMException('the iteration was left', 'AbortError'))
    stop.release()
    // The input cleans up; one that is still being waited for does that when it comes.
    const left = more ? leave(source) : undefined
    // As in for await: what cleaning up throws counts when nothing else was thrown before.
    if (asking || failed) left?.catch(() => { /* nobody waits any more */ })
    else await left
    await Promise.all(running)
  }
}

interface Input {
  readonly done: boolean
  readonly value: unknown
}

// Of what an iterator gives only these two members, read once.
function readInput(given: unknown): Input {
  if (typeof given !== 'object' || given === null) {
    throw invalidPrompt('inputs', `the iterator of inputs gave ${show(given)}, expected { done, value }`)
  }
  return { done: Boolean(readProperty(given, 'done')), value: readProperty(given, 'value') }
}

type Source = AsyncIterator<unknown> | Iterator<unknown>

function iteratorOf(inputs: unknown): Source {
  const wrong = (): Error => invalidPrompt(
    'inputs', `inputs is ${show(inputs)}, expected an iterable or async iterable of prompts or { prompt, options }`)
  if (typeof inputs !== 'object' || inputs === null || ArrayBuffer.isView(inputs)) throw wrong()
  const given = inputs as Partial<AsyncIterable<unknown> & Iterable<unknown>>
  const make = reading('INVALID_PROMPT', 'inputs', () => given[Symbol.asyncIterator] ?? given[Symbol.iterator])
  if (typeof make !== 'function') throw wrong()
  const iterator: unknown = Reflect.apply(make, inputs, [])          // what this throws is the caller's
  const right = reading('INVALID_PROMPT', 'inputs', () =>
    typeof iterator === 'object' && iterator !== null && typeof (iterator as Source).next === 'function')
  if (right) return iterator as Source
  ignore(iterator)
  throw wrong()
}

async function leave(source: Source): Promise<void> {
  await source.return?.()
}

async function answer(
  core: Core, input: unknown, shared: Readonly<Record<string, unknown>>, signal: AbortSignal, index: number,
): Promise<GenerateManyItem> {
  try {
    const own = typeof input === 'object' && input !== null ? readProperty(input, 'prompt') : undefined
    const more = own === undefined ? undefined : readProperty(input as object, 'options')
    const options = { ...shared, ...readBag(more ?? undefined, generateNames, 'generateEach') }
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
