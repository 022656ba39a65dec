// call.ts: one request from submit to its end, as a promise, with abort. Every public call that runs
// the model goes through startCall. Trap: the promise settles exactly once, whoever comes first: the
// engine, the caller's signal, or the model's disposal.
import { onAbort } from './abort.js'
import { isPolyLMError, PolyLMError } from './errors.js'
import type { EventRouter, EventSink } from './events.js'
import { inCore, type NativeModel, type NativeRequest, type NativeResult } from './native.js'

/** The engine of a model and the way back from it. */
export interface Engine {
  readonly native: NativeModel
  readonly router: EventRouter
}

/** A request on its way. */
export interface Call {
  readonly result: Promise<NativeResult>
  /** Ends it as an abort would. Harmless afterwards. */
  cancel(): void
}

/** What a caller may listen to; the defaults do nothing. */
export interface CallListener {
  readonly admitted?: (() => void) | undefined
  readonly prefill?: EventSink['prefill'] | undefined
  readonly delta?: EventSink['delta'] | undefined
}

/** How an abort ends the call. */
export interface AbortRules {
  readonly signal: AbortSignal | undefined
  /** The engine's partial result instead of a rejection. */
  readonly returnOnAbort: boolean
}

/**
 * Submits a request. Throws what submitting throws (options, full queue, disposal); everything later
 * comes through `result`, which is never an unhandled rejection.
 */
export function startCall(
  engine: Engine, request: NativeRequest, rules: AbortRules, listener: CallListener = {},
): Call {
  const { signal, returnOnAbort } = rules
  if (!returnOnAbort) signal?.throwIfAborted()
  const caller = new Error('called here')
  const id = submit(engine, request)
  const { promise, resolve, reject } = settler<NativeResult>()
  const cancel = (): void => { engine.native.cancel(id) }
  const follow = (): void => {
    cancel()
    if (!returnOnAbort) end(() => { reject(signal?.reason) })
  }
  let ended = false
  let unlink = (): void => { /* no signal */ }
  const end = (settle: () => void): void => {
    if (ended) return
    ended = true
    unlink()
    settle()
  }
  engine.router.add(id, {
    admitted: () => { if (!ended) listener.admitted?.() },
    prefill: (done, total) => { if (!ended) listener.prefill?.(done, total) },
    delta: (output, text, tokens) => { if (!ended) listener.delta?.(output, text, tokens) },
    finished: result => { end(() => { resolve(result) }) },
    failed: error => { end(() => { reject(withCaller(judged(error, engine), caller)) }) },
  })
  if (signal?.aborted === true) follow()
  else if (signal !== undefined) unlink = onAbort(signal, follow)
  return { result: promise, cancel }
}

// An internal failure of one request is not the model's: others go on.
function judged(error: unknown, engine: Engine): unknown {
  if (!isPolyLMError(error, 'INTERNAL') || engine.native.stats().state === 'failed') return error
  return new PolyLMError('INTERNAL', error.message, { hint: error.hint, cause: error, fatal: false })
}

// An error comes out of the engine's loop; its stack shows who asked instead.
function withCaller(error: unknown, caller: Error): unknown {
  if (error instanceof Error && caller.stack !== undefined) {
    const frames = caller.stack.slice(caller.stack.indexOf('\n') + 1)
    const name = error instanceof PolyLMError ? `${error.name} [${error.code}]` : error.name
    error.stack = `${name}: ${error.message}\n${frames}`
  }
  return error
}

function submit(engine: Engine, request: NativeRequest): number {
  try {
    return inCore(() => engine.native.submit(request))
  } catch (e) {
    throw isPolyLMError(e, 'QUEUE_FULL') ? withQueue(e, engine) : e
  }
}

// A guess that is good enough to wait for: what a request took on average so far.
function withQueue(e: PolyLMError, engine: Engine): PolyLMError {
  const { waiting, requests, busyMs } = engine.native.stats()
  const perRequest = requests > 0 ? busyMs / requests : 100
  return new PolyLMError('QUEUE_FULL', e.message, {
    hint: e.hint,
    waiting,
    retryAfterMs: Math.ceil(Math.min(60_000, Math.max(50, perRequest))),
  })
}

/** A promise with its two ends; a rejection that nobody looks at is not reported. */
export function settler<T>(): {
  promise: Promise<T>; resolve: (value: T) => void; reject: (reason: unknown) => void
} {
  let resolve!: (value: T) => void
  let reject!: (reason: unknown) => void
  const promise = new Promise<T>((a, b) => { [resolve, reject] = [a, b] })
  promise.catch(() => { /* whoever awaits it is told */ })
  return { promise, resolve, reject }
}
