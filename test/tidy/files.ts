// files.ts: the files that the tidy test reads: what belongs to the project, found by folder, without git.
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'

export const root = path.resolve(__dirname, '../..')

const folders = ['csrc', 'lib', 'test', 'scripts', 'cmake', 'demo', 'benchmarks', '.ci']
const notOurs = /(^|\/)(node_modules|fixtures|__pycache__|golden\/data)(\/|$)/
const text = /\.(h|cc|cu|def|map|ts|mjs|cjs|js|json|py|cmake|md|txt|tsv|sh)$|(^|\/)(run|LICENSE|CMakeLists\.txt|binding\.gyp)$/

/** One source file. */
export interface Source {
  /** Relative to the root, with forward slashes. */
  readonly name: string
  readonly text: string
  readonly lines: readonly string[]
}

function walk(folder: string): string[] {
  let entries
  try {
    entries = readdirSync(path.join(root, folder), { withFileTypes: true })
  } catch {
    return []
  }
  return entries.flatMap(entry => {
    const name = `${folder}/${entry.name}`
    if (notOurs.test(name)) return []
    return entry.isDirectory() ? walk(name) : [name]
  })
}

function read(name: string): Source {
  const content = readFileSync(path.join(root, name), 'utf8')
  return { name, text: content, lines: content.replace(/\n$/, '').split('\n') }
}

/** Every text file of the project except lock file and fixtures. */
export const sources: readonly Source[] = [
  ...readdirSync(root, { withFileTypes: true })
    .filter(entry => entry.isFile() && entry.name !== 'package-lock.json').map(entry => entry.name),
  ...folders.flatMap(walk),
].filter(name => text.test(name)).sort().map(read)

/** The files below a folder whose names end in one of the given extensions. */
export function under(folder: string, ...extensions: string[]): Source[] {
  return sources.filter(({ name }) => name.startsWith(`${folder}/`) && extensions.some(end => name.endsWith(end)))
}

/** A file made up by a test of the checks themselves. */
export function pretend(name: string, content: string): Source {
  return { name, text: content, lines: content.replace(/\n$/, '').split('\n') }
}
