// abort.ts: listening to callers' abort signals: many calls may share one signal, and ours may follow several
// of theirs (AbortSignal.any is missing in the first releases of Node 20). Trap: Node warns of a leak when a
// signal has more than ten listeners, so there is one for all calls that share it, and none when all ended.
// What callers pass as a signal may be a look-alike or a proxy; adoptSignal makes one of the platform of it.
import { setMaxListeners } from 'node:events'
import { ignore } from './untrusted.js'

/** The followers of one signal and what it calls. */
interface Hub {
  readonly followers: Set<() => void>
  readonly tell: () => void
}

const hubs = new WeakMap<AbortSignal, Hub>()

/** Calls `follow` when the signal aborts, once; not when it already has. Returns how to stop listening. */
export function onAbort(signal: AbortSignal, follow: () => void): () => void {
  const hub = hubs.get(signal) ?? makeHub(signal)
  if (hub.followers.size === 0) signal.addEventListener('abort', hub.tell)
  const own = (): void => { follow() }             // the same function may be given twice
  hub.followers.add(own)
  return () => {
    if (hub.followers.delete(own) && hub.followers.size === 0) signal.removeEventListener('abort', hub.tell)
  }
}

function makeHub(signal: AbortSignal): Hub {
  const followers = new Set<() => void>()
  const hub = { followers, tell: () => { for (const follow of [...followers]) follow() } }
  hubs.set(signal, hub)
  return hub
}

/** A controller of ours that callers' signals abort too; `release` stops listening to them. */
export function linkedController(
  ...signals: ReadonlyArray<AbortSignal | undefined>
): { readonly signal: AbortSignal; abort(reason: unknown): void; release(): void } {
  const controller = new AbortController()
  setMaxListeners(0, controller.signal)         // every call of a run listens; that is no leak
  const links = signals.filter(signal => signal !== undefined).map(signal => {
    const follow = (): void => { controller.abort(signal.reason) }
    if (!signal.aborted) return onAbort(signal, follow)
    follow()
    return () => { /* nothing to stop */ }
  })
  return {
    signal: controller.signal,
    abort: reason => { controller.abort(reason) },
    release: () => { for (const unlink of links) unlink() },
  }
}

// Members that an object of its own may have redefined, and then no longer do what the platform's do.
const members = ['aborted', 'reason', 'throwIfAborted', 'addEventListener', 'removeEventListener'] as const

function isGenuine(value: object): value is AbortSignal {
  return Object.getPrototypeOf(value) === AbortSignal.prototype && !members.some(name => Object.hasOwn(value, name))
}

const adopted = new WeakMap<object, AbortController>()

/**
 * The signal itself when it is the platform's, else one of the platform that aborts when this one does, whatever
 * it lacks (`throwIfAborted`) or throws. Undefined when it is no signal at all.
 */
export function adoptSignal(value: unknown): AbortSignal | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  try {
    if (isGenuine(value)) return value
    const like = value as AbortSignal
    const isSignal = typeof like.aborted === 'boolean' && typeof like.addEventListener === 'function' &&
      typeof like.removeEventListener === 'function'
    return isSignal ? follow(like) : undefined
  } catch {
    return undefined
  }
}

// One listener for the life of the look-alike, however many calls it is given to.
function follow(like: AbortSignal): AbortSignal {
  const known = adopted.get(like)
  const controller = known ?? new AbortController()
  const abort = (): void => {
    try {
      controller.abort(like.reason)
    } catch {
      controller.abort(new DOMException('the signal aborted; reading its reason threw', 'AbortError'))
    }
  }
  if (like.aborted) abort()
  else if (known === undefined) ignore(like.addEventListener('abort', abort, { once: true }) as unknown)
  adopted.set(like, controller)
  return controller.signal
}
