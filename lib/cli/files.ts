// files.ts: the files that a command is told to read or write: their bytes, and every failure as a PolyLMError that
// says which file and what to do. `-` is standard input or output.
// Trap: a file may be a pipe (`--input <(command)`) or a device: it can be read once, and its size means nothing.
import { createReadStream } from 'node:fs'
import { appendFile, realpath, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { quotePath } from '../checkpoint/text.js'
import { PolyLMError } from '../errors.js'

/** Largest file that is held in memory as one text. */
export const maxTextBytes = 256 * 1024 * 1024

/** The name of a file as messages show it. */
export function fileName(file: string, use: 'input' | 'output' = 'input'): string {
  return file === '-' ? `standard ${use}` : quotePath(file)
}

const codeOf = (e: unknown): string => {
  const { code } = e as { readonly code?: unknown }
  return typeof code === 'string' ? code : ''
}

/** An error of the file system, while reading `file`, as users see it. Others come back as they are. */
export function readFailure(file: string, cause: unknown): unknown {
  const code = codeOf(cause)
  if (!isSystemError(cause)) return cause
  const shown = fileName(file)
  const fail = (text: string, hint: string): PolyLMError => new PolyLMError('FILE_IO', text, { file, hint, cause })
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new PolyLMError('FILE_NOT_FOUND', `${shown} does not exist`, { file, hint: 'check the path', cause })
  }
  if (code === 'EISDIR') return fail(`${shown} is a directory, expected a file`, 'give a file in it')
  if (code === 'EACCES' || code === 'EPERM') {
    return fail(`${shown} cannot be read: permission denied`, 'check the permissions of the file and its folders')
  }
  return fail(`${shown} cannot be read: ${(cause as Error).message}`, 'check the path and the disk')
}

/** An error of the file system, while writing `file`, as users see it. Others come back as they are. */
export function writeFailure(file: string, cause: unknown): unknown {
  if (!isSystemError(cause)) return cause
  const code = codeOf(cause)
  const shown = fileName(file, 'output')
  const fail = (text: string, hint: string): PolyLMError => new PolyLMError('FILE_IO', text, { file, hint, cause })
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') {
    const what = {
      ENOSPC: 'no space is left on the device', EDQUOT: 'the disk quota is used up', EFBIG: 'it is too large',
    }
    return new PolyLMError('DISK_FULL', `${shown} cannot be written: ${what[code]}`,
      { file, hint: 'free some space, or write to another disk', cause })
  }
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new PolyLMError('FILE_NOT_FOUND', `${shown} cannot be written: its folder does not exist`,
      { file, hint: `create ${quotePath(path.dirname(path.resolve(file)))} first`, cause })
  }
  if (code === 'EISDIR') return fail(`${shown} is a directory, expected a file`, 'give the name of a file in it')
  if (code === 'EPIPE') {
    return fail(`${shown} cannot be written: its reader closed it`, 'check the program that reads it')
  }
  if (code === 'EACCES' || code === 'EPERM') {
    return fail(`${shown} cannot be written: permission denied`, 'check the permissions of the file and its folder')
  }
  return fail(`${shown} cannot be written: ${(cause as Error).message}`, 'check the path and the disk')
}

const isSystemError = (e: unknown): boolean =>
  typeof (e as { readonly syscall?: unknown } | null)?.syscall === 'string' ||
  codeOf(e) === 'ERR_STREAM_PREMATURE_CLOSE'

/** The bytes of a file, or of standard input for '-'. They end with the signal's reason when it aborts. */
export async function * inputBytes(file: string, signal?: AbortSignal): AsyncGenerator<Buffer> {
  signal?.throwIfAborted()
  const stream: AsyncIterable<Buffer> & { destroy: () => void } = file === '-' ? process.stdin : createReadStream(file)
  const stop = (): void => { stream.destroy() }
  signal?.addEventListener('abort', stop, { once: true })
  try {
    yield * stream
  } catch (e) {
    signal?.throwIfAborted()
    throw readFailure(file, e)
  } finally {
    signal?.removeEventListener('abort', stop)
  }
  signal?.throwIfAborted()
}

/** Strict UTF-8, a byte order mark included. */
export function decodeUtf8(data: Uint8Array, where: string): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data)
  } catch (cause) {
    const utf16 = (data[0] === 0xff && data[1] === 0xfe) || (data[0] === 0xfe && data[1] === 0xff)
    const hint = utf16 ? 'it begins as UTF-16 does; convert it: iconv -f UTF-16 -t UTF-8' : 'convert it to UTF-8'
    throw new PolyLMError('HEADER_UTF8', `${where} is not UTF-8 text`, { hint, cause })
  }
}

/** Text without the byte order mark that some editors put at the start of a file. */
export const withoutMark = (text: string): string => (text.startsWith('\ufeff') ? text.slice(1) : text)

/** A whole file, or standard input for '-', as text without a byte order mark. */
export async function readText(file: string): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of inputBytes(file)) {
    size += chunk.length
    if (size > maxTextBytes) {
      throw new PolyLMError('LIMIT',
        `${fileName(file)} has more than ${maxTextBytes} bytes, the maximum for one text`,
        { file, hint: 'split it into several files' })
    }
    chunks.push(chunk)
  }
  return withoutMark(decodeUtf8(Buffer.concat(chunks), fileName(file)))
}

/** Size of a regular file, 0 when there is none; undefined for a pipe or a device. */
export async function sizeOf(file: string): Promise<number | undefined> {
  try {
    const found = await stat(file)
    if (found.isDirectory()) throw Object.assign(new Error('EISDIR'), { code: 'EISDIR', syscall: 'open' })
    return found.isFile() ? found.size : undefined
  } catch (e) {
    if (codeOf(e) === 'ENOENT' || codeOf(e) === 'ENOTDIR') return 0     // writing says what is missing
    throw readFailure(file, e)
  }
}

/** True for a file that can be read again; a pipe, a device and standard input are gone once they were read. */
export async function isRegular(file: string): Promise<boolean> {
  if (file === '-') return false
  const found = await stat(file).catch((e: unknown) => { throw readFailure(file, e) })
  return !found.isCharacterDevice() && !found.isFIFO() && !found.isSocket()
}

/** Where a path leads, links followed as far as they exist: equal for two names of one file. */
export async function placeOf(file: string): Promise<string> {
  const absolute = path.resolve(file)
  try {
    return await realpath(absolute)
  } catch {
    const folder = await realpath(path.dirname(absolute)).catch(() => path.dirname(absolute))
    return path.join(folder, path.basename(absolute))
  }
}

/** Writes a whole file. */
export async function writeWhole(file: string, text: string): Promise<void> {
  await writeFile(file, text).catch((e: unknown) => { throw writeFailure(file, e) })
}

/** Throws when a file cannot be written, before the work whose result it will hold. */
export async function checkWritable(file: string): Promise<void> {
  await appendFile(file, '').catch((e: unknown) => { throw writeFailure(file, e) })
}
