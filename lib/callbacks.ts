// callbacks.ts: functions that callers hand in (progress, logger), which may throw, be async and reject, or return
// things with a `then` of their own. All of that ends in one place, `fail`, and never as an unhandled rejection,
// which would end the process. Trap: a call is over only when its callbacks are: await `settled` before its result.

/** Calls the callbacks of one call. */
export class Callbacks {
  readonly #fail: (reason: unknown) => void
  readonly #pending = new Set<Promise<void>>()

  /** `fail` receives what a callback throws or rejects with; it ends the call. */
  constructor(fail: (reason: unknown) => void) {
    this.#fail = fail
  }

  run(callback: () => unknown): void {
    let result: unknown
    try {
      result = callback()
    } catch (e) {
      this.#fail(e)
      return
    }
    if ((typeof result !== 'object' || result === null) && typeof result !== 'function') return
    // The constructor, not Promise.resolve, which reads `constructor` of what it is given and lets that throw.
    const done = new Promise<unknown>(resolve => { resolve(result) })
      .then(() => { /* its value means nothing */ }, (e: unknown) => { this.#fail(e) })
      .finally(() => { this.#pending.delete(done) })
    this.#pending.add(done)
  }

  /** Resolves when every callback has; at once when `signal` aborts. Never rejects. */
  async settled(signal: AbortSignal): Promise<void> {
    while (this.#pending.size > 0 && !signal.aborted) {
      let wake = (): void => { /* set below */ }
      const aborted = new Promise<void>(resolve => { wake = resolve })
      signal.addEventListener('abort', wake, { once: true })
      await Promise.race([Promise.all(this.#pending), aborted])
      signal.removeEventListener('abort', wake)
    }
  }
}
