// config.ts: config.json in every form PolyLM was published in, as one validated record. The model
// is told by `model_type` alone: the published files name two classes (`architectures`) for the
// same network, and `auto_map` points at code, which is never looked at. What the forward pass uses
// is checked; what nothing depends on becomes a warning (the table is in docs/checkpoints.md).
// Unknown keys are ignored, since Hugging Face adds some every month.

import { join } from 'node:path'

import { PolyLMError, type ErrorCode } from '../errors.js'
import { readGenerationSettings } from './generation-config.js'
import { isTokenId, JsonNumber, toBoolean, toInteger } from './json-number.js'
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
  ['gelu_python_tanh', 'gelu_tanh'],
  ['gelu_accurate', 'gelu_tanh'],
  ['gelu', 'gelu_erf'],
  ['gelu_python', 'gelu_erf'],
] as const)
// `attribute_map` of Hugging Face's GPT2Config: the general name of a size. Where a file has both
// names, the general one counts, as there.
const aliases: ReadonlyMap<string, string> = new Map([
  ['n_embd', 'hidden_size'],
  ['n_positions', 'max_position_embeddings'],
  ['n_head', 'num_attention_heads'],
  ['n_layer', 'num_hidden_layers'],
])
const classes: ReadonlySet<string> = new Set([
  'GPT2LMHeadModel',
  'GPT2Model',
  'GPT2DoubleHeadsModel',
  'PolyLMHeadModel',
  'PolyLMModel',
])
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
  const warnings: string[] = []
  const root = await readJsonFile(path, { maxBytes: maxConfigBytes, python: { warnings }, signal })
  if (!isJsonObject(root)) {
    throw new PolyLMError(
      'JSON_SYNTAX',
      `${quotePath(path)}: found ${describe(root)}, expected an object`,
      { file: path },
    )
  }
  const parsed = parseConfig(root, path)
  return { config: parsed.config, warnings: [...warnings, ...parsed.warnings] }
}

/** Checks the content of a config.json; `path` is named in errors. */
export function parseConfig(root: JsonObject, path: string): ConfigResult {
  const reader = new Reader(root, path)
  checkFamily(reader)
  reader.warnAboutAliases()
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
    raw: readGenerationSettings(root, vocabSize, reader.warnings),
  }
  checkUnsupported(reader)
  warnAboutClasses(reader)
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
      `${reader.name('n_embd')} ${hiddenSize} is not a multiple of ${reader.name('n_head')} ${heads}`,
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

// The ids that end a text. One that no token has can never match, so it changes nothing.
function readEos(reader: Reader, vocabSize: number): readonly number[] {
  const key = 'eos_token_id'
  if (!reader.present(key) && absentEos < vocabSize) {
    reader.warn(`it has no eos_token_id; ${absentEos} is taken, as Hugging Face does`)
    return [absentEos]
  }
  const value = reader.get(key)
  if (value === undefined) return []
  const given = isJsonArray(value) ? value : [value]
  for (const id of given) {
    if (isJsonNumber(id)) continue
    throw reader.fail('CONFIG_TYPE', key, `${key} is ${describe(id)}, expected an integer`)
  }
  const ids = given.filter(id => isTokenId(id, vocabSize)).map(id => Number(toInteger(id)))
  if (ids.length < given.length) {
    const odd = given.find(id => !isTokenId(id, vocabSize))
    reader.warn(`${key} ${describe(odd)} is outside the vocabulary and never ends a text`)
  }
  return [...new Set(ids)]
}

// What the file says of the weights' type; the weights themselves decide.
function readDtype(reader: Reader): string | null {
  const key = reader.has('dtype') ? 'dtype' : 'torch_dtype'
  const value = reader.get(key)
  if (value === undefined) return null
  const name = typeof value === 'string' ? value.replace(/^torch\./, '') : ''
  if (dtypes.has(name)) return name
  if (name !== 'auto') reader.warn(`${key} ${describe(value)} is ignored: the weights say their type`)
  return null
}

function checkUnsupported(reader: Reader): void {
  for (const key of ['scale_attn_by_inverse_layer_idx', 'add_cross_attention']) {
    if (reader.flag(key, false))
      throw reader.fail('CONFIG_UNSUPPORTED', key, `${key} is true, expected false`)
  }
  const pruned = reader.get('pruned_heads')
  if (isJsonObject(pruned) && pruned.size > 0) {
    const text = 'pruned_heads names attention heads that were removed, expected none'
    throw reader.fail('CONFIG_UNSUPPORTED', 'pruned_heads', text, 'use the original checkpoint')
  }
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

function warnAboutClasses(reader: Reader): void {
  const named = reader.get('architectures')
  const names = isJsonArray(named) ? named : []
  if (names.length > 0 && !names.some(name => typeof name === 'string' && classes.has(name))) {
    reader.warn(`architectures names ${describe(names[0])}; it is read as GPT2LMHeadModel`)
  }
  if (reader.has('auto_map')) {
    reader.warn('auto_map names Python code, which is not run; the model is read as "gpt2"')
  }
}

const isJsonNumber = (value: JsonValue): boolean =>
  typeof value === 'number' || typeof value === 'bigint' || value instanceof JsonNumber

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
    return this.#root.get(this.name(key)) ?? undefined
  }

  // The name under which the file gives `key`.
  name(key: string): string {
    const alias = aliases.get(key)
    return alias !== undefined && (this.#root.get(alias) ?? null) !== null ? alias : key
  }

  warn(text: string): void {
    this.warnings.push(`config.json: ${text}`)
  }

  warnAboutAliases(): void {
    for (const [key, alias] of aliases) {
      const own = this.#root.get(key) ?? undefined
      if (this.name(key) === key || own === undefined) continue
      const general = this.get(key)
      if (toInteger(own) === toInteger(general)) continue
      this.warn(
        `${alias} is ${describe(general)} and ${key} is ${describe(own)}; ` +
          `${alias} counts, as in Hugging Face`,
      )
    }
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
    const name = this.name(key)
    const value = this.get(key)
    if (value === undefined)
      throw this.fail('CONFIG_MISSING', name, `it has no ${name}, expected an integer from 1`)
    const number = toInteger(value)
    if (number === undefined)
      throw this.fail('CONFIG_TYPE', name, `${name} is ${describe(value)}, expected an integer`)
    if (number < 1 || number > max) {
      throw this.fail('CONFIG_RANGE', name, `${name} is ${describe(value)}, expected 1 to ${max}`)
    }
    return Number(number)
  }

  flag(key: string, absent: boolean): boolean {
    const value = this.get(key) ?? absent
    const flag = toBoolean(value)
    if (flag !== undefined) return flag
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

  // A token id that decoding does not depend on: checkpoints carry leftovers such as -1, or one
  // past the vocabulary.
  looseToken(key: string, vocabSize: number): number | null {
    const value = this.get(key)
    if (value === undefined) return null
    if (isTokenId(value, vocabSize)) return Number(toInteger(value))
    this.warn(`${key} ${describe(value)} is no token of the vocabulary and is ignored`)
    return null
  }
}
