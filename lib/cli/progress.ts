// progress.ts: one progress bar on standard error, only when that is a terminal; otherwise every call does nothing.
import { SingleBar } from 'cli-progress'
import { bytes } from './terminal.js'
import type { LoadProgress } from '../index.js'

/** A bar with a label before it and a remark behind it. */
export class Progress {
  #bar: SingleBar | undefined

  constructor(label: string, total: number) {
    if (process.stderr.isTTY !== true) return
    this.#bar = new SingleBar({
      format: `${label} [{bar}] {percentage}% {remark}`, stream: process.stderr, barsize: 30,
      barCompleteChar: '=', barIncompleteChar: ' ', clearOnComplete: true, etaBuffer: 50,
    })
    this.#bar.start(total, 0, { remark: '' })
  }

  update(done: number, remark = ''): void {
    this.#bar?.update(done, { remark })
  }

  setTotal(total: number): void {
    this.#bar?.setTotal(total)
  }

  /** Removes the bar from the screen. Idempotent. */
  stop(): void {
    this.#bar?.stop()
    this.#bar = undefined
  }
}

/** The `onProgress` of a load as a bar; `stop` must be called when the load ended either way. */
export function loadProgress(): { onProgress: (p: LoadProgress) => void; stop: () => void } {
  const bar = new Progress('loading', 1)
  return {
    onProgress: p => {
      bar.setTotal(Math.max(1, p.total))
      bar.update(p.loaded, `${p.phase} ${bytes(p.loaded)} of ${bytes(p.total)}`)
    },
    stop: () => bar.stop(),
  }
}
