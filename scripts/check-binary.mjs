#!/usr/bin/env node
// The gate of a release binary: what it asks of the system it is loaded on. `node scripts/check-binary.mjs <file>
// [target]` prints what is wrong; prebuild.mjs and the tests call problemsOf. Not here: which instructions it runs
// (test/e2e/binary.test.ts looks at the code itself).
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { compareVersions, readElf } from './elf.mjs'
import { readPe } from './pe.mjs'
import { host, targets } from './targets.mjs'

const napiVersion = 8
const linuxLibraries = /^(libc\.so\.6|libm\.so\.6|libpthread\.so\.0|libdl\.so\.2|librt\.so\.1|libgcc_s\.so\.1|ld-linux[-\w]*\.so\.\d|libc\.musl-\w+\.so\.1)$/
const windowsLibraries = /^(kernel32|msvcrt|advapi32|ntdll|api-ms-win-crt-[-\w]+|ucrtbase|node)\.(dll|exe)$/i
const entryPoints = ['napi_register_module_v1', 'node_api_module_get_api_version_v1']
const newestGcc = '4.8'

/** The functions of N-API that every Node with this version has. */
function napiFunctions() {
  const { symbols } = createRequire(import.meta.url)('node-api-headers')
  const { js_native_api_symbols: js, node_api_symbols: node } = symbols[`v${napiVersion}`]
  return new Set([...js, ...node])
}

const asked = (names, what) => (names.length === 0 ? [] : [`${what}: ${[...new Set(names)].join(', ')}`])

function elfProblems(file, arch, floor) {
  const elf = readElf(file)
  const napi = napiFunctions()
  const tooNew = (prefix, newest) => elf.versionsNeeded.map(({ version }) => version)
    .filter(version => version.startsWith(prefix) && compareVersions(version.slice(prefix.length), newest) > 0)
  // With musl nothing has a version: neither can be too new, nor can what is missing be told from what is there.
  const undefinedNames = floor === undefined ? [] : elf.symbols.filter(s => !s.defined && !s.weak && s.version === undefined).map(({ name }) => name)
  return [
    ...(elf.arch === arch ? [] : [`built for ${elf.arch}, not ${arch}`]),
    ...asked(elf.needed.filter(name => !linuxLibraries.test(name)), 'needs other libraries'),
    ...asked(tooNew('GLIBC_', floor ?? '0'), floor === undefined ? 'needs glibc' : `needs a glibc newer than ${floor}`),
    ...asked(tooNew('GCC_', newestGcc), 'needs a newer libgcc'),
    ...asked(elf.versionsNeeded.map(({ version }) => version).filter(v => /^(GLIBCXX|CXXABI)_/.test(v)), 'libstdc++ is not inside'),
    ...asked(undefinedNames.filter(name => !napi.has(name)), `nobody has, Node with N-API ${napiVersion} included`),
    ...asked(elf.symbols.filter(s => s.defined && !entryPoints.includes(s.name)).map(({ name }) => name).slice(0, 9), 'exports too much'),
    ...entryPoints.filter(name => !elf.symbols.some(s => s.defined && s.name === name)).map(name => `does not export ${name}`),
  ]
}

function peProblems(file) {
  const { imports, delayed, exports } = readPe(file)
  const napi = napiFunctions()
  return [
    ...asked([...imports.keys()].filter(name => !windowsLibraries.test(name) || /^node\.exe$/i.test(name)), 'needs at start'),
    ...asked([...delayed.keys()].filter(name => !/^node\.exe$/i.test(name)), 'needs later'),
    ...asked([...delayed.values()].flat().filter(name => !napi.has(name)), `not in N-API ${napiVersion}`),
    ...asked(exports.filter(name => !entryPoints.includes(name)), 'exports too much'),
    ...entryPoints.filter(name => !exports.includes(name)).map(name => `does not export ${name}`),
  ]
}

/**
 * Everything that would keep a release binary from loading where it should; empty when it is in order.
 * @param {string} file
 * @param {string} target a key of targets.mjs
 * @returns {string[]}
 */
export function problemsOf(file, target) {
  const [platform, arch] = target.split('-')
  if (platform === 'linux') return elfProblems(file, arch, /\.musl\.node$/.test(file) ? undefined : targets.get(target).floor)
  if (platform === 'win32') return peProblems(file)
  return []                                     // Mach-O: nobody has built one yet
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [file, target = host] = process.argv.slice(2)
  if (file === undefined || !targets.has(target)) {
    console.error(`usage: check-binary.mjs <file> [${[...targets.keys()].join('|')}]`)
    process.exit(2)
  }
  const problems = problemsOf(file, target)
  console.log(problems.length === 0 ? `${file}: in order for ${target}` : [`${file}:`, ...problems].join('\n  '))
  process.exit(problems.length === 0 ? 0 : 1)
}
