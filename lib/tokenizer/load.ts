// load.ts: the tokenizer files of a checkpoint directory to a tokenizer of the core. What
// tokenizer_config.json asks for and is not implemented is refused, never ignored.

import path from 'node:path'
import { stat } from 'node:fs/promises'

import { PolyLMError } from '../errors.js'
import { fromCore, loadNative } from '../native.js'
import type { Compat } from '../options.js'
import {
  isJsonObject, readJsonFile, type JsonObject, type JsonValue,
} from '../checkpoint/json.js'
import { Slicer } from '../checkpoint/slicer.js'
import { describe, quote, quotePath } from '../checkpoint/text.js'
import type { NativeTables, NativeTokenizer, NativeTokenizers } from './native-tokenizer.js'
import { readSentencePieceModel, type SentencePieceModel } from './sentencepiece-model.js'
import {
  addedTokenRows, namedContents, namedTokens, type AddedTokenRow, type NamedTokens, type Role,
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
}

/**
 * Reads the tokenizer of `dir`.
 *
 * @throws PolyLMError TOKENIZER_MISSING, FILE_*, JSON_*, PROTO_FORMAT, TOKENIZER_*, LIMIT; or the
 * signal's reason.
 */
export async function loadTokenizerFiles(dir: string, load: TokenizerLoad): Promise<LoadedFiles> {
  const { signal } = load
  await checkPresent(dir)
  const files: TokenizerFiles = {
    config: await optionalObject(dir, 'tokenizer_config.json', signal),
    specialTokensMap: await optionalObject(dir, 'special_tokens_map.json', signal),
    addedTokens: await optionalObject(dir, 'added_tokens.json', signal),
  }
  const config = readConfig(files.config)
  const modern = load.compat !== 'hf-4.31'
  const named = namedTokens(files, modern)
  const model = await readSentencePieceModel(path.join(dir, 'tokenizer.model'), signal)
  const idOf = await findPieces(model, namedContents(named), signal)
  const added = addedTokenRows(named, modern, idOf)
  checkAgainstModel(model, added, load.modelVocabSize)
  const roles = roleIds(named, added)
  const id = (role: Role): number => roles.get(role)?.id ?? -1
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
  return { native, roles, special: special.map(bare), added: added.map(bare) }
}

const bare = ({ id, content }: SpecialToken): SpecialToken => ({ id, content })

const modelFile = 'tokenizer.model'

async function checkPresent(dir: string): Promise<void> {
  if (!(await exists(dir))) {
    throw new PolyLMError('FILE_NOT_FOUND', `${quotePath(dir)} does not exist`, {
      file: dir,
      hint: `give the directory that holds ${modelFile}`,
    })
  }
  if (await exists(path.join(dir, modelFile))) return
  if (await exists(path.join(dir, 'tokenizer.json'))) {
    throw new PolyLMError(
      'TOKENIZER_UNSUPPORTED',
      `${quotePath(dir)} has a tokenizer.json but no ${modelFile}; only the latter is supported`,
      { file: path.join(dir, 'tokenizer.json') },
    )
  }
  throw new PolyLMError('TOKENIZER_MISSING', `${quotePath(dir)} has no ${modelFile}`, {
    file: path.join(dir, modelFile),
    hint: 'looked for tokenizer.model (with tokenizer_config.json, special_tokens_map.json and ' +
      'added_tokens.json beside it); download it, or use token ids',
  })
}

async function exists(file: string): Promise<boolean> {
  return await stat(file).then(() => true, () => false)
}

async function optionalObject(
  dir: string, name: string, signal: AbortSignal | undefined,
): Promise<JsonObject | null> {
  const file = path.join(dir, name)
  if (!(await exists(file))) return null
  const value = await readJsonFile(file, { maxBytes: maxTokenizerJsonBytes, signal })
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

function readConfig(config: JsonObject | null): Config {
  const name = config?.get('tokenizer_class') ?? 'LlamaTokenizer'
  if (typeof name !== 'string' || !tokenizerClasses.has(name)) {
    throw unsupported(`tokenizer_class ${describe(name)}`, 'LlamaTokenizer')
  }
  const kwargs = config?.get('sp_model_kwargs')
  if (isJsonObject(kwargs) && kwargs.size > 0) {
    const keys = [...kwargs.keys()].map(key => quote(key)).join(', ')
    throw unsupported(`sp_model_kwargs with ${keys}`, '{}')
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
  if (typeof value === 'boolean') return value
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

function checkAgainstModel(
  model: SentencePieceModel, added: readonly AddedTokenRow[], vocabSize: number | undefined,
): void {
  if (vocabSize === undefined) return
  if (model.types.length > vocabSize) {
    throw new PolyLMError(
      'TOKENIZER_CONFLICT',
      `the tokenizer has ${model.types.length} pieces, the model only ${vocabSize} tokens`,
      { hint: 'tokenizer.model and config.json belong to different models' },
    )
  }
  const beyond = added.find(token => token.id >= vocabSize)
  if (beyond === undefined) return
  throw new PolyLMError(
    'TOKENIZER_RANGE',
    `the added token ${quote(beyond.content)} has id ${beyond.id}, ` +
      `the model only ${vocabSize} tokens`,
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
