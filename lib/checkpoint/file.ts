// file.ts: files of a checkpoint, opened once and read in bounded pieces. Everything is asked of
// the open descriptor, never of the path again; the trap is a path that names a pipe or a device,
// which must neither block nor deliver without end.

import { constants } from 'node:fs'
import { lstat, open, type FileHandle } from 'node:fs/promises'
import { resolve } from 'node:path'

import { PolyLMError } from '../errors.js'
import { permissionHint } from '../permission.js'
import { quotePath } from './text.js'
import type { FileEntry } from './types.js'

// One read call; between two the signal is looked at.
const pieceBytes = 8 * 1024 * 1024
// Not on Windows, where there are no pipes to block on.
const nonBlocking: number = (constants.O_NONBLOCK as number | undefined) ?? 0

/** A regular file, open for reading. */
export class CheckpointFile {
  readonly entry: FileEntry
  readonly #handle: FileHandle

  private constructor(handle: FileHandle, entry: FileEntry) {
    this.#handle = handle
    this.entry = entry
  }

  /**
   * Opens `path` and notes its identity.
   *
   * @throws PolyLMError FILE_NOT_FOUND, or FILE_IO when it is not a regular file or cannot be read.
   */
  static async open(path: string): Promise<CheckpointFile> {
    const absolute = resolve(path)
    const handle = await open(absolute, constants.O_RDONLY | nonBlocking).catch(
      async (e: unknown) => {
        throw (await brokenLink(absolute, e)) ?? fileError(absolute, e)
      },
    )
    try {
      const stat = await handle.stat({ bigint: true })
      if (!stat.isFile()) {
        throw new PolyLMError('FILE_IO', `${quotePath(absolute)} is not a regular file`, {
          file: absolute,
        })
      }
      const { mtimeNs, dev, ino } = stat
      return new CheckpointFile(handle, {
        path: absolute,
        size: Number(stat.size),
        mtimeNs,
        dev,
        ino,
      })
    } catch (e) {
      await handle.close()
      throw e instanceof PolyLMError ? e : fileError(absolute, e)
    }
  }

  /**
   * Exactly `bytes` bytes from `offset`.
   *
   * @throws PolyLMError FILE_TRUNCATED when the file ends before, FILE_IO when reading fails.
   */
  async read(offset: number, bytes: number, signal?: AbortSignal | undefined): Promise<Buffer> {
    const { path, size } = this.entry
    if (offset + bytes > size) throw this.#truncated(offset, bytes, size)
    const buffer = Buffer.allocUnsafeSlow(bytes)
    let done = 0
    while (done < bytes) {
      signal?.throwIfAborted()
      const wanted = Math.min(pieceBytes, bytes - done)
      const { bytesRead } = await this.#handle
        .read(buffer, done, wanted, offset + done)
        .catch((e: unknown) => {
          throw fileError(path, e)
        })
      if (bytesRead === 0) throw this.#truncated(offset, bytes, offset + done)
      done += bytesRead
    }
    return buffer
  }

  /** Closes the file; reading afterwards fails. */
  async close(): Promise<void> {
    await this.#handle.close()
  }

  #truncated(offset: number, bytes: number, end: number): PolyLMError {
    const { path } = this.entry
    return new PolyLMError(
      'FILE_TRUNCATED',
      `${quotePath(path)} ends at byte ${end}, expected ${bytes} bytes from byte ${offset}`,
      { file: path, offset, hint: 'the file is incomplete: download it again' },
    )
  }
}

/** Opens `path`, hands the file to `use`, and closes it whatever happens. */
export async function withFile<T>(
  path: string,
  use: (file: CheckpointFile) => Promise<T>,
): Promise<T> {
  const file = await CheckpointFile.open(path)
  try {
    return await use(file)
  } finally {
    await file.close()
  }
}

/** True when there is something of this name, be it a link to nowhere: an interrupted download. */
export async function isThere(path: string): Promise<boolean> {
  return await lstat(path).then(
    () => true,
    () => false,
  )
}

async function brokenLink(path: string, cause: unknown): Promise<PolyLMError | undefined> {
  const { code } = cause as { readonly code?: unknown }
  if (code !== 'ENOENT' || !(await isThere(path))) return undefined
  return new PolyLMError('FILE_NOT_FOUND', `${quotePath(path)} is a link to a missing file`, {
    file: path,
    cause,
    hint: 'the download is incomplete, or the link was copied without its file: download it again',
  })
}

// By members, not by class: the error may come from another realm.
function fileError(path: string, cause: unknown): PolyLMError {
  const { code, message } = cause as { readonly code?: unknown; readonly message?: unknown }
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    const text = `${quotePath(path)} does not exist`
    return new PolyLMError('FILE_NOT_FOUND', text, { file: path, cause })
  }
  const text = `${quotePath(path)} cannot be read: ${String(message)}`
  return new PolyLMError('FILE_IO', text, { file: path, cause, hint: permissionHint(cause, path) })
}
