// model-directory.ts: the path that a user gave for a model: is it a directory, and when the model is
// not there, where it is instead. It looks at names only, at a bounded number of them, and never
// changes which directory is opened: it finds words for the error.

import { lstat, open, readdir, readFile, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'

import { PolyLMError } from '../errors.js'
import { permissionHint } from '../permission.js'
import { isThere } from './file.js'
import { quote, quotePath } from './text.js'

const configName = 'config.json'
// Names of a directory that are looked at, and how many are shown.
const maxNames = 256
const shownNames = 3

const noGguf = 'GGUF files of llama.cpp are not read: give the original checkpoint, with config.json'
const needsDirectory = 'give the directory that holds config.json and the weights'

/**
 * The absolute path of a model directory.
 *
 * @throws PolyLMError FILE_NOT_FOUND or FILE_IO, with a hint where the model may be.
 */
export async function checkModelDirectory(given: string): Promise<string> {
  const root = resolve(given)
  const found = await stat(root).catch(async (e: unknown) => {
    const text = `the model directory ${quotePath(root)} does not exist or cannot be read`
    throw new PolyLMError('FILE_NOT_FOUND', text, {
      file: root,
      cause: e,
      hint: permissionHint(e, root) ?? await missingHint(given, root),
    })
  })
  if (found.isDirectory()) return root
  throw new PolyLMError('FILE_IO', `${quotePath(root)} is not a directory`, {
    file: root,
    hint: await fileHint(root),
  })
}

/** The error for a directory without config.json. */
export async function missingConfig(root: string): Promise<PolyLMError> {
  const path = join(root, configName)
  return new PolyLMError('FILE_NOT_FOUND', `${quotePath(path)} does not exist`, {
    file: path,
    hint: (await elsewhere(root, configName)) ?? (await contentHint(root)),
  })
}

/** Where a directory of a model may be that holds `name`, seen from `root`; undefined: not known. */
export async function elsewhere(root: string, name: string): Promise<string | undefined> {
  const cached = await snapshotOf(root, name)
  if (cached !== undefined) {
    return `it is a cache folder of Hugging Face; the model is in ${quotePath(cached)}`
  }
  const names = await namesIn(root)
  if (names.includes('snapshots') && names.includes('refs')) {
    return 'it is a cache folder of Hugging Face without a complete snapshot: download the model again'
  }
  const below: string[] = []
  for (const child of names) {
    const path = join(root, child)
    const found = (await isThere(join(path, name))) ? path : await snapshotOf(path, name)
    if (found !== undefined) below.push(found)
  }
  if (below.length === 1) return `the model is in ${quotePath(below[0] ?? '')}`
  if (below.length > 1) {
    const shown = below.slice(0, shownNames).map(path => quotePath(path))
    const more = below.length > shownNames ? `, and ${below.length - shownNames} more` : ''
    return `give one of the models in it: ${shown.join(', ')}${more}`
  }
  const parent = dirname(root)
  if (await isThere(join(parent, name))) return `the model is in ${quotePath(parent)}`
  const around = await snapshotOf(parent, name)
  return around === undefined ? undefined : `the model is in ${quotePath(around)}`
}

/** Model files of other tools among the names of a directory, and what to do; undefined: none. */
export async function foreignWeights(root: string): Promise<string | undefined> {
  const names = await namesIn(root)
  const ending = (pattern: RegExp): string | undefined => names.find(name => pattern.test(name))
  if (names.length === 0) return 'the directory is empty'
  if (ending(/^adapter_(?:config\.json|model\.)/) !== undefined) {
    return 'it is an adapter (PEFT, LoRA): merge it into its base model and give that directory'
  }
  if (ending(/\.gguf$/i) !== undefined) return noGguf
  const other = ending(/^(?:tf_model\.h5|flax_model.*\.msgpack|rust_model\.ot|.*\.onnx|consolidated.*)$/)
  if (other !== undefined) return `${quote(other)} is of another format: download the PyTorch files`
  const renamed = ending(/\.(?:safetensors|bin|pth|pt)$/)
  if (renamed === undefined) return undefined
  const wanted = renamed.endsWith('.safetensors') ? 'model.safetensors' : 'pytorch_model.bin'
  return `if ${quote(renamed)} holds all weights, rename it to ${wanted}`
}

async function contentHint(root: string): Promise<string> {
  const foreign = await foreignWeights(root)
  if (foreign?.startsWith('if ') === false) return foreign
  return `${configName} is missing: download the model again, with all its files`
}

// The snapshot of a Hugging Face cache folder (models--org--name) that holds `name`: that of the
// main branch, or any.
async function snapshotOf(root: string, name: string): Promise<string | undefined> {
  const snapshots = join(root, 'snapshots')
  const revisions = await namesIn(snapshots)
  if (revisions.length === 0) return undefined
  const main = (await readFile(join(root, 'refs', 'main'), 'utf8').catch(() => '')).trim()
  for (const revision of revisions.includes(main) ? [main, ...revisions] : revisions) {
    const path = join(snapshots, revision)
    if (await isThere(join(path, name))) return path
  }
  return undefined
}

async function namesIn(dir: string): Promise<readonly string[]> {
  return (await readdir(dir).catch(() => [])).slice(0, maxNames)
}

async function fileHint(path: string): Promise<string> {
  if (await isGguf(path)) return noGguf
  const parent = dirname(path)
  if (await isThere(join(parent, configName))) return `give its directory: ${quotePath(parent)}`
  if (/\.(?:zip|tar|tgz|gz|xz|7z)$/i.test(path)) return `unpack it, then ${needsDirectory}`
  return needsDirectory
}

async function isGguf(path: string): Promise<boolean> {
  if (/\.gguf$/i.test(path)) return true
  // Only what lstat calls a file is opened: reading a pipe would wait for its writer.
  if (!(await lstat(path)).isFile()) return false
  const file = await open(path).catch(() => undefined)
  if (file === undefined) return false
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, 0)
    return buffer.toString('latin1', 0, bytesRead) === 'GGUF'
  } catch {
    return false
  } finally {
    await file.close()
  }
}

async function missingHint(given: string, root: string): Promise<string | undefined> {
  if (given.startsWith('~')) {
    return `only shells replace '~': the home directory is ${quotePath(homedir())}`
  }
  if (/^file:/i.test(given)) return 'give the path alone, without file:'
  const name = hubName(given)
  if (name !== undefined) return await hubHint(name)
  const parent = dirname(root)
  const found = await elsewhere(parent, configName)
  return found ?? ((await isThere(parent)) ? undefined : `${quotePath(parent)} does not exist either`)
}

// `org/name` of a hub, out of itself, `hf:org/name@revision`, or a web address.
function hubName(given: string): string | undefined {
  const address = /^https?:\/\/[^/]+\/(?:models\/)?/i
  const bare = given.replace(address, '').replace(/^[a-z]+:/i, '').replace(/@[\w.-]+$/, '')
  const [name] = /^\w[\w.-]*\/\w[\w.-]*/.exec(bare) ?? []
  if (name === undefined) return undefined
  return address.test(given) || name === bare ? name : undefined
}

async function hubHint(name: string): Promise<string> {
  const { env } = process
  const home = env['HF_HOME'] ?? join(env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'huggingface')
  const cache = env['HF_HUB_CACHE'] ?? env['HUGGINGFACE_HUB_CACHE'] ?? join(home, 'hub')
  const cached = await snapshotOf(join(cache, `models--${name.replace('/', '--')}`), configName)
  if (cached !== undefined) return `the model is in Hugging Face's cache: ${quotePath(cached)}`
  return (
    'a model is a directory on this machine; names of models on a hub are not downloaded: ' +
    `hf download ${name} --local-dir ${basename(name)}`
  )
}
