// A reader of what Windows sees in a 64-bit PE file (a .dll or .node): the functions it imports at start, those it
// imports at the first call, and those it exports. For check-binary.mjs and tests; not a general reader.
import { readFileSync } from 'node:fs'

const kExports = 0
const kImports = 1
const kDelayedImports = 13

/**
 * @param {string | Buffer} file a path, or the bytes
 * @returns {{ imports: Map<string, string[]>, delayed: Map<string, string[]>, exports: string[] }} names by library
 */
export function readPe(file) {
  const bytes = typeof file === 'string' ? readFileSync(file) : file
  const header = bytes.length > 64 ? bytes.readUInt32LE(0x3c) : 0
  if (header === 0 || bytes.toString('latin1', header, header + 4) !== 'PE\0\0' || bytes.readUInt16LE(header + 24) !== 0x20b) {
    throw new Error(`${typeof file === 'string' ? file : 'the buffer'} is no 64-bit PE file`)
  }
  const sectionsAt = header + 24 + bytes.readUInt16LE(header + 20)
  const sections = Array.from({ length: bytes.readUInt16LE(header + 6) }, (_, i) => sectionsAt + i * 40).map(at => ({
    address: bytes.readUInt32LE(at + 12), bytes: Math.max(bytes.readUInt32LE(at + 8), bytes.readUInt32LE(at + 16)),
    offset: bytes.readUInt32LE(at + 20),
  }))
  const place = address => {
    const section = sections.find(s => address >= s.address && address < s.address + s.bytes)
    if (section === undefined) throw new Error(`address ${address} is in no section`)
    return address - section.address + section.offset
  }
  const directory = i => bytes.readUInt32LE(header + 24 + 112 + i * 8)
  const text = address => bytes.toString('latin1', place(address), bytes.indexOf(0, place(address)))
  return {
    imports: importsOf(bytes, place, text, directory(kImports), 20, 12, 0),
    delayed: importsOf(bytes, place, text, directory(kDelayedImports), 32, 4, 16),
    exports: exportsOf(bytes, place, text, directory(kExports)),
  }
}

/** A table of libraries: each entry has the address of a name and of a list of function names. */
function importsOf(bytes, place, text, table, entryBytes, nameAt, listAt) {
  const found = new Map()
  for (let at = table === 0 ? -1 : place(table); at >= 0 && bytes.readUInt32LE(at + nameAt) !== 0; at += entryBytes) {
    const names = []
    for (let item = place(bytes.readUInt32LE(at + listAt)); bytes.readBigUInt64LE(item) !== 0n; item += 8) {
      const value = bytes.readBigUInt64LE(item)
      names.push(value >> 63n === 1n ? `#${value & 0xffffn}` : text(Number(value) + 2))
    }
    found.set(text(bytes.readUInt32LE(at + nameAt)), names)
  }
  return found
}

function exportsOf(bytes, place, text, table) {
  if (table === 0) return []
  const at = place(table)
  const names = place(bytes.readUInt32LE(at + 32))
  return Array.from({ length: bytes.readUInt32LE(at + 24) }, (_, i) => text(bytes.readUInt32LE(names + i * 4)))
}
