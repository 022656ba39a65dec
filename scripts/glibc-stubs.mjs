#!/usr/bin/env node
// Makes stub libraries that stand for an old glibc: every symbol of the compiler's own glibc in its newest version that
// is not newer than the floor. An addon linked against them loads wherever the floor does, whatever glibc it was built
// on. Called by cmake/portable.cmake: glibc-stubs.mjs <compiler> <floor> <folder>.
// Before 2.34 threads and dlopen were libraries of their own, so empty libpthread and libdl are made for the linker to
// name: Node has loaded both before its libc. Not so librt, so its functions (CUDA's runtime shares memory) stand in a
// stub of their own: an old loader ends at the library that a symbol is said to be in.
// Trap: functions that the floor lacks altogether stay undefined; cmake/glibc_floor.c has those that we need.
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { compareVersions, readElf } from './elf.mjs'

const [compiler, floor, folder] = process.argv.slice(2)
if (folder === undefined) throw new Error('usage: glibc-stubs.mjs <compiler> <floor> <folder>')

const fileOf = name => execFileSync(compiler, [`-print-file-name=${name}`], { encoding: 'utf8' }).trim()
const releaseOf = version => /^GLIBC_(\d[\d.]*)$/.exec(version ?? '')?.[1]

/** The symbols of a library as the floor has them. */
function symbolsAtFloor(file) {
  const chosen = new Map()
  for (const symbol of readElf(file).symbols) {
    const release = releaseOf(symbol.version)
    if (!symbol.defined || release === undefined || symbol.name.startsWith('GLIBC_') || compareVersions(release, floor) > 0) continue
    const other = chosen.get(symbol.name)
    if (other === undefined || compareVersions(releaseOf(other.version), release) < 0) chosen.set(symbol.name, symbol)
  }
  return [...chosen.values()]
}

function assembly(symbols) {
  return symbols.map((symbol, i) => {
    const bytes = symbol.object ? Math.max(symbol.size, 1) : 1
    const section = symbol.object ? '.bss' : '.text'
    return `${section}\n.globl s${i}\n.type s${i}, %${symbol.object ? 'object' : 'function'}\n.size s${i}, ${bytes}\n` +
      `s${i}:\n.skip ${bytes}\n.symver s${i}, ${symbol.name}@@@${symbol.version}\n`
  }).join('') + '.section .note.GNU-stack,"",%progbits\n'
}

/** The version nodes, each after the one before. */
function versionScript(symbols) {
  const versions = [...new Set(symbols.map(symbol => symbol.version))]
    .sort((a, b) => compareVersions(releaseOf(a), releaseOf(b)))
  return versions.map((version, i) => `${version} {}${i === 0 ? '' : ` ${versions[i - 1]}`};\n`).join('')
}

/** `lib<name>.so` with another library's soname. */
function makeStub(name, soname, symbols) {
  const at = path.join(folder, `lib${name}`)
  writeFileSync(`${at}.s`, assembly(symbols))
  writeFileSync(`${at}.map`, symbols.length === 0 ? '{ local: *; };\n' : versionScript(symbols))
  execFileSync(compiler, ['-shared', '-nostdlib', '-o', `${at}.so`, `${at}.s`,
    `-Wl,-soname,${soname}`, `-Wl,--version-script=${at}.map`], { stdio: 'inherit' })
}

mkdirSync(folder, { recursive: true })
const libc = fileOf('libc.so.6')
const loader = readElf(libc).needed.find(name => name.startsWith('ld-linux'))
const isOfRt = ({ name }) => /^(aio_|lio_listio|mq_|shm_|timer_)/.test(name)
const ofLibc = symbolsAtFloor(libc)
makeStub('c', 'libc.so.6', ofLibc.filter(symbol => !isOfRt(symbol)))
makeStub('m', 'libm.so.6', symbolsAtFloor(fileOf('libm.so.6')))
makeStub('loader', loader, symbolsAtFloor(fileOf(loader)))
makeStub('pthread', 'libpthread.so.0', [])
makeStub('dl', 'libdl.so.2', [])
makeStub('rt', 'librt.so.1', [...ofLibc, ...symbolsAtFloor(fileOf('librt.so.1'))].filter(isOfRt))
