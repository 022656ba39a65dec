// abort.ts: an AbortController that also follows somebody else's signal (AbortSignal.any is missing in
// the first releases of Node 20).
import { setMaxListeners } from 'node:events'

/** A controller of ours that callers' signals abort too; `release` stops listening to them. */
export function linkedController(
  ...signals: ReadonlyArray<AbortSignal | undefined>
): { readonly signal: AbortSignal; abort(reason: unknown): void; release(): void } {
  const controller = new AbortController()
  setMaxListeners(0, controller.signal)         // every call of a run listens; that is no leak
  const links = signals.filter(signal => signal !== undefined).map(signal => {
    const follow = (): void => { controller.abort(signal.reason) }
    if (signal.aborted) follow()
    else signal.addEventListener('abort', follow)
    return () => { signal.removeEventListener('abort', follow) }
  })
  return {
    signal: controller.signal,
    abort: reason => { controller.abort(reason) },
    release: () => { for (const unlink of links) unlink() },
  }
}
