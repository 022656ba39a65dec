// crc32.ts: the checksum of zip entries. Node has its own only since 22.2, and only the pickles, a
// few hundred kilobytes, are checked here; the weights are checked by the core while it reads them.

import type { Slicer } from './slicer.js'

const pieceBytes = 256 * 1024

const table = Uint32Array.from({ length: 256 }, (_, index) => {
  let crc = index
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
  return crc >>> 0
})

/** CRC-32 (IEEE, reflected) of `bytes`. */
export async function crc32(bytes: Uint8Array, slicer: Slicer): Promise<number> {
  let crc = 0xffffffff
  for (let start = 0; start < bytes.length; start += pieceBytes) {
    const end = Math.min(start + pieceBytes, bytes.length)
    for (let i = start; i < end; i++) {
      crc = (crc >>> 8) ^ (table[(crc ^ (bytes[i] ?? 0)) & 0xff] ?? 0)
    }
    if (slicer.due()) await slicer.pause()
  }
  return (crc ^ 0xffffffff) >>> 0
}
