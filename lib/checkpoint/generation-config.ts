// generation-config.ts: generation settings of a checkpoint, from generation_config.json or, in
// older checkpoints, from config.json itself. They are handed on under Hugging Face's names; what
// they mean is decided where options are read. Null is absent, names that are not known are
// dropped, and so is, with a warning, what is of the wrong type: nothing here is applied unasked but
// the ids that end a text.

import { join } from 'node:path'

import { PolyLMError } from '../errors.js'
import { isThere } from './file.js'
import { isTokenId, JsonNumber, toBoolean, toInteger } from './json-number.js'
import { isJsonArray, isJsonObject, readJsonFile, type JsonObject, type JsonValue } from './json.js'
import { maxConfigBytes } from './limits.js'
import { describe, quotePath } from './text.js'
import type { GenerationConfig, GenerationValue } from './types.js'

type Kind = 'integer' | 'number' | 'boolean' | 'boolean or string' | 'ids' | 'lists of ids'

const kinds: Readonly<Record<string, Kind>> = {
  max_length: 'integer',
  max_new_tokens: 'integer',
  min_length: 'integer',
  min_new_tokens: 'integer',
  num_beams: 'integer',
  num_beam_groups: 'integer',
  num_return_sequences: 'integer',
  top_k: 'integer',
  no_repeat_ngram_size: 'integer',
  encoder_no_repeat_ngram_size: 'integer',
  temperature: 'number',
  top_p: 'number',
  min_p: 'number',
  typical_p: 'number',
  epsilon_cutoff: 'number',
  eta_cutoff: 'number',
  repetition_penalty: 'number',
  length_penalty: 'number',
  diversity_penalty: 'number',
  do_sample: 'boolean',
  renormalize_logits: 'boolean',
  remove_invalid_values: 'boolean',
  use_cache: 'boolean',
  early_stopping: 'boolean or string',
  forced_bos_token_id: 'ids',
  forced_eos_token_id: 'ids',
  bos_token_id: 'ids',
  eos_token_id: 'ids',
  pad_token_id: 'ids',
  suppress_tokens: 'ids',
  begin_suppress_tokens: 'ids',
  bad_words_ids: 'lists of ids',
}

// These describe the model in config.json and belong to ModelConfig there.
const modelKeys: ReadonlySet<string> = new Set([
  'bos_token_id',
  'eos_token_id',
  'pad_token_id',
  'use_cache',
])

// Ids that change nothing when no token has them: they can neither be generated nor be suppressed.
const idleKeys: ReadonlySet<string> = new Set([
  'eos_token_id',
  'bos_token_id',
  'pad_token_id',
  'suppress_tokens',
  'begin_suppress_tokens',
])
const fileName = 'generation_config.json'

/** Generation settings and what is odd about them. */
export interface GenerationResult {
  readonly config: GenerationConfig | null
  readonly warnings: readonly string[]
}

/**
 * Reads `generation_config.json` of a model directory; null when there is none.
 *
 * @throws PolyLMError a JSON code, or CONFIG_TYPE with `key` for an `eos_token_id` that is no number.
 */
export async function readGenerationConfig(
  dir: string,
  vocabSize: number,
  signal?: AbortSignal | undefined,
): Promise<GenerationResult> {
  const path = join(dir, fileName)
  const warnings: string[] = []
  if (!(await isThere(path))) return { config: null, warnings }
  const root = await readJsonFile(path, { maxBytes: maxConfigBytes, python: { warnings }, signal })
  if (!isJsonObject(root)) {
    const text = `${quotePath(path)}: found ${describe(root)}, expected an object`
    throw new PolyLMError('JSON_SYNTAX', text, { file: path })
  }
  const eos = root.get('eos_token_id') ?? []
  const odd = (isJsonArray(eos) ? eos : [eos]).find(id => asNumber(id) === undefined)
  if (odd !== undefined) {
    const text = `${quotePath(path)}: eos_token_id is ${describe(odd)}, expected an integer`
    throw new PolyLMError('CONFIG_TYPE', text, { file: path, key: 'eos_token_id' })
  }
  const warn = (text: string): void => void warnings.push(`${fileName}: ${text}`)
  return { config: collect(root, vocabSize, () => true, warn), warnings }
}

/** The generation settings among the members of config.json; adds to `warnings`. */
export function readGenerationSettings(
  root: JsonObject,
  vocabSize: number,
  warnings: string[],
): GenerationConfig {
  const warn = (text: string): void => void warnings.push(`config.json: ${text}`)
  return collect(root, vocabSize, key => !modelKeys.has(key), warn)
}

function collect(
  root: JsonObject,
  vocabSize: number,
  wanted: (key: string) => boolean,
  warn: (text: string) => void,
): GenerationConfig {
  const found: Record<string, GenerationValue> = {}
  for (const [key, kind] of Object.entries(kinds)) {
    const value = root.get(key) ?? undefined
    if (value === undefined || !wanted(key)) continue
    const known = idleKeys.has(key) ? knownIds(key, value, vocabSize, warn) : value
    if (known === undefined) continue
    const converted = convert(known, kind)
    if (converted === undefined) warn(`${key} is ${describe(value)}, expected ${kind}: it is ignored`)
    else found[key] = converted
  }
  return Object.freeze(found)
}

// The value without ids that no token has; undefined when nothing is left of a single one.
function knownIds(
  key: string,
  value: JsonValue,
  vocabSize: number,
  warn: (text: string) => void,
): JsonValue | undefined {
  const ids = isJsonArray(value) ? value : [value]
  const isOdd = (id: JsonValue): boolean => asNumber(id) !== undefined && !isTokenId(id, vocabSize)
  const odd = ids.find(isOdd)
  if (odd === undefined) return value
  warn(`${key} ${describe(odd)} is outside the vocabulary and has no effect`)
  // No id at all is not the same as nothing said: the file does say that no token ends a text.
  const isList = isJsonArray(value) || key === 'eos_token_id'
  return isList ? ids.filter(id => !isOdd(id)) : undefined
}

function asNumber(value: JsonValue): number | undefined {
  if (value instanceof JsonNumber) return value.value
  return typeof value === 'number' || typeof value === 'bigint' ? Number(value) : undefined
}

function asInteger(value: JsonValue): number | undefined {
  const integer = toInteger(value)
  return integer === undefined ? undefined : Number(integer)
}

function convert(value: JsonValue, kind: Kind): GenerationValue | undefined {
  switch (kind) {
    case 'integer':
      return asInteger(value)
    case 'number':
      return asNumber(value)
    case 'boolean':
      return toBoolean(value)
    case 'boolean or string':
      return typeof value === 'string' ? value : toBoolean(value)
    case 'ids':
      return asInteger(value) ?? toIds(value)
    case 'lists of ids':
      return toIdLists(value)
  }
}

function toIds(value: JsonValue): readonly number[] | undefined {
  if (!isJsonArray(value)) return undefined
  const ids = value.map(asInteger).filter(id => id !== undefined)
  return ids.length === value.length ? ids : undefined
}

function toIdLists(value: JsonValue): readonly (readonly number[])[] | undefined {
  if (!isJsonArray(value)) return undefined
  const lists = value.map(toIds).filter(ids => ids !== undefined)
  return lists.length === value.length ? lists : undefined
}
