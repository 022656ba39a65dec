// interrupt.ts: Ctrl-C. The first one aborts a signal, so that what runs ends cleanly; the second one leaves at once.
import { setMaxListeners } from 'node:events'
import { exitCodes } from './failure.js'
import { note } from './terminal.js'

/** Turns SIGINT into an AbortSignal while it is installed. */
export class Interrupt {
  readonly #controller = new AbortController()
  readonly #handler = (): void => this.press()

  constructor() {
    setMaxListeners(0, this.#controller.signal)           // a command may run many calls at once
    process.on('SIGINT', this.#handler)
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get pressed(): boolean {
    return this.#controller.signal.aborted
  }

  /** What a SIGINT does. The chat calls it too: a terminal in raw mode reports Ctrl-C as a key. */
  press(): void {
    if (this.pressed) process.exit(exitCodes.interrupted)
    if (process.stderr.isTTY === true) note('\nstopping (Ctrl-C again to leave at once)')
    this.#controller.abort(new Error('interrupted'))
  }

  /** Gives SIGINT back to whoever had it. */
  release(): void {
    process.off('SIGINT', this.#handler)
  }
}
