// slicer.ts: lets long synchronous work hold the event loop only a few milliseconds at a time. It
// is not a scheduler: the work decides where it may stop, and asks often enough.

import { setImmediate as nextTurn } from 'node:timers/promises'

/** How long a reader computes before it lets the event loop turn. */
export const sliceMs = 5

/**
 * A stopwatch for one slice of work.
 *
 * @example if (slicer.due()) await slicer.pause()
 */
export class Slicer {
  readonly #signal: AbortSignal | undefined
  #started = performance.now()

  constructor(signal?: AbortSignal | undefined) {
    this.#signal = signal
  }

  /** True when this slice is used up. */
  due(): boolean {
    return performance.now() - this.#started >= sliceMs
  }

  /**
   * Lets the event loop turn once, then starts the next slice. Rejects with the signal's reason
   * when aborted.
   */
  async pause(): Promise<void> {
    await nextTurn()
    this.check()
    this.#started = performance.now()
  }

  /** Throws the signal's reason when aborted. */
  check(): void {
    this.#signal?.throwIfAborted()
  }
}
