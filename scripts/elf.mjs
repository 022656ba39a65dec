// A reader of what a dynamic linker sees in a 64-bit little-endian ELF file: libraries, symbols, symbol versions. Used to
// make the stub libraries of a release build (glibc-stubs.mjs), by the gate of its result (check-binary.mjs), by tests.
// Not a general reader. Trap: it walks section headers, which `strip --strip-all` keeps and `sstrip` would not.
import { readFileSync } from 'node:fs'

const machines = new Map([[62, 'x64'], [183, 'arm64']])
const kDynamic = 6
const kDynamicSymbols = 11
const kVersionNeeded = 0x6ffffffe
const kVersionDefined = 0x6ffffffd
const kVersionOfSymbol = 0x6fffffff
const hidden = 0x8000

/**
 * @typedef {{ name: string, version?: string, isDefault: boolean, defined: boolean, weak: boolean, object: boolean,
 *   size: number }} ElfSymbol
 * @param {string | Buffer} file a path, or the bytes
 * @returns {{ arch: string, needed: string[], soname?: string, symbols: ElfSymbol[],
 *   versionsNeeded: { library: string, version: string }[] }}
 */
export function readElf(file) {
  const bytes = typeof file === 'string' ? readFileSync(file) : file
  if (bytes.length < 64 || bytes.readUInt32BE(0) !== 0x7f454c46 || bytes[4] !== 2 || bytes[5] !== 1) {
    throw new Error(`${typeof file === 'string' ? file : 'the buffer'} is no 64-bit little-endian ELF file`)
  }
  const sections = sectionsOf(bytes)
  const ofType = type => sections.find(section => section.type === type)
  const texts = section => offset => textAt(bytes, sections[section.link].offset + offset)
  const dynamic = ofType(kDynamic)
  const entries = dynamic === undefined ? [] : dynamicEntries(bytes, dynamic)
  const strings = dynamic === undefined ? () => '' : texts(dynamic)
  const { needed: versionsNeeded, names } = versionNames(bytes, ofType(kVersionNeeded), ofType(kVersionDefined), texts)
  const soname = entries.find(([tag]) => tag === 14)
  return {
    arch: machines.get(bytes.readUInt16LE(18)) ?? `machine ${bytes.readUInt16LE(18)}`,
    needed: entries.filter(([tag]) => tag === 1).map(([, value]) => strings(value)),
    ...(soname === undefined ? {} : { soname: strings(soname[1]) }),
    symbols: dynamicSymbols(bytes, ofType(kDynamicSymbols), ofType(kVersionOfSymbol), names, texts),
    versionsNeeded,
  }
}

function textAt(bytes, offset) {
  return bytes.toString('latin1', offset, bytes.indexOf(0, offset))
}

function sectionsOf(bytes) {
  const start = Number(bytes.readBigUInt64LE(40))
  const [size, count] = [bytes.readUInt16LE(58), bytes.readUInt16LE(60)]
  return Array.from({ length: count }, (_, i) => start + i * size).map(at => ({
    type: bytes.readUInt32LE(at + 4), offset: Number(bytes.readBigUInt64LE(at + 24)),
    bytes: Number(bytes.readBigUInt64LE(at + 32)), link: bytes.readUInt32LE(at + 40), info: bytes.readUInt32LE(at + 44),
  }))
}

function dynamicEntries(bytes, { offset, bytes: size }) {
  return Array.from({ length: size / 16 }, (_, i) => offset + i * 16)
    .map(at => [Number(bytes.readBigInt64LE(at)), Number(bytes.readBigUInt64LE(at + 8))])
}

/** What the version numbers of symbols mean: those of other libraries and those of this file. */
function versionNames(bytes, neededSection, definedSection, texts) {
  const names = new Map()
  const needed = []
  for (let i = 0, at = neededSection?.offset; i < (neededSection?.info ?? 0); i++) {
    const library = texts(neededSection)(bytes.readUInt32LE(at + 4))
    for (let j = 0, aux = at + bytes.readUInt32LE(at + 8); j < bytes.readUInt16LE(at + 2); j++) {
      const version = texts(neededSection)(bytes.readUInt32LE(aux + 8))
      names.set(bytes.readUInt16LE(aux + 6), version)
      needed.push({ library, version })
      aux += bytes.readUInt32LE(aux + 12)
    }
    at += bytes.readUInt32LE(at + 12)
  }
  for (let i = 0, at = definedSection?.offset; i < (definedSection?.info ?? 0); i++) {
    names.set(bytes.readUInt16LE(at + 4), texts(definedSection)(bytes.readUInt32LE(at + bytes.readUInt32LE(at + 12))))
    at += bytes.readUInt32LE(at + 16)
  }
  return { needed, names }
}

function dynamicSymbols(bytes, table, versions, names, texts) {
  if (table === undefined) return []
  return Array.from({ length: table.bytes / 24 - 1 }, (_, i) => i + 1).map(i => {
    const at = table.offset + i * 24
    const number = versions === undefined ? 1 : bytes.readUInt16LE(versions.offset + i * 2)
    const version = (number & ~hidden) > 1 ? names.get(number & ~hidden) : undefined
    return {
      name: texts(table)(bytes.readUInt32LE(at)), ...(version === undefined ? {} : { version }),
      isDefault: (number & hidden) === 0, defined: bytes.readUInt16LE(at + 6) !== 0,
      weak: bytes[at + 4] >> 4 === 2, object: (bytes[at + 4] & 15) === 1, size: Number(bytes.readBigUInt64LE(at + 16)),
    }
  }).filter(({ name }) => name !== '')             // the symbols of sections have none
}

/** Order of dotted versions: negative when a is older. */
export function compareVersions(a, b) {
  const [x, y] = [a, b].map(text => text.split('.').map(Number))
  for (let i = 0; i < Math.max(x.length, y.length); i++) {
    if ((x[i] ?? 0) !== (y[i] ?? 0)) return (x[i] ?? 0) - (y[i] ?? 0)
  }
  return 0
}
