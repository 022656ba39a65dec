// output.ts: where the answers of a batch go: files that grow by whole lines and are locked meanwhile, and answers
// brought back into the order of the input. What an earlier run left: resume.ts.
// Trap: answers come in the order of completion; the one that is missing holds back those behind it, in memory.
import { open, rename, rm } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { PolyLMError } from '../errors.js'
import { UsageError } from './failure.js'
import { fileName, placeOf, sizeOf, writeFailure } from './files.js'
import { lockFile } from './lock.js'

/** A file that grows by whole lines: what cannot be written whole is taken back, as far as the disk lets us. */
export class OutputFile {
  readonly #name: string
  readonly #unlock: () => void
  #file: FileHandle
  /** What the file must have before the next line; undefined for pipes and devices. */
  #size: number | undefined

  private constructor(name: string, file: FileHandle, size: number | undefined, unlock: () => void) {
    this.#name = name
    this.#file = file
    this.#size = size
    this.#unlock = unlock
  }

  /**
   * Opens the output for this process alone. A file that has content is an error unless it is to be continued or,
   * with 'replace', written anew.
   */
  static async open(name: string, mode: 'new' | 'continue' | 'replace'): Promise<OutputFile> {
    const before = await sizeOf(name)
    const unlock = before === undefined ? () => { /* a pipe or a device */ } : await lockFile(name)
    try {
      const size = before === undefined ? undefined : await sizeOf(name)     // under the lock
      if (size !== undefined && size > 0 && mode === 'new') {
        throw new UsageError(`${fileName(name)} already exists and holds ${size} bytes`,
          'add --resume to continue it, or remove it')
      }
      const replace = mode === 'replace' && size !== undefined
      const file = await open(name, replace ? 'w' : 'a').catch((e: unknown) => { throw writeFailure(name, e) })
      return new OutputFile(name, file, replace ? 0 : size, unlock)
    } catch (e) {
      unlock()
      throw e
    }
  }

  /** Removes what stands behind `size`: a line that was cut when an earlier run was killed. */
  async cutTo(size: number): Promise<void> {
    if (this.#size === undefined || this.#size === size) return
    await this.#file.truncate(size).catch((e: unknown) => { throw writeFailure(this.#name, e) })
    this.#size = size
  }

  async append(lines: string): Promise<void> {
    await this.#checkAlone()
    const data = Buffer.from(lines)
    let done = 0
    try {
      while (done < data.length) done += (await this.#file.write(data, done)).bytesWritten
    } catch (e) {
      if (this.#size !== undefined && done > 0) {
        await this.#file.truncate(this.#size).catch(() => { /* --resume removes the cut line, too */ })
      }
      throw writeFailure(this.#name, e)
    }
    if (this.#size !== undefined) this.#size += data.length
  }

  /** Puts another content in place of the file's, all of it or nothing. */
  async rewrite(lines: AsyncIterable<string>): Promise<void> {
    const place = await placeOf(this.#name)
    const temporary = `${place}.${process.pid}.tmp`
    try {
      const file = await open(temporary, 'wx', (await this.#file.stat()).mode)
      let size = 0
      try {
        for await (const line of lines) {
          const data = Buffer.from(line)
          for (let done = 0; done < data.length;) done += (await file.write(data, done)).bytesWritten
          size += data.length
        }
        await file.sync()
      } catch (e) {
        await file.close()
        throw e
      }
      await rename(temporary, place)
      await this.#file.close()
      this.#file = file
      this.#size = size
    } catch (e) {
      await rm(temporary, { force: true })
      throw writeFailure(this.#name, e)
    }
  }

  async close(): Promise<void> {
    try {
      await this.#file.sync().catch((e: NodeJS.ErrnoException) => {
        if (e.code !== 'EINVAL' && e.code !== 'ENOTSUP') throw e     // a pipe or a device cannot be synced
      })
      await this.#file.close()
    } catch (e) {
      throw writeFailure(this.#name, e)
    } finally {
      this.#unlock()
    }
  }

  /** The lock is not seen from other machines and containers; what they write is. */
  async #checkAlone(): Promise<void> {
    if (this.#size === undefined) return
    const { size } = await this.#file.stat()
    if (size === this.#size) return
    throw new PolyLMError('OUTPUT_BUSY',
      `${fileName(this.#name)} has ${size} bytes, expected ${this.#size}: another program changes it during this run`,
      { file: this.#name, hint: 'end the other program, then continue with --resume' })
  }
}

/** Brings lines with indices 0, 1, 2, ... into that order; each index must come once. */
export class InOrder {
  readonly #write: (line: string) => Promise<void>
  readonly #waiting = new Map<number, string>()
  #next = 0
  // Lines that became writable while another one is being written follow it.
  #writing: Promise<void> = Promise.resolve()

  constructor(write: (line: string) => Promise<void>) {
    this.#write = write
  }

  /** Takes the line of an index and writes what is complete up to here. */
  async put(index: number, line: string): Promise<void> {
    this.#waiting.set(index, line)
    let ready = ''
    for (let found = this.#waiting.get(this.#next); found !== undefined; found = this.#waiting.get(this.#next)) {
      this.#waiting.delete(this.#next++)
      ready += found
    }
    if (ready === '') return
    this.#writing = this.#writing.then(() => this.#write(ready))
    await this.#writing
  }

  /** How many lines wait for one before them. */
  get waiting(): number {
    return this.#waiting.size
  }
}
