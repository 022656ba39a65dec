// sniff.ts: what the first bytes of a file say. It tells weight formats apart, and for every kind of
// file it recognises what downloads and copies leave under its name: a Git LFS pointer, a web page,
// an error message, nothing. File names are never asked: a renamed pickle must not slip past a
// check.

import { dirname } from 'node:path'

import { PolyLMError } from '../errors.js'
import type { CheckpointFile } from './file.js'
import { quote, quotePath } from './text.js'

/** As many bytes as {@link mistakenFor} looks at. */
export const sniffBytes = 512
// A header length that is plausible at all: nobody writes headers of 4 GiB, and text has no such
// zeros.
const plausibleLength = 2n ** 32n
// Answers of servers that were saved as files are short.
const maxAnswerBytes = 2048

/** What a file is in place of what its name promises. */
export interface Mistaken {
  /** Continues a sentence that begins with the file: "is a web page". */
  readonly what: string
  readonly hint: string
}

const again = 'download it again'
const unfinished = `the download was interrupted: ${again}`

// Binary formats that are told by their first bytes.
const magics: ReadonlyArray<readonly [magic: string, what: string, hint: string]> = [
  ['GGUF', 'is a GGUF file of llama.cpp', 'use the original checkpoint in Hugging Face layout'],
  ['\x89HDF', 'is an HDF5 file (TensorFlow)', 'use the PyTorch or safetensors files of the model'],
  ['\x1f\x8b', 'is a gzip archive', 'unpack it, and give the directory it contains'],
  ['\xfd7zXZ', 'is an xz archive', 'unpack it, and give the directory it contains'],
]
const messages = new RegExp(
  '^(?:(?:entry|repo(?:sitory)?|revision|model|page|file|object) )?not found\\b|^[45]\\d\\d\\b|' +
    '^(?:access (?:to|denied)|access ?denied|unauthori[sz]ed|forbidden|invalid (?:username|' +
    'credentials|user token|rev)|too many requests|rate limit|we had to rate|internal (?:server )?' +
    'error|bad gateway|service unavailable|gateway time|nosuchkey)',
  'i',
)
// `{"error": "Repository not found"}`, with at most one more member.
const jsonMessage =
  /^\s*\{\s*"(?:error|message|detail)"\s*:\s*"([^"]*)"\s*(?:,\s*"[^"]*"\s*:[^,{}]*)?\}\s*$/i

/**
 * What a file is that cannot be what its name promises; undefined when nothing speaks against it.
 *
 * @param start - the first {@link sniffBytes} bytes, or all of a shorter file
 */
export function mistakenFor(start: Buffer, size: number, path: string): Mistaken | undefined {
  if (size === 0) return { what: 'is empty', hint: unfinished }
  const text = start.toString('latin1').replace(/^\xef\xbb\xbf/, '')
  if (/^version https:\/\/git-lfs|^# xet version/.test(text)) {
    const where = quotePath(dirname(path))
    return {
      what: 'is a Git LFS pointer, not the file itself',
      hint: `run 'git lfs pull' in ${where} ('git lfs install' once before), or ${again}`,
    }
  }
  if (/^\s*<(?:!doctype|html|head|body|\?xml|error)/i.test(text)) {
    return {
      what: 'is a web page, not the file itself',
      hint: 'download again, from the link of the raw file; models with restricted access need a login',
    }
  }
  const link = /^(?:\.\.[\\/])+blobs[\\/][0-9a-f]+\s*$/.exec(text)
  if (link !== null) {
    return {
      what: `holds the text of a link, ${quote(text.trim())}, not the file itself`,
      hint: "copy the model with its links followed ('cp -rL'), or download it again",
    }
  }
  for (const [magic, what, hint] of magics) {
    if (text.startsWith(magic)) return { what, hint }
  }
  if (start.length >= 64 && start.every(byte => byte === 0)) {
    return { what: 'begins with zeros only', hint: unfinished }
  }
  return serverAnswer(start, size)
}

function serverAnswer(start: Buffer, size: number): Mistaken | undefined {
  if (size > maxAnswerBytes) return undefined
  const text = start.toString('utf8').trim()
  const found = jsonMessage.exec(text)?.[1] ?? (messages.test(text) ? text : undefined)
  if (found === undefined) return undefined
  const line = found.split('\n', 1)[0] ?? ''
  return {
    what: `holds a server's message, ${quote(line, 80)}, not the file itself`,
    hint: `check the name and the access to the model, then ${again}`,
  }
}

/**
 * The format of an open weight file.
 *
 * @throws PolyLMError FILE_TRUNCATED or FORMAT_UNKNOWN, whose hint says what the file seems to be.
 */
export async function sniffFormat(file: CheckpointFile): Promise<'safetensors' | 'torch'> {
  const { path, size } = file.entry
  if (size === 0) {
    const text = `${quotePath(path)} is empty`
    throw new PolyLMError('FILE_TRUNCATED', text, { file: path, hint: unfinished })
  }
  // At least the length of a safetensors header: a shorter file is nothing, whatever its bytes.
  const start = await file.read(0, Math.min(sniffBytes, Math.max(size, 8)))
  const text = start.toString('latin1')
  // An entry, or the end records of an archive without any.
  if (/^PK(?:\x03\x04|\x05\x06|\x06\x06)/.test(text)) return 'torch'
  // A header length is little-endian; one with '{' right behind it is one, however wrong.
  if (text[8] === '{') return 'safetensors'
  const mistaken = mistakenFor(start, size, path)
  if (mistaken === undefined && start.readBigUInt64LE(0) < plausibleLength) return 'safetensors'
  const what = mistaken?.what ?? 'is neither a safetensors file nor a PyTorch archive'
  throw new PolyLMError('FORMAT_UNKNOWN', `${quotePath(path)} ${what}`, {
    file: path,
    hint: mistaken?.hint ?? unknownHint(start),
  })
}

function unknownHint(start: Buffer): string {
  if (start[0] === 0x80) {
    return 'it is a bare pickle, from before PyTorch 1.6: convert it by saving it with a newer one'
  }
  return 'download it again, or convert it to safetensors'
}
