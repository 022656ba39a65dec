// binary.ts: the places where the addon may be, what is in each, and the error that says so when none serves.
// Not here: loading it (native.ts). Trap: the list follows node-gyp-build's own order; a test compares the two.
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { PolyLMError } from './errors.js'
import { deniedPath, hasPermissionModel, isAddonDenied, isDenied } from './permission.js'

/** A folder that is searched for the addon. */
export interface BinaryPlace {
  readonly folder: string
  /** Names of the addons in it; undefined when there is no such folder. */
  readonly files: readonly string[] | undefined
  /** Node's permission model forbids to look. */
  readonly denied?: true
}

const platform = `${process.platform}-${process.arch}`

/** The folders that are searched, the first first. */
export function binaryPlaces(root: string): BinaryPlace[] {
  const { POLYLM_PREBUILD: moved, PREBUILDS_ONLY: prebuildsOnly } = process.env
  const top = moved === undefined || moved === '' ? root : moved
  const built = prebuildsOnly ? [] : [path.join(top, 'build', 'Release'), path.join(top, 'build', 'Debug')]
  const prebuilt = [top, path.dirname(process.execPath)].map(folder => path.join(folder, 'prebuilds', platform))
  return [...built, ...prebuilt].map(placeOf)
}

function placeOf(folder: string): BinaryPlace {
  try {
    return { folder, files: readdirSync(folder).filter(name => /\.node$/.test(name)) }
  } catch (e) {
    return { folder, files: undefined, ...(isDenied(e) ? { denied: true } : {}) }
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

/** A place and what was found there, as one line. */
export function describePlace({ folder, files, denied }: BinaryPlace): string {
  const found = denied === true ? 'may not be read'
    : files === undefined ? 'no such folder' : files.length === 0 ? 'no addon' : files.join(', ')
  return `${folder}: ${found}`
}

/** The platform with what its binaries differ by beside system and processor. */
export function platformName(): string {
  if (process.platform !== 'linux') return platform
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined
  const glibc = report?.header?.glibcVersionRuntime
  return `${platform} with ${glibc === undefined ? 'musl' : `glibc ${glibc}`}`
}

/** True when the files beside this code are not the package's: a bundler has copied the code elsewhere. */
function isBundled(root: string): boolean {
  try {
    return (JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { name?: unknown }).name !== 'polylm'
  } catch {
    return true
  }
}

function hintFor(root: string, cause: unknown, places: readonly BinaryPlace[]): string {
  if (hasPermissionModel() && (isAddonDenied(cause) || isDenied(cause) || places.some(({ denied }) => denied))) {
    // Finding the binary also asks which C library this is.
    const other = deniedPath(cause)
    const more = other === undefined || other.startsWith(root) ? '' : ` --allow-fs-read=${other}`
    return `Node's permission model is on: start it with --allow-addons --allow-fs-read=${root}/*${more} (or ` +
      '--allow-fs-read=*), and let it read the model\'s directory too'
  }
  if (isAddonDenied(cause)) return 'start Node without --no-addons (look into NODE_OPTIONS too)'
  if (isBundled(root)) {
    return 'polylm was bundled, away from its native binary: leave it out of the bundle (esbuild --external:polylm, ' +
      'externals of webpack, serverExternalPackages of Next.js) and install it where the program runs'
  }
  const others = namesIn(path.join(root, 'prebuilds')).filter(name => name !== platform)
  const about = others.length === 0 ? '' : `; this package has binaries for ${others.join(', ')}`
  return `run \`npx polylm-build\` to compile it here (needs CMake 3.21 and g++ 12, clang 14 or newer)${about}`
}

/** NO_BINARY: what was looked for, what was found, what to do. `cause` is what the attempt to load threw. */
export function noBinary(root: string, cause: unknown, reason: string): PolyLMError {
  const places = binaryPlaces(root)
  const found = places.flatMap(({ folder, files }) => (files ?? []).map(file => path.join(folder, file)))
  // The second is what a bundle gets that took node-gyp-build's caller away from it.
  const missing = /^(No native build was found|Cannot find module 'node-gyp-build')/.test(reason)
  const what = missing
    ? `there is no native binary of polylm for ${platformName()}, Node ${process.versions.node}`
    : `the native binary of polylm for ${platformName()} cannot be loaded: ${reason.trim()}`
  const message = [`${what}; looked in`, ...places.map(describePlace)].join('\n  ')
  return new PolyLMError('NO_BINARY', message, {
    platform, tried: places.map(({ folder }) => folder), found, cause, hint: hintFor(root, cause, places),
  })
}

/** The first line of a NO_BINARY message, without the list of places. */
export function withoutPlaces(message: string): string {
  return (message.split('\n', 1)[0] ?? '').replace(/; looked in$/, '')
}
