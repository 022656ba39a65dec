// sniff.ts: tells weight files apart by their first bytes. File names are never asked: a renamed
// pickle must not slip past a check, and a download that became an error page should be named as
// what it is.

import { PolyLMError } from '../errors.js'
import type { CheckpointFile } from './file.js'
import { quotePath } from './text.js'

const sniffBytes = 64
// A header length that is plausible at all: nobody writes headers of 4 GiB, and text has no such
// zeros.
const plausibleLength = 2n ** 32n

/**
 * The format of an open weight file.
 *
 * @throws PolyLMError FILE_TRUNCATED or FORMAT_UNKNOWN, whose hint says what the file seems to be.
 */
export async function sniffFormat(file: CheckpointFile): Promise<'safetensors' | 'torch'> {
  const { path, size } = file.entry
  // At least the length of a safetensors header: a shorter file is nothing, whatever its bytes.
  const start = await file.read(0, Math.min(sniffBytes, Math.max(size, 8)))
  const text = start.toString('latin1')
  // An entry, or the end records of an archive without any.
  if (/^PK(?:\x03\x04|\x05\x06|\x06\x06)/.test(text)) return 'torch'
  const hint = unknownHint(start, text)
  if (hint === undefined) return 'safetensors'
  throw new PolyLMError(
    'FORMAT_UNKNOWN',
    `${quotePath(path)} is neither a safetensors file nor a PyTorch archive`,
    { file: path, hint },
  )
}

// What to do about a file that is no known format; undefined when it may be safetensors.
function unknownHint(start: Buffer, text: string): string | undefined {
  if (text.startsWith('version https://git-lfs')) {
    return "it is a Git LFS pointer, not the weights: run 'git lfs pull' in the model's folder"
  }
  if (/^\s*<(?:!doctype|html|\?xml)/i.test(text))
    return 'it is a web page, not the weights: download again'
  // A header length is little-endian; one with '{' right behind it is one, however wrong.
  if (text[8] === '{' || start.readBigUInt64LE(0) < plausibleLength) return undefined
  if (start[0] === 0x80) {
    return 'it is a bare pickle, from before PyTorch 1.6: convert it by saving it with a newer one'
  }
  return 'download it again, or convert it to safetensors'
}
