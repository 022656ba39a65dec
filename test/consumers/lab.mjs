// What the cells of the consumer matrix share: the tarball, tools from npm at fixed versions, project folders, and
// programs run in an environment of their own. Not here: what is tried (cells.mjs), the table (scripts/consumers.mjs).
// Trap: `npm run` sets npm_* variables that would reach every child; only the registry and the cache pass.
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, copyFileSync, cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { host, targets } from '../../scripts/targets.mjs'

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..')
export const lab = path.join(root, 'build-cmake/consumers')
const programs = path.join(root, 'test/consumers/programs')
export const translation = '北京是中国的首都。'

/** A cell that cannot run here; its message is the reason that the table shows. */
export class NotRun extends Error {}

function npmSetting(name) {
  return execFileSync('npm', ['config', 'get', name], { encoding: 'utf8', cwd: root, stdio: ['ignore', 'pipe', 'ignore'] }).trim()
}

let settings
/** The environment of a child: nothing of npm's but registry and cache, an empty home, a temporary folder of its own. */
export function environment(extra = {}) {
  settings ??= { registry: npmSetting('registry'), cache: npmSetting('cache') }
  const kept = Object.entries(process.env).filter(([name]) => !/^npm_|^(POLYLM_|PREBUILDS_ONLY|NODE_OPTIONS|INIT_CWD)/i.test(name))
  const home = path.join(lab, 'home')
  mkdirSync(path.join(home, 'tmp'), { recursive: true })
  return {
    ...Object.fromEntries(kept), HOME: home, USERPROFILE: home, TMPDIR: path.join(home, 'tmp'), CI: 'true', NO_COLOR: '1',
    NPM_CONFIG_REGISTRY: settings.registry, NPM_CONFIG_CACHE: settings.cache, NPM_CONFIG_UPDATE_NOTIFIER: 'false',
    NPM_CONFIG_FUND: 'false', NPM_CONFIG_AUDIT: 'false', YARN_NPM_REGISTRY_SERVER: settings.registry, YARN_REGISTRY: settings.registry,
    YARN_ENABLE_TELEMETRY: '0', NEXT_TELEMETRY_DISABLED: '1', ...extra,
  }
}

/** Runs a program to its end; throws with what it printed unless it ends with `status` 0. */
export function run(command, args, { cwd, env, timeout = 300_000, input } = {}) {
  const child = spawnSync(command, args, { cwd, env: environment(env), encoding: 'utf8', timeout, input, maxBuffer: 1 << 28 })
  if (child.error) throw child.error
  if (child.status !== 0) {
    const said = `${child.stdout}\n${child.stderr}`.trim().split('\n').slice(-80).join('\n')
    if (/\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH)\b/.test(said)) throw new NotRun('the package registry cannot be reached')
    throw new Error(`${path.basename(command)} ${args.join(' ')} ended with ${child.status ?? child.signal}:\n${said}`)
  }
  return child.stdout
}

/** The folder of a package from npm, installed once for all runs. Nothing of it is executed while installing. */
export function tool(name, version) {
  const folder = path.join(lab, 'tools', `${name.replace('/', '+')}-${version}`)
  const home = path.join(folder, 'node_modules', name)
  if (!existsSync(path.join(home, 'package.json'))) {
    mkdirSync(folder, { recursive: true })
    writeFileSync(path.join(folder, 'package.json'), '{"private":true}')
    const quiet = ['--ignore-scripts', '--no-package-lock', '--prefer-offline', '--loglevel=error']
    run('npm', ['install', '--force', ...quiet, `${name}@${version}`], { cwd: folder })   // forced: also for other platforms
  }
  return home
}

/** A Node of another version or platform. */
export function nodeOf(version, platform = host) {
  if (platform === host && version === process.versions.node) return process.execPath
  const [system, arch] = platform.split('-')
  const name = `node-${system === 'win32' ? 'win' : system}-${arch}`
  return path.join(tool(name, version), 'bin', system === 'win32' ? 'node.exe' : 'node')
}

/** npm of another version, as the arguments of a Node. */
export const npmOf = version => path.join(tool('npm', version), 'bin/npm-cli.js')

/** Where a program is, or NotRun. */
export function need(program, why) {
  const found = (process.env.PATH ?? '').split(path.delimiter).map(folder => path.join(folder, program))
    .concat(program === 'wine64' ? ['/usr/lib/wine/wine64'] : []).find(existsSync)
  if (found === undefined) throw new NotRun(`${program} is not installed (${why})`)
  return found
}

/**
 * Packs what would be published. Where prebuilds/ has no binary for this system, the one of build/Release takes its
 * place, so that the fast part needs no release build; what is packed is listed by test/e2e/package.test.ts.
 */
export function packTarball() {
  const folder = path.join(lab, 'package')
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  const pack = cwd => JSON.parse(run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], { cwd }))[0].filename
  const first = path.join(folder, pack(root))
  run('tar', ['xzf', first, '-C', folder])
  const unpacked = path.join(folder, 'package')
  const binary = path.join(unpacked, 'prebuilds', host, targets.get(host)?.file ?? 'node.napi.node')
  const standsIn = !existsSync(binary)
  if (standsIn) {
    const built = path.join(root, 'build/Release/polylm.node')
    if (!existsSync(built)) throw new Error('there is no binary: npm run prebuilds, or npm run build, comes first')
    mkdirSync(path.dirname(binary), { recursive: true })
    copyFileSync(built, binary)
    run('strip', process.platform === 'darwin' ? ['-x', binary] : [binary])
    rmSync(first)
    pack(unpacked)
  }
  return { tarball: first, standsIn, bytes: statSync(first).size, unpackedBytes: sizeOf(unpacked) }
}

/** Bytes of everything in a folder, links not followed. */
export function sizeOf(folder) {
  return readdirSync(folder, { withFileTypes: true, recursive: true }).filter(entry => entry.isFile())
    .reduce((sum, entry) => sum + statSync(path.join(entry.parentPath ?? entry.path, entry.name)).size, 0)
}

/** An empty project with the programs of test/consumers/programs. */
export function project(name, manifest = {}) {
  const folder = path.join(lab, 'projects', name)
  if (existsSync(folder)) makeWritable(folder)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  writeFileSync(path.join(folder, 'package.json'), JSON.stringify({ name: 'consumer', version: '1.0.0', private: true, ...manifest }, null, 2))
  cpSync(programs, folder, { recursive: true })
  return folder
}

/** Installs the tarball with the npm of this machine. */
export function install(folder, tarball, ...more) {
  const started = performance.now()
  run('npm', ['install', '--ignore-scripts', '--prefer-offline', '--loglevel=error', tarball, ...more], { cwd: folder })
  return performance.now() - started
}

export function makeReadOnly(folder) { changeModes(folder, 0o555, 0o444) }
export function makeWritable(folder) { changeModes(folder, 0o755, 0o644) }

function changeModes(folder, ofFolder, ofFile) {
  chmodSync(folder, 0o755)
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const at = path.join(folder, entry.name)
    if (entry.isDirectory()) changeModes(at, ofFolder, ofFile)
    else if (entry.isFile()) chmodSync(at, ofFile)
  }
  chmodSync(folder, ofFolder)
}

/** A PATH with these programs and nothing else: no compiler, no CMake, no nvcc. */
export function pathWithOnly(...files) {
  const folder = path.join(lab, 'bin')
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { recursive: true })
  for (const file of files) symlinkSync(file, path.join(folder, path.basename(file)))
  return folder
}

/** Throws unless a program's output ends with the translation. */
export function expectTranslation(output) {
  if (output.trim() !== translation) throw new Error(`expected ${translation}, got:\n${output}`)
}

export const readJson = file => JSON.parse(readFileSync(file, 'utf8'))
