// chat-history.ts: what was typed in earlier conversations, for the arrow keys: a JSON string a line, the newest last.
// Trap: nothing here may fail the program or make it wait: a history that cannot be read or written is none.
import {
  appendFileSync, chmodSync, closeSync, existsSync, fstatSync, lstatSync, mkdirSync, openSync, readSync, renameSync,
  rmSync, writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'

/** Entries that are kept. */
export const maxEntries = 1000
const maxFileBytes = 1024 * 1024
const maxEntryBytes = 64 * 1024

/** Where the history is: the user's folder for the state of programs. */
export function historyFile(env: NodeJS.ProcessEnv = process.env): string | undefined {
  try {
    const { XDG_STATE_HOME: xdg = '', LOCALAPPDATA: local = '' } = env
    if (path.isAbsolute(xdg)) return path.join(xdg, 'polylm', 'history')
    if (process.platform === 'win32' && local !== '') return path.join(local, 'polylm', 'history')
    return path.join(homedir(), '.local', 'state', 'polylm', 'history')
  } catch {
    return undefined
  }
}

/** The entries of one file. */
export class History {
  readonly #file: string | undefined
  #last = ''

  constructor(file: string | undefined) {
    this.#file = file
  }

  /** The entries, the newest first, as readline takes them. */
  load(): string[] {
    const entries = attempt(() => this.#read()) ?? []
    this.#last = entries.at(-1) ?? ''
    return entries.reverse()
  }

  /** Adds an entry unless it is the last one again, or too long to keep. */
  add(entry: string): void {
    const line = `${JSON.stringify(entry)}\n`
    if (entry.trim() === '' || entry === this.#last || Buffer.byteLength(line) > maxEntryBytes) return
    this.#last = entry
    attempt(() => { this.#append(line) })
  }

  #append(line: string): void {
    if (this.#file === undefined) return
    makeFolder(path.dirname(this.#file))
    const size = this.#size()
    if (size === undefined) return
    // Another conversation may append at the same time: a line that is short goes in whole.
    appendFileSync(this.#file, line, { mode: 0o600 })
    if (size + Buffer.byteLength(line) > maxFileBytes) this.#shorten()
  }

  // Bytes of the file, 0 when there is none yet; undefined when it is something else, such as a link.
  #size(): number | undefined {
    const file = this.#file ?? ''
    const found = lstatSync(file, { throwIfNoEntry: false })
    if (found === undefined) return 0
    if (!found.isFile()) return undefined
    if ((found.mode & 0o077) !== 0 && process.platform !== 'win32') chmodSync(file, 0o600)
    return found.size
  }

  // The newest entries, half of what may be there, so that this happens rarely.
  #shorten(): void {
    const file = this.#file ?? ''
    let bytes = 0
    const kept = this.#read().reverse().map(entry => `${JSON.stringify(entry)}\n`)
      .filter(line => (bytes += Buffer.byteLength(line)) <= maxFileBytes / 2).reverse()
    const temporary = `${file}.${process.pid}.tmp`
    try {
      writeFileSync(temporary, kept.join(''), { mode: 0o600, flag: 'wx' })
      renameSync(temporary, file)
    } finally {
      rmSync(temporary, { force: true })
    }
  }

  #read(): string[] {
    const size = this.#file === undefined ? 0 : this.#size() ?? 0
    if (this.#file === undefined || size === 0) return []
    const file = openSync(this.#file, 'r')
    try {
      if (!fstatSync(file).isFile()) return []
      const from = Math.max(0, size - 2 * maxFileBytes)
      const bytes = Buffer.alloc(size - from)
      const length = readSync(file, bytes, 0, bytes.length, from)
      return bytes.toString('utf8', 0, length).split('\n').flatMap(entryOf).slice(-maxEntries)
    } finally {
      closeSync(file)
    }
  }
}

// Not mkdirSync's `recursive`: in /proc and its like that never returns (Node 20).
function makeFolder(folder: string): void {
  if (existsSync(folder)) return
  makeFolder(path.dirname(folder))
  mkdirSync(folder, { mode: 0o700 })
}

// A line that was cut or damaged is left out.
function entryOf(line: string): string[] {
  const value = attempt(() => JSON.parse(line) as unknown)
  return typeof value === 'string' ? [value] : []
}

function attempt<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch {
    return undefined
  }
}
