// special-tokens.ts: which tokens are special or added, with which ids and white space rules, out
// of tokenizer_config.json, special_tokens_map.json and added_tokens.json: the bookkeeping that
// transformers 4.31 and 4.55 do differently. Reads no files and no text.
// Trap: in 4.31 a special token given as a plain string eats the white space on both its sides, one
// given as an object does not.

import { PolyLMError } from '../errors.js'
import {
  isJsonArray, isJsonObject, type JsonObject, type JsonValue,
} from '../checkpoint/json.js'
import { describe, quote } from '../checkpoint/text.js'

/** The JSON files beside tokenizer.model; null where there is none. */
export interface TokenizerFiles {
  readonly config: JsonObject | null
  readonly specialTokensMap: JsonObject | null
  readonly addedTokens: JsonObject | null
}

/** A token as the files name it; `plain` when it is a string, not an object. */
export interface NamedToken {
  readonly content: string
  readonly plain: boolean
  readonly lstrip: boolean
  readonly rstrip: boolean
}

/** An added token as the core takes it. */
export interface AddedTokenRow {
  readonly content: string
  readonly id: number
  readonly special: boolean
  readonly additional: boolean
  readonly lstrip: boolean
  readonly rstrip: boolean
}

/** Attributes that name one special token. */
export const roles = ['bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask'] as const
/** One of {@link roles}. */
export type Role = (typeof roles)[number]

/** All that the files say about tokens, ids still to be found for those in the vocabulary. */
export interface NamedTokens {
  readonly roles: ReadonlyMap<Role, NamedToken>
  /** Roles that no file names and that have LlamaTokenizer's default. */
  readonly defaults: ReadonlySet<Role>
  readonly additional: readonly NamedToken[]
  /** Added tokens with the id that a file gives them. */
  readonly added: readonly AddedNamed[]
  /** Ids that 4.31 would not find, of tokens that are added only if they are special. */
  readonly hints: readonly AddedNamed[]
}

type AddedNamed = NamedToken & { readonly id: number }

const llamaDefaults: ReadonlyMap<Role, string> = new Map([
  ['bos', '<s>'], ['eos', '</s>'], ['unk', '<unk>'],
])

/** The tokens that the files name, by the rules of `modern` (4.34 and later) or of 4.31. */
export function namedTokens(files: TokenizerFiles, modern: boolean): NamedTokens {
  const { config, addedTokens } = files
  const decoder = addedFromDecoder(config?.get('added_tokens_decoder'))
  const inFile = addedFromFile(addedTokens)
  // Later versions read the two other files only where the config lists no added tokens; 4.31 does
  // not know that list.
  const listed = modern && decoder !== undefined
  const map = listed ? null : files.specialTokensMap
  const added = listed ? decoder : inFile
  const found = new Map<Role, NamedToken>()
  const defaults = new Set<Role>()
  for (const role of roles) {
    const key = `${role}_token`
    const token = namedToken(map?.get(key), key) ?? wrapped(role, namedToken(config?.get(key), key))
    if (token !== undefined) {
      found.set(role, (listed && added.find(other => other.content === token.content)) || token)
    } else if (config?.get(key) !== null) {
      useDefault(role, found, defaults)
    }
  }
  const inConfig = tokenList(config?.get('additional_special_tokens'))
  const more = map?.get('additional_special_tokens')
  const additional =
    more === undefined || more === null ? inConfig : mergeLists(inConfig, tokenList(more), modern)
  const hints = modern ? [] : (decoder ?? [])
  return { roles: found, defaults, additional, added: uniqueAdded(added), hints }
}

// LlamaTokenizer makes objects of these four when it is made; special_tokens_map.json comes later.
function wrapped(role: Role, token: NamedToken | undefined): NamedToken | undefined {
  const byClass = role === 'bos' || role === 'eos' || role === 'unk' || role === 'pad'
  return token === undefined || !byClass ? token : { ...token, plain: false }
}

function useDefault(role: Role, found: Map<Role, NamedToken>, defaults: Set<Role>): void {
  const content = llamaDefaults.get(role)
  if (content === undefined) return
  found.set(role, { content, plain: false, lstrip: false, rstrip: false })
  defaults.add(role)
}

// 4.31 replaces the list of the config, later versions append to it.
function mergeLists(
  listed: readonly NamedToken[], more: readonly NamedToken[], modern: boolean,
): readonly NamedToken[] {
  if (!modern) return more
  const known = new Set(listed.map(token => token.content))
  return [...listed, ...more.filter(token => !known.has(token.content))]
}

function tokenList(value: JsonValue | undefined): readonly NamedToken[] {
  if (value === undefined || value === null) return []
  if (!isJsonArray(value)) throw malformed('additional_special_tokens', value, 'an array of tokens')
  return value.map(item => {
    const token = namedToken(item, 'additional_special_tokens')
    if (token === undefined) throw malformed('additional_special_tokens', item, 'a token')
    return token
  })
}

const plainToken = (content: string): NamedToken =>
  ({ content, plain: true, lstrip: false, rstrip: false })

// A token as a string or an object; undefined when missing or null.
function namedToken(value: JsonValue | undefined, key: string): NamedToken | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string') return plainToken(value)
  const content = isJsonObject(value) ? value.get('content') : undefined
  if (!isJsonObject(value) || typeof content !== 'string') {
    throw malformed(key, value, 'a string or an object with content')
  }
  if (flag(value, 'single_word', key)) {
    throw new PolyLMError(
      'TOKENIZER_UNSUPPORTED',
      `${key}: the token ${quote(content)} has single_word true, which is not supported`,
    )
  }
  return {
    content,
    plain: false,
    lstrip: flag(value, 'lstrip', key),
    rstrip: flag(value, 'rstrip', key),
  }
}

function flag(token: JsonObject, name: string, key: string): boolean {
  const value = token.get(name)
  if (value === undefined || value === null) return false
  if (typeof value !== 'boolean') throw malformed(`${key}.${name}`, value, 'true or false')
  return value
}

// added_tokens_decoder of tokenizer_config.json: id to token object. Undefined: no such key.
function addedFromDecoder(value: JsonValue | undefined): readonly AddedNamed[] | undefined {
  if (value === undefined || value === null) return undefined
  if (!isJsonObject(value)) throw malformed('added_tokens_decoder', value, 'an object')
  return [...value].map(([id, item]) => {
    const token = namedToken(item, 'added_tokens_decoder')
    if (token === undefined) throw malformed('added_tokens_decoder', item, 'a token')
    if (!/^(?:0|-?[1-9]\d{0,18})$/.test(id)) throw malformed('added_tokens_decoder', id, 'an id')
    return { ...token, id: checkedId(Number(id), token.content) }
  })
}

function addedFromFile(file: JsonObject | null): readonly AddedNamed[] {
  return [...(file ?? [])].map(([content, id]) => {
    if (typeof id !== 'number' && typeof id !== 'bigint') {
      throw malformed(`added_tokens.json: the id of ${quote(content)}`, id, 'an integer')
    }
    return { ...plainToken(content), id: checkedId(Number(id), content) }
  })
}

function checkedId(id: number, content: string): number {
  if (id >= 0 && id < 2 ** 31) return id
  throw new PolyLMError(
    'TOKENIZER_RANGE',
    `the added token ${quote(content)} has id ${id}, expected 0 to ${2 ** 31 - 1}`,
  )
}

function uniqueAdded(added: readonly AddedNamed[]): readonly AddedNamed[] {
  const byContent = new Map<string, AddedNamed>()
  for (const token of added) {
    const before = byContent.get(token.content)
    if (before !== undefined) {
      throw new PolyLMError(
        'TOKENIZER_DUPLICATE',
        `the added token ${quote(token.content)} has two ids, ${before.id} and ${token.id}`,
      )
    }
    byContent.set(token.content, token)
  }
  return [...byContent.values()]
}

/** Contents that may be pieces of the vocabulary: {@link addedTokenRows} wants their ids. */
export function namedContents(named: NamedTokens): Set<string> {
  const tokens = [...named.roles.values(), ...named.additional, ...named.added]
  return new Set(tokens.map(token => token.content))
}

/**
 * The rows for the core: every token that is cut out of a text before SentencePiece sees it.
 *
 * @param idOf - id of a piece of the vocabulary
 * @throws PolyLMError TOKENIZER_CONFLICT for a special token that a file names and nothing defines.
 */
export function addedTokenRows(
  named: NamedTokens, modern: boolean, idOf: ReadonlyMap<string, number>,
): AddedTokenRow[] {
  const ids = new Map(idOf)
  for (const token of [...named.hints, ...named.added]) ids.set(token.content, token.id)
  const special = specialTokens(named)
  const additional = new Set(named.additional.map(token => token.content))
  const optional = new Set([...named.defaults].map(role => llamaDefaults.get(role)))
  const rows: AddedTokenRow[] = []
  for (const [content, token] of special) {
    const id = ids.get(content)
    if (id === undefined && optional.has(content)) continue
    if (id === undefined) {
      throw new PolyLMError(
        'TOKENIZER_CONFLICT',
        `the special token ${quote(content)} is neither a piece of the model nor an added token`,
        { hint: 'add it to added_tokens.json with its id, or remove it from the special tokens' },
      )
    }
    const rules = stripRules(token, named.added.find(added => added.content === content), modern)
    rows.push({ content, id, special: true, additional: additional.has(content), ...rules })
  }
  for (const token of named.added) {
    if (special.has(token.content)) continue
    const { content, id } = token
    const rules = stripRules(token, token, modern)
    rows.push({ content, id, special: false, additional: false, ...rules })
  }
  return rows
}

// By content; a token named as an object wins over one named as a string.
function specialTokens(named: NamedTokens): ReadonlyMap<string, NamedToken> {
  const special = new Map<string, NamedToken>()
  for (const token of [...named.roles.values(), ...named.additional]) {
    if (special.get(token.content)?.plain ?? true) special.set(token.content, token)
  }
  return special
}

// 4.31 strips around every token that is no object; later versions take what the added token says.
function stripRules(
  token: NamedToken, added: NamedToken | undefined, modern: boolean,
): { lstrip: boolean; rstrip: boolean } {
  if (!modern && token.plain) return { lstrip: true, rstrip: true }
  const { lstrip, rstrip } = token.plain && added !== undefined ? added : token
  return { lstrip, rstrip }
}

function malformed(what: string, found: JsonValue, expected: string): PolyLMError {
  return new PolyLMError(
    'TOKENIZER_FORMAT',
    `${what}: found ${describe(found)}, expected ${expected}`,
  )
}
