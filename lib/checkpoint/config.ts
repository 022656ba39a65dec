// config.ts: config.json in every form PolyLM was published in, as one validated record. The model
// is told by `model_type` alone: the published files name two classes (`architectures`) for the
// same network, and `auto_map` points at code, which is never looked at. Unknown keys are ignored,
// since Hugging Face adds some every month.

import { join } from 'node:path'

import { PolyLMError, type ErrorCode } from '../errors.js'
import { readGenerationSettings } from './generation-config.js'
import { JsonNumber } from './json-number.js'
import { isJsonArray, isJsonObject, readJsonFile, type JsonObject, type JsonValue } from './json.js'
import {
  headSizeStep,
  maxConfigBytes,
  maxContextSize,
  maxHeads,
  maxHeadSize,
  maxHiddenSize,
  maxInnerSize,
  maxLayers,
  maxVocabSize,
  maxWeightBytes,
} from './limits.js'
import { describe, quote, quotePath } from './text.js'
import type { ModelConfig } from './types.js'

/** Values of `model_type` that can be loaded. */
export const supportedModelTypes: readonly string[] = ['gpt2']

const activations: ReadonlyMap<string, ModelConfig['activation']> = new Map([
  ['gelu_new', 'gelu_tanh'],
  ['gelu_fast', 'gelu_tanh'],
  ['gelu_pytorch_tanh', 'gelu_tanh'],
  ['gelu', 'gelu_erf'],
] as const)
const dtypes: ReadonlySet<string> = new Set(['float32', 'float16', 'bfloat16', 'float64'])
/** What Hugging Face's GPT2Config takes for an absent `eos_token_id`. */
const absentEos = 50_256

/** A config and what is odd about it. */
export interface ConfigResult {
  readonly config: ModelConfig
  readonly warnings: readonly string[]
}

/**
 * Reads and checks `config.json` of a model directory.
 *
 * @throws PolyLMError FILE_NOT_FOUND, a JSON code, or CONFIG_MISSING, CONFIG_TYPE, CONFIG_RANGE,
 * CONFIG_CONFLICT, CONFIG_UNSUPPORTED with `key`; UNSUPPORTED_MODEL with `found` and `supported`.
 */
export async function readConfig(
  dir: string,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<ModelConfig> {
  return (await readConfigWithWarnings(dir, options.signal)).config
}

/** As {@link readConfig}, with the warnings. */
export async function readConfigWithWarnings(
  dir: string,
  signal?: AbortSignal | undefined,
): Promise<ConfigResult> {
  const path = join(dir, 'config.json')
  const root = await readJsonFile(path, { maxBytes: maxConfigBytes, allowBom: true, signal })
  if (!isJsonObject(root)) {
    throw new PolyLMError(
      'JSON_SYNTAX',
      `${quotePath(path)}: found ${describe(root)}, expected an object`,
      { file: path },
    )
  }
  return parseConfig(root, path)
}

/** Checks the content of a config.json; `path` is named in errors. */
export function parseConfig(root: JsonObject, path: string): ConfigResult {
  const reader = new Reader(root, path)
  checkFamily(reader)
  const layers = reader.count('n_layer', maxLayers)
  const heads = reader.count('n_head', maxHeads)
  const hiddenSize = reader.count('n_embd', maxHiddenSize)
  const vocabSize = reader.count('vocab_size', maxVocabSize)
  const contextSize = reader.count(
    reader.has('n_positions') ? 'n_positions' : 'n_ctx',
    maxContextSize,
  )
  const innerSize = reader.has('n_inner') ? reader.count('n_inner', maxInnerSize) : 4 * hiddenSize
  checkHeads(reader, hiddenSize, heads)
  checkBytes(reader, { layers, hiddenSize, innerSize, vocabSize, contextSize })
  const config: ModelConfig = {
    family: 'gpt2',
    layers,
    heads,
    hiddenSize,
    innerSize,
    contextSize,
    vocabSize,
    layerNormEpsilon: reader.epsilon('layer_norm_epsilon', 1e-5),
    activation: readActivation(reader),
    tieWordEmbeddings: reader.flag('tie_word_embeddings', true),
    scaleAttention: reader.flag('scale_attn_weights', true),
    bosTokenId: reader.looseToken('bos_token_id', vocabSize),
    eosTokenIds: readEos(reader, vocabSize),
    padTokenId: reader.looseToken('pad_token_id', vocabSize),
    dtype: readDtype(reader),
    raw: readGenerationSettings(root, path),
  }
  checkUnsupported(reader)
  return { config, warnings: reader.warnings }
}

function checkFamily(reader: Reader): void {
  const found = reader.get('model_type')
  const expected = supportedModelTypes.map(type => quote(type)).join(', ')
  if (found === undefined) {
    throw reader.fail('CONFIG_MISSING', 'model_type', `it has no model_type, expected ${expected}`)
  }
  if (typeof found !== 'string') {
    throw reader.fail(
      'CONFIG_TYPE',
      'model_type',
      `model_type is ${describe(found)}, expected ${expected}`,
    )
  }
  if (!supportedModelTypes.includes(found)) {
    throw reader.unsupported('model_type', found, supportedModelTypes)
  }
}

function checkHeads(reader: Reader, hiddenSize: number, heads: number): void {
  if (hiddenSize % heads !== 0) {
    throw reader.fail(
      'CONFIG_CONFLICT',
      'n_head',
      `n_embd ${hiddenSize} is not a multiple of n_head ${heads}`,
    )
  }
  const size = hiddenSize / heads
  if (size % headSizeStep !== 0 || size > maxHeadSize) {
    throw reader.fail(
      'CONFIG_UNSUPPORTED',
      'n_head',
      `the head size n_embd / n_head is ${size}, ` +
        `expected a multiple of ${headSizeStep} up to ${maxHeadSize}`,
    )
  }
}

type Sizes = Pick<ModelConfig, 'layers' | 'hiddenSize' | 'innerSize' | 'vocabSize' | 'contextSize'>

function checkBytes(reader: Reader, sizes: Sizes): void {
  const { layers, hiddenSize, innerSize, vocabSize, contextSize } = sizes
  const perLayer = 4 * hiddenSize * hiddenSize + 2 * hiddenSize * innerSize
  const bytes = 4 * (layers * perLayer + (vocabSize + contextSize) * hiddenSize)
  if (bytes > maxWeightBytes) {
    throw reader.fail(
      'CONFIG_RANGE',
      'n_layer',
      `the sizes together mean weights of ${bytes} bytes`,
    )
  }
}

function readActivation(reader: Reader): ModelConfig['activation'] {
  const name = reader.get('activation_function') ?? 'gelu_new'
  if (typeof name !== 'string') {
    throw reader.fail(
      'CONFIG_TYPE',
      'activation_function',
      `activation_function is ${describe(name)}, expected a string`,
    )
  }
  const activation = activations.get(name)
  if (activation === undefined)
    throw reader.unsupported('activation_function', name, [...activations.keys()])
  return activation
}

function readEos(reader: Reader, vocabSize: number): readonly number[] {
  const key = 'eos_token_id'
  if (!reader.present(key) && absentEos < vocabSize) {
    reader.warnings.push(
      `config.json has no eos_token_id; ${absentEos} is taken, as Hugging Face does`,
    )
    return [absentEos]
  }
  const value = reader.get(key)
  if (value === undefined) return []
  const ids = isJsonArray(value) ? value : [value]
  return [...new Set(ids.map(id => reader.token(key, id, vocabSize)))]
}

function readDtype(reader: Reader): string | null {
  // Newer versions of Hugging Face write `dtype` for `torch_dtype`.
  const key = reader.has('torch_dtype') ? 'torch_dtype' : 'dtype'
  const value = reader.get(key)
  if (value === undefined) return null
  if (typeof value !== 'string')
    throw reader.fail('CONFIG_TYPE', key, `${key} is ${describe(value)}, expected a string`)
  const name = value.replace(/^torch\./, '')
  if (name === 'auto') return null
  if (!dtypes.has(name)) throw reader.unsupported(key, value, [...dtypes])
  return name
}

function checkUnsupported(reader: Reader): void {
  for (const key of ['scale_attn_by_inverse_layer_idx', 'add_cross_attention']) {
    if (reader.flag(key, false))
      throw reader.fail('CONFIG_UNSUPPORTED', key, `${key} is true, expected false`)
  }
  // Only the arithmetic's precision depends on it, and ours accumulates in fp32 anyway.
  reader.flag('reorder_and_upcast_attn', false)
  const quantization = reader.get('quantization_config')
  if (quantization !== undefined) {
    const method = isJsonObject(quantization)
      ? describe(quantization.get('quant_method'))
      : describe(quantization)
    throw reader.fail(
      'CONFIG_UNSUPPORTED',
      'quantization_config',
      `its weights are quantised (${method}), expected plain weights`,
      'use the original checkpoint',
    )
  }
}

// Reads members of config.json with checks; null counts as absent, as in Hugging Face.
class Reader {
  readonly warnings: string[] = []
  readonly #root: JsonObject
  readonly #path: string

  constructor(root: JsonObject, path: string) {
    this.#root = root
    this.#path = path
  }

  get(key: string): JsonValue | undefined {
    return this.#root.get(key) ?? undefined
  }

  has(key: string): boolean {
    return this.get(key) !== undefined
  }

  // True when the key is there, be it as null.
  present(key: string): boolean {
    return this.#root.has(key)
  }

  fail(code: ErrorCode, key: string, text: string, hint?: string): PolyLMError {
    return new PolyLMError(code, `${quotePath(this.#path)}: ${text}`, {
      file: this.#path,
      key,
      hint,
    })
  }

  unsupported(key: string, found: string, supported: readonly string[]): PolyLMError {
    const names = supported.map(name => quote(name)).join(', ')
    return new PolyLMError(
      key === 'model_type' ? 'UNSUPPORTED_MODEL' : 'CONFIG_UNSUPPORTED',
      `${quotePath(this.#path)}: ${key} is ${quote(found)}, supported: ${names}`,
      { file: this.#path, key, found, supported },
    )
  }

  // An integer from 1 to `max`.
  count(key: string, max: number): number {
    const value = this.get(key)
    if (value === undefined)
      throw this.fail('CONFIG_MISSING', key, `it has no ${key}, expected an integer from 1`)
    const number = this.#integer(key, value)
    if (number < 1 || number > max) {
      throw this.fail('CONFIG_RANGE', key, `${key} is ${describe(value)}, expected 1 to ${max}`)
    }
    return Number(number)
  }

  flag(key: string, absent: boolean): boolean {
    const value = this.get(key) ?? absent
    if (typeof value === 'boolean') return value
    throw this.fail('CONFIG_TYPE', key, `${key} is ${describe(value)}, expected true or false`)
  }

  epsilon(key: string, absent: number): number {
    const value = this.get(key) ?? absent
    const number = value instanceof JsonNumber ? value.value : value
    if (typeof number !== 'number') {
      throw this.fail('CONFIG_TYPE', key, `${key} is ${describe(value)}, expected a number`)
    }
    if (number > 0 && number <= 1) return number
    throw this.fail(
      'CONFIG_RANGE',
      key,
      `${key} is ${describe(value)}, expected above 0, at most 1`,
    )
  }

  token(key: string, value: JsonValue, vocabSize: number): number {
    const id = this.#integer(key, value)
    if (id >= 0 && id < vocabSize) return Number(id)
    throw this.fail(
      'CONFIG_RANGE',
      key,
      `${key} is ${describe(value)}, expected 0 to ${vocabSize - 1}`,
    )
  }

  // A token id that nothing depends on: checkpoints carry leftovers such as -1 or one past the
  // vocabulary.
  looseToken(key: string, vocabSize: number): number | null {
    const value = this.get(key)
    if (value === undefined) return null
    const id = this.#integer(key, value)
    if (id >= 0 && id < vocabSize) return Number(id)
    this.warnings.push(
      `config.json: ${key} ${describe(value)} is outside the vocabulary and is ignored`,
    )
    return null
  }

  #integer(key: string, value: JsonValue): number | bigint {
    if (typeof value === 'number' || typeof value === 'bigint') return value
    throw this.fail('CONFIG_TYPE', key, `${key} is ${describe(value)}, expected an integer`)
  }
}
