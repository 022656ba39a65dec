#!/usr/bin/env node
// Builds the addon with CMake into build-cmake/<platform>-<arch>-<config> and copies it to build/Release.
// Incremental: without changes it takes a moment. Used by `npm run demo`, `npm test`, node-gyp (binding.gyp),
// prebuildify (prebuild.mjs), and on a user's machine as `npx polylm-build`. Options of CMakeLists.txt come from the
// environment: POLYLM_CMAKE_<NAME>=<value> is -D<NAME>=<value>; those that are not given keep their last value.
// Traps: cmake-js is a development dependency; without it plain CMake does the same (CMakeLists.txt finds the headers). On
// Windows both would take Visual Studio, which does not do: there it is CMake with Ninja, which finds MinGW-w64.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readFileSync, realpathSync, renameSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { host, targets } from './targets.mjs'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const cmakeFloor = [3, 21]
const compilerFloors = { gcc: 12, clang: 14 }
const install = {
  linux: 'Debian, Ubuntu: sudo apt install g++ make cmake    Fedora: sudo dnf install gcc-c++ make cmake',
  darwin: 'macOS: xcode-select --install, then brew install cmake',
  win32: 'Windows: MSYS2, in its MINGW64 shell: pacman -S mingw-w64-x86_64-gcc mingw-w64-x86_64-cmake mingw-w64-x86_64-ninja',
}

const usage = '--arch= --config= --copy-to= --folder= --target='

function stop(...lines) {
  for (const line of lines) console.error(`polylm: ${line}`)
  process.exit(1)
}

function readArguments(args) {
  const options = {}
  for (const arg of args) {
    const [, name, value] = /^--([a-z-]+)(?:=(.*))?$/.exec(arg) ?? []
    if (!['arch', 'config', 'copy-to', 'folder', 'help', 'target'].includes(name)) stop(`unknown argument ${arg}; known are ${usage}`)
    options[name] = value ?? true
  }
  return options
}

function output(command, args) {
  const { status, stdout, error } = spawnSync(command, args, { encoding: 'utf8' })
  return error !== undefined || status !== 0 ? undefined : stdout
}

function checkCmake() {
  const text = output('cmake', ['--version'])
  if (text === undefined) stop('CMake was not found; 3.21 or newer is needed to compile the native part', install[process.platform] ?? '')
  const [major, minor] = (/version (\d+)\.(\d+)/.exec(text) ?? []).slice(1).map(Number)
  if (major < cmakeFloor[0] || (major === cmakeFloor[0] && minor < cmakeFloor[1])) {
    stop(`CMake ${major}.${minor} was found; ${cmakeFloor.join('.')} or newer is needed`, install[process.platform] ?? '')
  }
}

function checkCompiler() {
  const candidates = process.env.CXX ? [process.env.CXX] : ['c++', 'g++', 'clang++']
  const [name, text] = candidates.map(c => [c, output(c, ['--version'])]).find(([, t]) => t !== undefined) ?? []
  const floors = 'g++ 12 or clang 14 or newer is needed to compile the native part'
  if (name === undefined) stop(`no C++ compiler was found (tried ${candidates.join(', ')}); ${floors}`, install[process.platform] ?? '')
  const clang = /clang version (\d+)/.exec(text)
  const version = Number(clang?.[1] ?? /\b(\d+)\.\d+(?:\.\d+)?/.exec(text)?.[1])
  const floor = clang ? compilerFloors.clang : compilerFloors.gcc
  if (version < floor) stop(`${name} is ${clang ? 'clang' : 'g++'} ${version}; ${floors} (CXX=<compiler> chooses one)`)
}

function cmakeJs() {
  try {
    const require = createRequire(import.meta.url)
    return path.join(path.dirname(require.resolve('cmake-js/package.json')), 'bin', 'cmake-js')
  } catch {
    return undefined
  }
}

const realPath = place => {
  try {
    return realpathSync(place)
  } catch {
    return place
  }
}

/**
 * Removes a build folder that was configured at another place: the clone was moved or copied. CMake's cache and its build
 * files hold absolute paths, so that nothing in the folder can be used, and CMake would stop, or build in the old place.
 */
function removeStale(folder) {
  const file = path.join(folder, 'CMakeCache.txt')
  if (!existsSync(file)) return
  const cache = readFileSync(file, 'utf8')
  const madeFor = [[/^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m, root], [/^CMAKE_CACHEFILE_DIR:INTERNAL=(.*)$/m, folder]]
  const [found] = madeFor.map(([name, here]) => [name.exec(cache)?.[1].trim(), here])
    .filter(([made, here]) => made !== undefined && path.relative(realPath(made), realPath(here)) !== '')
  if (found === undefined) return
  console.log(`polylm: ${path.relative(root, folder)} was configured in ${found[0]}, and this is ${found[1]}: it is built anew`)
  try {
    rmSync(folder, { recursive: true })
  } catch (e) {
    stop(`${folder} cannot be removed (${e.code}): remove it, then build again`)
  }
}

/** The -D options of the environment that the existing configuration does not have yet. */
function changedOptions(folder, definitions) {
  const file = path.join(folder, 'CMakeCache.txt')
  if (!existsSync(file)) return undefined
  const cache = new Map([...readFileSync(file, 'utf8').matchAll(/^([A-Za-z0-9_]+):[A-Z]+=(.*)$/gm)].map(m => [m[1], m[2]]))
  // A configuration that was interrupted has a cache but no build files.
  const whole = existsSync(path.join(folder, 'build.ninja')) || existsSync(path.join(folder, 'Makefile')) ||
    existsSync(path.join(folder, 'polylm.sln'))
  return whole ? definitions.filter(([name, value]) => cache.get(name) !== value) : undefined
}

function commands({ folder, arch, config, jobs, definitions, away }) {
  const configured = changedOptions(folder, definitions)
  const windows = process.platform === 'win32'
  const tool = away || windows ? undefined : cmakeJs()
  const build = ['cmake', ['--build', folder, '--config', config, '--parallel', String(jobs)]]
  if (configured?.length === 0) return [build]
  if (tool !== undefined) {
    return [[process.execPath, [tool, 'configure', '-l', 'warn', '-d', root, '-O', folder, '-B', config, '-a', arch,
      ...definitions.map(([name, value]) => `--CD${name}=${value}`)]], build]
  }
  return [['cmake', [...(windows ? ['-G', 'Ninja'] : []), '-S', root, '-B', folder, `-DCMAKE_BUILD_TYPE=${config}`, `-DNODE_ARCH=${arch}`,
    ...definitions.map(([name, value]) => `-D${name}=${value}`)]], build]
}

function run(steps) {
  const env = { ...process.env }
  for (const name of Object.keys(env)) {
    if (/^MAKE(FLAGS|LEVEL|FILES)$|^MFLAGS$/.test(name)) delete env[name]    // node-gyp's make job server is not ours
  }
  for (const [command, args] of steps) {
    const { status, error } = spawnSync(command, args, { stdio: 'inherit', env, cwd: root })
    if (error) throw error
    if (status !== 0) stop(`the native build failed (${path.basename(command)} ended with status ${status})`)
  }
}

/** Through a new file and a rename: a process that runs the old one keeps it. */
function copyIfChanged(file, to) {
  if (existsSync(to) && readFileSync(file).equals(readFileSync(to))) return
  mkdirSync(path.dirname(to), { recursive: true })
  const temporary = `${to}.${process.pid}.tmp`
  copyFileSync(file, temporary)
  renameSync(temporary, to)
  console.log(`polylm: wrote ${path.relative(root, to)}`)
}

const options = readArguments(process.argv.slice(2))
if (options.help) {
  console.log('compiles the native part of polylm: polylm-build [--arch=x64] [--config=Release] [--copy-to=build/Release]' +
    `\n  --target=<${[...targets.keys()].join('|')}>  for another system, with cmake/toolchains/<target>.cmake`)
  process.exit(0)
}
const target = options.target ?? `${process.platform}-${options.arch ?? process.env.npm_config_arch ?? process.arch}`
const away = target !== host && options.target !== undefined
const toolchain = path.join(root, 'cmake/toolchains', `${target}.cmake`)
if (away && !existsSync(toolchain)) stop(`${target} cannot be built on ${host}: there is no ${toolchain}`)
checkCmake()
if (!away) checkCompiler()
const arch = target.split('-')[1]
const config = options.config ?? 'Release'
const folder = path.join(root, 'build-cmake', options.folder ?? `${target}-${config}`)
const jobs = process.env.POLYLM_JOBS ?? availableParallelism()
const definitions = Object.entries(process.env)
  .filter(([name]) => name.startsWith('POLYLM_CMAKE_')).map(([name, value]) => [name.slice('POLYLM_CMAKE_'.length), value])
if (away) definitions.push(['CMAKE_TOOLCHAIN_FILE', toolchain])
removeStale(folder)
run(commands({ folder, arch, config, jobs, definitions, away }))
const built = [path.join(folder, config, 'polylm.node'), path.join(folder, 'polylm.node')].find(existsSync)
if (built === undefined) stop('the build ended without polylm.node (was it configured with POLYLM_ADDON=OFF?)')
copyIfChanged(built, path.resolve(root, options['copy-to'] ?? path.join('build', config), 'polylm.node'))
