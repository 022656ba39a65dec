// crc.ts: CRC-32 bit by bit, unlike the table of the reader that it checks.

/** CRC-32 (IEEE) of `bytes`. */
export function crc32(bytes: Buffer): number {
  let crc = -1
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1))
  }
  return ~crc >>> 0
}
