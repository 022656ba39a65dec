// generation-config.ts: generation settings of a checkpoint, from generation_config.json or, in
// older checkpoints, from config.json itself. They are handed on under Hugging Face's names; what
// they mean is decided where options are read. Null is absent, names that are not known are
// dropped.

import { join } from 'node:path'

import { isPolyLMError, PolyLMError } from '../errors.js'
import { JsonNumber } from './json-number.js'
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

/**
 * Reads `generation_config.json` of a model directory; null when there is none.
 *
 * @param vocabSize - its `eos_token_id` must lie below.
 * @throws PolyLMError a JSON code, or CONFIG_TYPE or CONFIG_RANGE with `key`.
 */
export async function readGenerationConfig(
  dir: string,
  vocabSize: number,
  signal?: AbortSignal | undefined,
): Promise<GenerationConfig | null> {
  const path = join(dir, 'generation_config.json')
  let root: JsonValue
  try {
    root = await readJsonFile(path, { maxBytes: maxConfigBytes, allowBom: true, signal })
  } catch (e) {
    if (isPolyLMError(e, 'FILE_NOT_FOUND')) return null
    throw e
  }
  if (!isJsonObject(root)) {
    const text = `${quotePath(path)}: found ${describe(root)}, expected an object`
    throw new PolyLMError('JSON_SYNTAX', text, { file: path })
  }
  const config = collect(root, path, () => true)
  const eos = [config['eos_token_id'] ?? []].flat(2)
  const bad = eos.find(id => typeof id !== 'number' || id < 0 || id >= vocabSize)
  if (bad === undefined) return config
  const expected = `expected 0 to ${vocabSize - 1}`
  const text = `${quotePath(path)}: eos_token_id is ${String(bad)}, ${expected}`
  throw new PolyLMError('CONFIG_RANGE', text, { file: path, key: 'eos_token_id' })
}

/** The generation settings among the members of config.json. */
export function readGenerationSettings(root: JsonObject, path: string): GenerationConfig {
  return collect(root, path, key => !modelKeys.has(key))
}

function collect(
  root: JsonObject,
  path: string,
  wanted: (key: string) => boolean,
): GenerationConfig {
  const found: Record<string, GenerationValue> = {}
  for (const [key, kind] of Object.entries(kinds)) {
    const value = root.get(key) ?? undefined
    if (value === undefined || !wanted(key)) continue
    const converted = convert(value, kind)
    if (converted === undefined) {
      throw new PolyLMError(
        'CONFIG_TYPE',
        `${quotePath(path)}: ${key} is ${describe(value)}, expected ${kind}`,
        { file: path, key },
      )
    }
    found[key] = converted
  }
  return Object.freeze(found)
}

function convert(value: JsonValue, kind: Kind): GenerationValue | undefined {
  switch (kind) {
    case 'integer':
      return typeof value === 'number' ? value : undefined
    case 'number':
      return value instanceof JsonNumber
        ? value.value
        : typeof value === 'number'
          ? value
          : undefined
    case 'boolean':
      return typeof value === 'boolean' ? value : undefined
    case 'boolean or string':
      return typeof value === 'boolean' || typeof value === 'string' ? value : undefined
    case 'ids':
      return typeof value === 'number' ? value : toIds(value)
    case 'lists of ids':
      return toIdLists(value)
  }
}

function toIds(value: JsonValue): readonly number[] | undefined {
  if (!isJsonArray(value)) return undefined
  const ids = value.filter(id => typeof id === 'number')
  return ids.length === value.length ? ids : undefined
}

function toIdLists(value: JsonValue): readonly (readonly number[])[] | undefined {
  if (!isJsonArray(value)) return undefined
  const lists = value.map(toIds).filter(ids => ids !== undefined)
  return lists.length === value.length ? lists : undefined
}
