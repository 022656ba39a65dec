// load.ts: the tokenizer files of a checkpoint directory to a tokenizer of the core. What
// tokenizer_config.json asks for and is not implemented is refused, never ignored.

import path from 'node:path'

import { PolyLMError } from '../errors.js'
import { fromCore, loadNative } from '../native.js'
import type { Compat } from '../options.js'
import { isThere } from '../checkpoint/file.js'
import {
  isJsonObject, readJsonFile, type JsonObject, type JsonValue,
} from '../checkpoint/json.js'
import { toBoolean } from '../checkpoint/json-number.js'
import { checkModelDirectory, elsewhere } from '../checkpoint/model-directory.js'
import { Slicer } from '../checkpoint/slicer.js'
import { describe, quote, quotePath } from '../checkpoint/text.js'
import type { NativeTables, NativeTokenizer, NativeTokenizers } from './native-tokenizer.js'
import { readSentencePieceModel, type SentencePieceModel } from './sentencepiece-model.js'
import {
  addedTokenRows, namedContents, namedTokens, shown, type AddedTokenRow, type NamedTokens, type Role,
  type TokenizerFiles,
} from './special-tokens.js'

/** Larger JSON files beside tokenizer.model are refused. */
export const maxTokenizerJsonBytes = 16 * 1024 * 1024

/** How to load a tokenizer. */
export interface TokenizerLoad {
  readonly compat: Compat | 'hf-4.36'
  /** Undefined: the key of tokenizer_config.json, else false. */
  readonly legacy: boolean | undefined
  /** Vocabulary of the model beside it; undefined: not known. */
  readonly modelVocabSize?: number | undefined
  readonly signal?: AbortSignal | undefined
}

/** A special token. */
export interface SpecialToken {
  readonly id: number
  readonly content: string
}

/** A tokenizer of the core and what the files say about it. */
export interface LoadedFiles {
  readonly native: NativeTokenizer
  readonly roles: ReadonlyMap<Role, SpecialToken>
  readonly special: readonly SpecialToken[]
  /** All tokens that are cut out of a text first, special or not. */
  readonly added: readonly SpecialToken[]
  /** What the files say and nothing depends on. */
  readonly warnings: readonly string[]
}

/**
 * Reads the tokenizer of `dir`.
 *
 * @throws PolyLMError TOKENIZER_MISSING, FILE_*, JSON_*, PROTO_FORMAT, TOKENIZER_*, LIMIT; or the
 * signal's reason.
 */
export async function loadTokenizerFiles(dir: string, load: TokenizerLoad): Promise<LoadedFiles> {
  const { signal } = load
  const root = await checkPresent(dir)
  const warnings: string[] = []
  const read = async (name: string): Promise<JsonObject | null> =>
    await optionalObject(root, name, warnings, signal)
  const files: TokenizerFiles = {
    config: await read('tokenizer_config.json'),
    specialTokensMap: await read('special_tokens_map.json'),
    addedTokens: await read('added_tokens.json'),
  }
  const config = readConfig(files.config, warnings)
  const modern = load.compat !== 'hf-4.31'
  const named = namedTokens(files, modern)
  const model = await readSentencePieceModel(path.join(root, modelFile), signal)
  const idOf = await findPieces(model, namedContents(named), signal)
  const { rows: added, warnings: odd } = addedTokenRows(named, modern, idOf, model.types.length)
  warnings.push(...named.warnings, ...odd)
  const roles = roleIds(named, added)
  const id = (role: Role): number => roles.get(role)?.id ?? -1
  checkSize(model, load.modelVocabSize)
  warnings.push(...beyondModel(added, load.modelVocabSize))
  if (config.addBos) checkAdded('bos', id('bos'), load.modelVocabSize)
  if (config.addEos) checkAdded('eos', id('eos'), load.modelVocabSize)
  const tables: NativeTables = {
    ...model,
    added,
    unkId: id('unk'),
    bosId: id('bos'),
    eosId: id('eos'),
    padId: id('pad'),
    addBos: config.addBos,
    addEos: config.addEos,
    legacy: load.legacy ?? config.legacy,
    addPrefixSpace: config.addPrefixSpace,
    compat: load.compat,
    idLimit: load.modelVocabSize ?? 0,
  }
  signal?.throwIfAborted()
  const native = await fromCore(() => loadNative<NativeTokenizers>().createTokenizer(tables))
  signal?.throwIfAborted()
  const special = added.filter(token => token.special)
  return { native, roles, special: special.map(bare), added: added.map(bare), warnings }
}

const bare = ({ id, content }: SpecialToken): SpecialToken => ({ id, content })

const modelFile = 'tokenizer.model'

// The absolute path of a directory that holds a tokenizer.
async function checkPresent(dir: string): Promise<string> {
  const root = await checkModelDirectory(dir)
  const file = path.join(root, modelFile)
  if (await isThere(file)) return root
  const hint = await elsewhere(root, modelFile)
  if (hint === undefined && (await isThere(path.join(root, 'tokenizer.json')))) {
    throw new PolyLMError(
      'TOKENIZER_UNSUPPORTED',
      `${quotePath(root)} has a tokenizer.json but no ${modelFile}; only the latter is supported`,
      { file: path.join(root, 'tokenizer.json'), hint: `download ${modelFile} of the model` },
    )
  }
  throw new PolyLMError('TOKENIZER_MISSING', `${quotePath(root)} has no ${modelFile}`, {
    file,
    hint: hint ?? 'looked for tokenizer.model (with tokenizer_config.json, special_tokens_map.json and ' +
      'added_tokens.json beside it); download it, or use token ids',
  })
}

async function optionalObject(
  dir: string, name: string, warnings: string[], signal: AbortSignal | undefined,
): Promise<JsonObject | null> {
  const file = path.join(dir, name)
  if (!(await isThere(file))) return null
  const value = await readJsonFile(file, { maxBytes: maxTokenizerJsonBytes, python: { warnings }, signal })
  if (isJsonObject(value)) return value
  throw malformed(name, value, 'an object', file)
}

interface Config {
  readonly addBos: boolean
  readonly addEos: boolean
  readonly legacy: boolean
  readonly addPrefixSpace: boolean
}

const tokenizerClasses: ReadonlySet<string> = new Set(['LlamaTokenizer', 'LlamaTokenizerFast'])

// Settings of sp_model_kwargs that change nothing while sampling is off.
const idleKwargs: ReadonlySet<string> = new Set(['enable_sampling', 'nbest_size', 'alpha'])

function readConfig(config: JsonObject | null, warnings: string[]): Config {
  const name = config?.get('tokenizer_class') ?? 'LlamaTokenizer'
  if (typeof name !== 'string' || !tokenizerClasses.has(name)) {
    throw unsupported(`tokenizer_class ${describe(name)}`, 'LlamaTokenizer')
  }
  const kwargs = config?.get('sp_model_kwargs')
  if (isJsonObject(kwargs)) {
    const sampling = flag(kwargs, 'enable_sampling', false)
    const keys = [...kwargs.keys()].filter(key => sampling || !idleKwargs.has(key))
    if (keys.length > 0) {
      throw unsupported(`sp_model_kwargs with ${keys.map(key => quote(key)).join(', ')}`, '{}')
    }
  }
  if ((config?.get('auto_map') ?? null) !== null) {
    warnings.push('tokenizer_config.json: auto_map names Python code, which is not run')
  }
  for (const key of ['clean_up_tokenization_spaces', 'split_special_tokens']) {
    if (flag(config, key, false)) throw unsupported(`${key} true`, 'false')
  }
  return {
    addBos: flag(config, 'add_bos_token', true),
    addEos: flag(config, 'add_eos_token', false),
    legacy: flag(config, 'legacy', false),
    addPrefixSpace: flag(config, 'add_prefix_space', true),
  }
}

// Missing and null give LlamaTokenizer's default.
function flag(config: JsonObject | null, key: string, absent: boolean): boolean {
  const value = config?.get(key)
  if (value === undefined || value === null) return absent
  const found = toBoolean(value)
  if (found !== undefined) return found
  throw malformed(`tokenizer_config.json: ${key}`, value, 'true or false')
}

// Ids of the pieces with these texts. Pieces of other lengths are not even looked at.
async function findPieces(
  model: SentencePieceModel, contents: ReadonlySet<string>, signal: AbortSignal | undefined,
): Promise<Map<string, number>> {
  const slicer = new Slicer(signal)
  const { blob, offsets } = model
  const bytes = Buffer.from(blob.buffer, blob.byteOffset, blob.byteLength)
  const wanted = new Map([...contents].map(text => [Buffer.from(text).toString('latin1'), text]))
  const lengths = new Set([...wanted.keys()].map(text => text.length))
  const found = new Map<string, number>()
  for (let id = 0; id + 1 < offsets.length; id++) {
    if (id % 4096 === 0 && slicer.due()) await slicer.pause()
    const start = offsets[id] as number
    const end = offsets[id + 1] as number
    if (!lengths.has(end - start)) continue
    const text = wanted.get(bytes.toString('latin1', start, end))
    if (text !== undefined && !found.has(text)) found.set(text, id)
  }
  return found
}

function checkSize(model: SentencePieceModel, vocabSize: number | undefined): void {
  if (vocabSize === undefined || model.types.length <= vocabSize) return
  throw new PolyLMError(
    'TOKENIZER_CONFLICT',
    `the tokenizer has ${model.types.length} pieces, the model only ${vocabSize} tokens`,
    { hint: 'tokenizer.model and config.json belong to different models' },
  )
}

// Added tokens that the model has no row for: it never generates them.
function beyondModel(added: readonly AddedTokenRow[], vocabSize = Infinity): readonly string[] {
  const beyond = added.filter(token => token.id >= vocabSize)
  if (beyond.length === 0) return []
  return [
    `the added token ${shown(beyond)} is beyond the model's ${vocabSize} tokens: it is never ` +
    'generated, and a prompt that contains it is refused',
  ]
}

// A token that every text gets must be one of the model's.
function checkAdded(role: Role, id: number, vocabSize = Infinity): void {
  if (id < vocabSize) return
  throw new PolyLMError(
    'TOKENIZER_RANGE',
    `add_${role}_token is on, but the ${role} token has id ${id} and the model only ${vocabSize} tokens`,
    { hint: `set add_${role}_token to false in tokenizer_config.json` },
  )
}

function roleIds(named: NamedTokens, added: readonly AddedTokenRow[]): Map<Role, SpecialToken> {
  const byContent = new Map(added.map(token => [token.content, token]))
  const found = new Map<Role, SpecialToken>()
  for (const [role, { content }] of named.roles) {
    const token = byContent.get(content)
    if (token !== undefined) found.set(role, bare(token))
  }
  return found
}

function malformed(what: string, found: JsonValue, expected: string, file?: string): PolyLMError {
  return new PolyLMError(
    'TOKENIZER_FORMAT',
    `${what}: found ${describe(found)}, expected ${expected}`,
    file === undefined ? {} : { file },
  )
}

function unsupported(found: string, expected: string): PolyLMError {
  return new PolyLMError(
    'TOKENIZER_UNSUPPORTED',
    `tokenizer_config.json asks for ${found}, which is not supported; expected ${expected}`,
  )
}
