// interrupt.ts: Ctrl-C and the SIGTERM of `kill`. The first one aborts a signal, so that what runs ends cleanly; the
// second one quits at once.
import { setMaxListeners } from 'node:events'
import { exitCodes, QuietFailure } from './failure.js'
import { clearBars } from './progress.js'
import { note } from './terminal.js'

type Stop = 'SIGINT' | 'SIGTERM'
const codes: Readonly<Record<Stop, number>> = { SIGINT: exitCodes.interrupted, SIGTERM: exitCodes.terminated }

/** Turns SIGINT and SIGTERM into an AbortSignal while it is installed. */
export class Interrupt {
  readonly #controller = new AbortController()
  readonly #handler = (signal: Stop): void => this.#press(signal)
  #code: number = exitCodes.interrupted

  constructor() {
    setMaxListeners(0, this.#controller.signal)           // a command may run many calls at once
    for (const name of Object.keys(codes) as Stop[]) process.on(name, this.#handler)
  }

  /** Its reason ends the command quietly with the exit code of an interruption. */
  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get pressed(): boolean {
    return this.#controller.signal.aborted
  }

  /** How a command ends that was interrupted. */
  get failure(): QuietFailure {
    return new QuietFailure(this.#code)
  }

  /** What a signal does. */
  #press(signal: Stop): void {
    clearBars()
    if (this.pressed) process.exit(codes[signal])
    this.#code = codes[signal]
    if (process.stderr.isTTY === true) note('\nStopping. Press Ctrl-C again to quit now.')
    this.#controller.abort(this.failure)
  }

  /** Gives the signals back to whoever had them. */
  release(): void {
    for (const name of Object.keys(codes) as Stop[]) process.off(name, this.#handler)
  }
}
