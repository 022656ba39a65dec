// progress.ts: one progress bar on standard error, only when that is a terminal; otherwise every call does nothing.
// Trap: a bar is a line without an end; whoever writes to the terminal meanwhile calls `clearBars` first.
import { SingleBar } from 'cli-progress'
import { bytes } from './terminal.js'
import type { LoadProgress } from '../index.js'

const shown = new Set<Progress>()
const widest = 30

/** Removes every bar from the screen, for good. */
export function clearBars(): void {
  for (const bar of shown) bar.stop()
}

/** A bar with a label before it and a remark behind it. */
export class Progress {
  #bar: SingleBar | undefined

  constructor(label: string, total: number) {
    if (process.stderr.isTTY !== true) return
    this.#bar = new SingleBar({
      format: (_, { progress }, { remark }: { remark: string }) =>
        barLine(label, progress, remark, process.stderr.columns),
      stream: process.stderr, clearOnComplete: true,
    })
    this.#bar.start(total, 0, { remark: '' })
    shown.add(this)
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
    shown.delete(this)
  }
}

/** One line of a bar for a terminal of so many columns; remarks are parts between ', ', the last ones go first. */
export function barLine(label: string, progress: number, remark: string, columns: number): string {
  const share = Math.min(1, Math.max(0, Number.isFinite(progress) ? progress : 0))
  const room = Math.max(1, columns - 1)                   // a full last column would wrap
  const parts = remark === '' ? [] : remark.split(', ')
  const text = (): string => [`${Math.floor(share * 100)}%`, parts.join(', ')].join(' ').trim()
  while (parts.length > 0 && label.length + 1 + text().length > room) parts.pop()
  const size = Math.min(widest, room - label.length - text().length - 4)
  if (size < 4) return `${label} ${text()}`.slice(0, room)
  return `${label} [${'='.repeat(Math.round(share * size)).padEnd(size)}] ${text()}`
}

/** The time left as people say it: '40 s', '3 min', '2 h 5 min'. */
export function duration(seconds: number): string {
  if (seconds < 60) return `${Math.ceil(seconds)} s`
  const minutes = Math.round(seconds / 60)
  if (minutes < 60) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`
}

/** `, about 3 min left`, when so much of the work took so many seconds; '' before anything is done. */
export function timeLeft(done: number, total: number, seconds: number): string {
  return done === 0 || done >= total ? '' : `, about ${duration((seconds / done) * (total - done))} left`
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
