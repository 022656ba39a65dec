// special-tokens.ts: which tokens are special or added, with which ids and white space rules, out
// of tokenizer_config.json, special_tokens_map.json and added_tokens.json: the bookkeeping that
// transformers 4.31 and 4.55 do differently. Reads no files and no text. Tokens that can never occur
// are left out with a warning; where files contradict each other about one that can, they are refused.
// Trap: in 4.31 a special token given as a plain string eats the white space on both its sides, one
// given as an object does not.

import { PolyLMError } from '../errors.js'
import {
  isJsonArray, isJsonObject, type JsonObject, type JsonValue,
} from '../checkpoint/json.js'
import { toInteger } from '../checkpoint/json-number.js'
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
  /** As additional_special_tokens lists them. */
  readonly additional: readonly NamedToken[]
  /** Special tokens by other names, of extra_special_tokens. */
  readonly extra: readonly NamedToken[]
  /** Added tokens with the id that a file gives them. */
  readonly added: readonly AddedNamed[]
  /** Ids that 4.31 would not find, of tokens that are added only if they are special. */
  readonly hints: readonly AddedNamed[]
  /** Contents of added tokens that were left out: no text or no model can contain them. */
  readonly unusable: ReadonlySet<string>
  readonly warnings: readonly string[]
}

/** The core keeps ids below this. */
const maxAddedIds = 2 ** 21

type AddedNamed = NamedToken & { readonly id: number }

const llamaDefaults: ReadonlyMap<Role, string> = new Map([
  ['bos', '<s>'], ['eos', '</s>'], ['unk', '<unk>'],
])

/** The tokens that the files name, by the rules of `modern` (4.34 and later) or of 4.31. */
export function namedTokens(files: TokenizerFiles, modern: boolean): NamedTokens {
  const { config, addedTokens } = files
  const warnings: string[] = []
  const unusable = new Set<string>()
  const usable = (tokens: readonly AddedNamed[]): readonly AddedNamed[] =>
    usableTokens(tokens, unusable, warnings)
  const decoder = addedFromDecoder(config?.get('added_tokens_decoder'))
  // Later versions read the two other files only where the config lists no added tokens; 4.31 does
  // not know that list.
  const listed = modern && decoder !== undefined
  const map = listed ? null : files.specialTokensMap
  const added = usable(listed ? decoder : addedFromFile(addedTokens))
  const found = new Map<Role, NamedToken>()
  for (const role of roles) {
    const key = `${role}_token`
    const inMap = map?.get(key) ?? undefined
    const inConfig = config?.get(key)
    const token = inMap === undefined ? wrapped(role, namedToken(inConfig, key)) : namedToken(inMap, key)
    if (token !== undefined) {
      found.set(role, (listed && added.find(other => other.content === token.content)) || token)
    } else if (inMap === undefined && inConfig === undefined) {
      useDefault(role, found)
    }
  }
  const inConfig = tokenList(config?.get('additional_special_tokens'), 'additional_special_tokens')
  const more = map?.get('additional_special_tokens') ?? undefined
  const additional = more === undefined
    ? inConfig
    : mergeLists(inConfig, tokenList(more, 'additional_special_tokens'), modern)
  const extra = modern ? extraTokens(config?.get('extra_special_tokens')) : []
  const hints = modern ? [] : usable(decoder ?? [])
  return { roles: found, additional, extra, added: uniqueAdded(added), hints, unusable, warnings }
}

// LlamaTokenizer makes objects of these four when it is made; special_tokens_map.json comes later.
function wrapped(role: Role, token: NamedToken | undefined): NamedToken | undefined {
  const byClass = role === 'bos' || role === 'eos' || role === 'unk' || role === 'pad'
  return token === undefined || !byClass ? token : { ...token, plain: false }
}

function useDefault(role: Role, found: Map<Role, NamedToken>): void {
  const content = llamaDefaults.get(role)
  if (content !== undefined) found.set(role, { content, plain: false, lstrip: false, rstrip: false })
}

// 4.31 replaces the list of the config, later versions append to it.
function mergeLists(
  listed: readonly NamedToken[], more: readonly NamedToken[], modern: boolean,
): readonly NamedToken[] {
  if (!modern) return more
  const known = new Set(listed.map(token => token.content))
  return [...listed, ...more.filter(token => !known.has(token.content))]
}

function tokenList(value: JsonValue | undefined, key: string): readonly NamedToken[] {
  if (value === undefined || value === null) return []
  if (!isJsonArray(value)) throw malformed(key, value, 'an array of tokens')
  return value.flatMap(item => {
    if (item === null) throw malformed(key, item, 'a token')
    return namedToken(item, key) ?? []
  })
}

// Name to token since 4.46, a list in later versions.
function extraTokens(value: JsonValue | undefined): readonly NamedToken[] {
  const key = 'extra_special_tokens'
  return tokenList(isJsonObject(value) ? [...value.values()] : value, key)
}

const plainToken = (content: string): NamedToken =>
  ({ content, plain: true, lstrip: false, rstrip: false })

// A token as a string or an object; undefined when missing, null or without text: an empty token is
// never found in a text.
function namedToken(value: JsonValue | undefined, key: string): NamedToken | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string') return value === '' ? undefined : plainToken(value)
  const content = isJsonObject(value) ? (value.get('content') ?? '') : undefined
  if (content === '') return undefined
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
    if (!isJsonObject(item)) throw malformed('added_tokens_decoder', item, 'a token')
    if (!/^(?:0|-?[1-9]\d{0,18})$/.test(id)) throw malformed('added_tokens_decoder', id, 'an id')
    const token = namedToken(item, 'added_tokens_decoder') ?? plainToken('')
    return { ...token, id: Number(id) }
  })
}

function addedFromFile(file: JsonObject | null): readonly AddedNamed[] {
  return [...(file ?? [])].map(([content, value]) => {
    const id = toInteger(value)
    if (id === undefined) {
      throw malformed(`added_tokens.json: the id of ${quote(content)}`, value, 'an integer')
    }
    return { ...plainToken(content), id: Number(id) }
  })
}

// Without the tokens that can never occur: no text contains them, or no model has their id.
function usableTokens(
  tokens: readonly AddedNamed[], unusable: Set<string>, warnings: string[],
): readonly AddedNamed[] {
  const isUsable = ({ content, id }: AddedNamed): boolean =>
    id >= 0 && id < maxAddedIds && content !== '' && !/\p{Cs}/u.test(content)
  const usable = tokens.filter(isUsable)
  if (usable.length === tokens.length) return tokens
  const odd = tokens.filter(token => !isUsable(token))
  for (const { content } of odd) unusable.add(content)
  warnings.push(`the added token ${shown(odd)} can never occur and is ignored`)
  return usable
}

/** Some tokens for a warning: the first, and how many more. */
export function shown(tokens: ReadonlyArray<{ content: string; id: number }>): string {
  const [first] = tokens
  if (first === undefined) return ''
  const more = tokens.length > 1 ? ` (and ${tokens.length - 1} more)` : ''
  return `${quote(first.content)} with id ${first.id}${more}`
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
  const tokens = [...specialNames(named), ...named.added]
  return new Set([...tokens.map(token => token.content), ...named.unusable])
}

const specialNames = (named: NamedTokens): readonly NamedToken[] =>
  [...named.roles.values(), ...named.additional, ...named.extra]

/** The rows for the core, and what is odd about them. */
export interface AddedRows {
  readonly rows: readonly AddedTokenRow[]
  readonly warnings: readonly string[]
}

/**
 * The rows for the core: every token that is cut out of a text before SentencePiece sees it. A
 * special token that nothing defines gets the next id after all others, as in Hugging Face.
 *
 * @param idOf - id of a piece of the vocabulary
 * @param pieces - size of the vocabulary
 */
export function addedTokenRows(
  named: NamedTokens, modern: boolean, idOf: ReadonlyMap<string, number>, pieces: number,
): AddedRows {
  const ids = new Map(idOf)
  for (const token of [...named.hints, ...named.added]) ids.set(token.content, token.id)
  const special = specialTokens(named)
  const additional = new Set(named.additional.map(token => token.content))
  const contents = [...named.added.map(token => token.content), ...named.unusable]
  let nextId = pieces + new Set(contents.filter(content => !idOf.has(content))).size
  const addedOf = new Map(named.added.map(token => [token.content, token]))
  const given: AddedTokenRow[] = []
  const rows: AddedTokenRow[] = []
  for (const [content, token] of special) {
    if (named.unusable.has(content)) continue
    // 4.31 adds every special token but unk.
    if (!modern && !ids.has(content) && named.roles.get('unk')?.content === content) continue
    const id = ids.get(content) ?? nextId++
    const rules = stripRules(token, addedOf.get(content), modern)
    const row = { content, id, special: true, additional: additional.has(content), ...rules }
    rows.push(row)
    if (!ids.has(content)) given.push(row)
  }
  for (const token of named.added) {
    if (special.has(token.content)) continue
    const { content, id } = token
    const rules = stripRules(token, token, modern)
    rows.push({ content, id, special: false, additional: false, ...rules })
  }
  const warnings = given.length === 0 ? [] : [
    `the special token ${shown(given)} is neither a piece nor an added token of the tokenizer's files; ` +
    'it got the next free id, as in Hugging Face',
  ]
  return { rows, warnings }
}

// By content; a token named as an object wins over one named as a string.
function specialTokens(named: NamedTokens): ReadonlyMap<string, NamedToken> {
  const special = new Map<string, NamedToken>()
  for (const token of specialNames(named)) {
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
