// session-file.ts: a saved conversation: one JSON document of a few kilobytes, and how it gets onto a disk whole.
// The document begins with its format and version and ends with the SHA-256 of every byte before that member;
// these two places stay where they are in all versions. Not here: what the entries mean (session-state.ts).
// Trap: whatever is written must be readable again, so the limits of reading hold for writing too.
import { createHash, randomBytes } from 'node:crypto'
import { lstat, open, readdir, rename, unlink } from 'node:fs/promises'
import path from 'node:path'
import type { Message } from './chat.js'
import { withFile } from './checkpoint/file.js'
import { isJsonArray, isJsonObject, parseJson, type JsonObject, type JsonValue } from './checkpoint/json.js'
import { maxJsonStringBytes, maxJsonValues } from './checkpoint/limits.js'
import { quotePath } from './checkpoint/text.js'
import { isPolyLMError, PolyLMError } from './errors.js'
import type { NativePart } from './native.js'
import { invalidOption } from './option-reader.js'
import { permissionHint } from './permission.js'
import type { Entry, State } from './session-state.js'

/** What a session file holds. */
export interface SavedSession {
  /** null stands for a function. */
  readonly template: 'assistant' | 'multialpaca' | 'none' | null
  readonly system: string | null
  readonly onOverflow: 'error' | 'dropOldestTurns'
  readonly state: State
}

const version = 1
const maxFileBytes = 64 * 1024 * 1024
const maxEntries = 65_536
const tailPattern = /^,"sha256":"([0-9a-f]{64})"\}\n$/
const tailBytes = ',"sha256":""}\n'.length + 64

/** The path option of save and restore. */
export function checkPath(file: unknown): string {
  if (typeof file === 'string' && file !== '' && !file.includes('\0')) return path.resolve(file)
  throw invalidOption('path', file, 'expected the path of a session file')
}

// ------------------------------------------------------------------------------------------------ writing

/**
 * The bytes of a session file.
 *
 * @throws PolyLMError LIMIT when a message is too long to be read again.
 */
export function encodeSession(session: SavedSession, weights: string): Buffer {
  const { template, system, onOverflow, state } = session
  const head = JSON.stringify({
    format: 'polylm-session', version, weights, template,
    system: system === null ? null : wellFormed(system), onOverflow, entries: state.map(toJson),
  }).slice(0, -1)
  const bytes = Buffer.from(head)
  const values = state.reduce((sum, { parts }) => sum + parts.reduce(
    (n, part) => n + 3 + ('ids' in part ? part.ids.length : 0), 5), 16)
  if (state.length > maxEntries || values > maxJsonValues || bytes.length + tailBytes > maxFileBytes) {
    throw tooLong(`${state.length} messages and ${bytes.length} bytes`)
  }
  return Buffer.concat([bytes, Buffer.from(`,"sha256":"${digest(bytes)}"}\n`)])
}

const digest = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

function toJson({ message, parts, joined }: Entry): object {
  return {
    role: message.role, content: wellFormed(message.content), joined,
    parts: parts.map(part => ('ids' in part ? { ids: Array.from(part.ids), control: part.control }
      : { text: wellFormed(part.text), parseSpecial: part.parseSpecial })),
  }
}

// The model saw U+FFFD where text had half a surrogate pair; JSON that is UTF-8 has no other way to say it.
function wellFormed(text: string): string {
  const right = text.replace(/\p{Cs}/gu, '\ufffd')
  const bytes = Buffer.byteLength(JSON.stringify(right)) - 2
  if (bytes > maxJsonStringBytes) throw tooLong(`a message of ${bytes} bytes`)
  return right
}

function tooLong(what: string): PolyLMError {
  return new PolyLMError('LIMIT', `the session has ${what}, more than a session file may hold`, {
    hint: `limits: ${maxEntries} messages of ${maxJsonStringBytes} bytes, ${maxFileBytes} bytes together`,
  })
}

/**
 * Puts bytes at a path whole or not at all: written beside it, flushed, and renamed over what is there (a
 * symbolic link is replaced, not followed). The file is readable by its owner alone.
 *
 * @throws PolyLMError FILE_IO; the path then holds what it held before, or the new bytes when only the last
 * step failed, the flush of the folder.
 */
export async function writeWhole(file: string, bytes: Uint8Array): Promise<void> {
  const folder = path.dirname(file)
  const temporary = path.join(folder, `.polylm-${randomBytes(8).toString('hex')}.tmp`)
  try {
    await removeLeftovers(folder)
    await writeNew(temporary, bytes)
    await rename(temporary, file)
    await flushFolder(folder)
  } catch (cause) {
    await unlink(temporary).catch(() => { /* it was never made, or is at its place already */ })
    const text = `${quotePath(file)} cannot be written: ${messageOf(cause)}`
    throw new PolyLMError('FILE_IO', text, { file, cause, hint: permissionHint(cause, folder) })
  }
}

async function writeNew(file: string, bytes: Uint8Array): Promise<void> {
  const handle = await open(file, 'wx', 0o600)
  try {
    await handle.writeFile(bytes)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

// The new name is on the disk only when its folder is. Windows and some network file systems have no such call.
async function flushFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } catch (e) {
    if (!['EINVAL', 'ENOTSUP', 'ENOSYS'].includes((e as NodeJS.ErrnoException).code ?? '')) throw e
  } finally {
    await handle.close()
  }
}

const leftoverAgeMs = 3_600_000

// What a killed process left. A younger file may be another process's, still being written.
async function removeLeftovers(folder: string): Promise<void> {
  const names = (await readdir(folder)).filter(name => /^\.polylm-[0-9a-f]{16}\.tmp$/.test(name))
  await Promise.all(names.map(async name => {
    const file = path.join(folder, name)
    const { mtimeMs } = await lstat(file)
    if (Date.now() - mtimeMs > leftoverAgeMs) await unlink(file)
  }).map(done => done.catch(() => { /* somebody else was faster, or it is not ours to remove */ })))
}

const messageOf = (e: unknown): string => String((e as { readonly message?: unknown } | null)?.message ?? e)

// ------------------------------------------------------------------------------------------------ reading

/**
 * Reads a session file that was saved with the same weights.
 *
 * @throws PolyLMError FILE_NOT_FOUND, FILE_IO, SESSION_FILE.
 */
export async function readSession(file: string, weights: string, vocabSize: number): Promise<SavedSession> {
  const bytes = await withFile(file, async opened => {
    const { size } = opened.entry
    if (size > maxFileBytes) throw damaged(file, `has ${size} bytes, a session file has at most ${maxFileBytes}`)
    return await opened.read(0, size)
  }).catch((e: unknown) => {
    throw isPolyLMError(e, 'FILE_TRUNCATED') ? damaged(file, 'became shorter while it was read', e) : e
  })
  return await decodeSession(bytes, file, weights, vocabSize)
}

/** The session in the bytes of a file. */
export async function decodeSession(
  bytes: Buffer, file: string, weights: string, vocabSize: number,
): Promise<SavedSession> {
  const head = bytes.subarray(0, Math.max(0, bytes.length - tailBytes))
  const sum = tailPattern.exec(bytes.toString('latin1', head.length))?.[1]
  if (sum === undefined) throw damaged(file, 'does not end as a session file does')
  if (sum !== digest(head)) throw damaged(file, 'does not match its checksum')
  const value = await parseJson(bytes, { file, maxBytes: maxFileBytes }).catch((e: unknown) => {
    throw damaged(file, 'is not the JSON of a session', e)
  })
  if (!isJsonObject(value) || value.get('format') !== 'polylm-session') throw damaged(file, 'is not a session file')
  const found = value.get('version')
  if (found !== version) {
    throw new PolyLMError('SESSION_FILE',
      `${quotePath(file)} has version ${typeof found === 'number' ? found : 'unknown'}, expected ${version}`,
      { file, reason: 'version', hint: 'it was saved by another version of polylm' })
  }
  const saved = value.get('weights')
  const session = new Reader(file, vocabSize).session(value)
  if (saved === weights) return session
  throw new PolyLMError('SESSION_FILE',
    `${quotePath(file)} was saved with the weights ${String(saved)}, this model has ${weights}`,
    {
      file, reason: 'other-weights', found: saved, expected: weights,
      hint: 'load the model it was saved with, or begin a new session with its messages as history',
    })
}

function damaged(file: string, what: string, cause?: unknown): PolyLMError {
  return new PolyLMError('SESSION_FILE', `${quotePath(file)} ${what}`, {
    file, reason: 'damaged', hint: 'give a file that a session was saved to, or an undamaged copy of it',
    ...(cause === undefined ? {} : { cause }),
  })
}

const names = ['format', 'version', 'weights', 'template', 'system', 'onOverflow', 'entries', 'sha256']

// A checksum proves that nothing broke, not that somebody meant well: every member is checked.
class Reader {
  readonly #file: string
  readonly #vocabSize: number

  constructor(file: string, vocabSize: number) {
    this.#file = file
    this.#vocabSize = vocabSize
  }

  session(root: JsonObject): SavedSession {
    this.#only(root, names)
    if (typeof root.get('weights') !== 'string') throw this.#wrong('weights')
    const system = root.get('system') ?? null
    const entries = root.get('entries')
    if (system !== null && typeof system !== 'string') throw this.#wrong('system')
    if (!isJsonArray(entries) || entries.length > maxEntries) throw this.#wrong('entries')
    const template = root.get('template')
    const known = (['assistant', 'multialpaca', 'none', null] as const).find(name => name === template)
    const onOverflow = (['error', 'dropOldestTurns'] as const).find(name => name === root.get('onOverflow'))
    if (known === undefined || (system !== null && known !== null)) throw this.#wrong('template')
    if (onOverflow === undefined) throw this.#wrong('onOverflow')
    return { template: known, system, onOverflow, state: entries.map((entry, i) => this.#entry(entry, i, known)) }
  }

  #entry(value: JsonValue, index: number, template: SavedSession['template']): Entry {
    if (!isJsonObject(value)) throw this.#wrong('entries')
    this.#only(value, ['role', 'content', 'joined', 'parts'])
    const role = (['user', 'assistant', 'system'] as const).find(name => name === value.get('role'))
    const content = value.get('content')
    const joined = value.get('joined')
    const parts = value.get('parts')
    if (role === undefined || typeof content !== 'string' || typeof joined !== 'boolean' || !isJsonArray(parts) ||
      (joined && index === 0) || (template !== 'none' && (joined || parts.length > 0))) throw this.#wrong('entries')
    const message: Message = { role, content }
    return { message, joined, parts: parts.map(part => this.#part(part)) }
  }

  #part(value: JsonValue): NativePart {
    if (!isJsonObject(value)) throw this.#wrong('parts')
    const text = value.get('text')
    const parseSpecial = value.get('parseSpecial')
    const control = value.get('control')
    const ids = value.get('ids')
    this.#only(value, text === undefined ? ['ids', 'control'] : ['text', 'parseSpecial'])
    if (typeof text === 'string' && typeof parseSpecial === 'boolean') return { text, parseSpecial }
    if (!isJsonArray(ids) || ids.length === 0 || typeof control !== 'boolean') throw this.#wrong('parts')
    const right = ids.every(id => typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < this.#vocabSize)
    if (!right) throw this.#wrong('ids')
    return { ids: Int32Array.from(ids as readonly number[]), control }
  }

  #only(object: JsonObject, allowed: readonly string[]): void {
    const right = object.size === allowed.length && allowed.every(name => object.has(name))
    if (!right) throw this.#wrong([...object.keys()].find(name => !allowed.includes(name)) ?? 'members')
  }

  #wrong(member: string): PolyLMError {
    return damaged(this.#file, `holds something else than a session: ${member.slice(0, 40)}`)
  }
}
