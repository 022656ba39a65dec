// config-cases.ts: the rows C01 to C24 of the catalogue. C21 (rotary sizes) has no row: no
// supported model has them. C22 compares weights and is a test of the core.

import { tinyConfig, type Case } from './case.js'
import { safetensors, tinyHeader } from './safetensors-cases.js'

type Row = readonly [
  id: string,
  what: string,
  expected: Case['expected'],
  config: () => string | Buffer | null,
  warning?: string,
]

const one = (
  id: string,
  expected: Case['expected'],
  key: string,
  ...values: readonly unknown[]
): readonly Row[] =>
  values.map(value => [
    id,
    `${key} ${value === undefined ? 'missing' : JSON.stringify(value)}`,
    expected,
    () => tinyConfig({ [key]: value }),
  ])

// Values that load with a warning about `key`.
const warned = (id: string, key: string, ...values: readonly unknown[]): readonly Row[] =>
  one(id, 'ok', key, ...values).map(([, what, expected, config]) => [id, what, expected, config, key])

// The value of `key` spelled as `text`.
const spelled = (id: string, expected: Case['expected'], key: string, text: string): Row => [
  id,
  `${key} spelled ${text}`,
  expected,
  () => tinyConfig({ [key]: '@' }).replace('"@"', text),
]

const valid = tinyConfig()
const padded = (bytes: number): string => valid + ' '.repeat(bytes - valid.length)
const nested = (depth: number): string =>
  tinyConfig({ extra: '@' }).replace('"@"', '['.repeat(depth - 1) + ']'.repeat(depth - 1))

const syntaxRows: readonly Row[] = [
  ['C01', 'missing', 'FILE_NOT_FOUND', () => null],
  ['C01', 'empty', 'JSON_SYNTAX', () => ''],
  ['C01', '1 MiB', 'ok', () => padded(2 ** 20)],
  ['C01', '1 MiB + 1', 'LIMIT', () => padded(2 ** 20 + 1)],
  ['C01', 'an array', 'JSON_SYNTAX', () => '[]'],
  ['C02', 'a comment', 'JSON_SYNTAX', () => valid.replace('{', '{ // tiny\n')],
  ['C02', 'a trailing comma', 'JSON_SYNTAX', () => valid.replace(/\n\}$/, ',\n}')],
  ['C02', 'single quotes', 'JSON_SYNTAX', () => valid.replaceAll('"', "'")],
  ...['True', 'None', 'undefined', '.5', '+1', '0x10', 'nan', '-NaN', 'Infinit', '-Inf'].map(word =>
    spelled('C02', 'JSON_SYNTAX', 'layer_norm_epsilon', word),
  ),
  ...['NaN', 'Infinity', '-Infinity', '1e999'].flatMap(word => [
    spelled('C02', 'CONFIG_RANGE', 'layer_norm_epsilon', word),
    spelled('C02', 'ok', 'initializer_range', word),
  ]),
  spelled('C02', 'JSON_NUMBER', 'layer_norm_epsilon', '1.'),
  ['C17', 'duplicate key', 'ok', () => valid.replace('{', '{"n_head": 3,'), '"n_head" twice'],
  ['C17', 'the last one counts', 'CONFIG_CONFLICT', () => valid.replace(/\n\}$/, ',"n_head": 3}')],
  ['C23', 'UTF-16', 'HEADER_UTF8', () => Buffer.from(`\ufeff${valid}`, 'utf16le')],
  ['C23', 'UTF-16 without a mark', 'JSON_SYNTAX', () => Buffer.from(valid, 'utf16le')],
  ['C23', 'byte order mark', 'ok', () => `\ufeff${valid}`],
  ['C24', 'depth 64', 'ok', () => nested(64)],
  ['C24', 'depth 65', 'JSON_DEPTH', () => nested(65)],
]

const numberRows: readonly Row[] = [
  ...one('C03', 'CONFIG_MISSING', 'n_layer', undefined, null),
  ...one('C03', 'CONFIG_MISSING', 'n_embd', undefined),
  ...one('C03', 'CONFIG_MISSING', 'n_head', undefined),
  ...one('C03', 'CONFIG_MISSING', 'vocab_size', undefined),
  ...one('C03', 'CONFIG_MISSING', 'n_positions', undefined),
  ...one('C04', 'CONFIG_RANGE', 'n_layer', 0, -1, 513, 2 ** 60),
  ...one('C04', 'CONFIG_TYPE', 'n_layer', 1.5, '24', true, [2], {}),
  ...one('C04', 'CONFIG_RANGE', 'n_layer', 1e300),
  ...['2.0', '2e0', '20E-1'].map(text => spelled('C04', 'ok', 'n_layer', text)),
  spelled('C04', 'CONFIG_RANGE', 'n_layer', '-0'),
  ...one('C04', 'ok', 'n_layer', 1, 512),
  ...one('C05', 'CONFIG_CONFLICT', 'n_head', 3),
  ...one('C06', 'CONFIG_RANGE', 'n_head', 0, -2, 513),
  ['C07', 'head size 17', 'CONFIG_UNSUPPORTED', () => tinyConfig({ n_embd: 34 })],
  ['C07', 'head size 512', 'CONFIG_UNSUPPORTED', () => tinyConfig({ n_embd: 512, n_head: 1 })],
  ...[64, 80, 96, 128, 256].map((size): Row => [
    'C07',
    `head size ${size}`,
    'ok',
    () => tinyConfig({ n_embd: 2 * size }),
  ]),
  ...one('C08', 'CONFIG_RANGE', 'vocab_size', 0, 2 ** 31, 2 ** 20 + 1),
  ...one('C08', 'ok', 'vocab_size', 2 ** 20),
  ...one('C09', 'CONFIG_RANGE', 'n_positions', 0, 2 ** 31, -1),
  ...one('C10', 'CONFIG_RANGE', 'n_inner', 0, 2 ** 40, -4),
  ...one('C10', 'ok', 'n_inner', null, undefined, 128),
  ...one('C11', 'CONFIG_RANGE', 'layer_norm_epsilon', 0, -1e-5, 1e300, 2),
  ...one('C11', 'CONFIG_TYPE', 'layer_norm_epsilon', '1e-5', [1e-5]),
  ...one('C11', 'ok', 'layer_norm_epsilon', 1e-12, 1, undefined),
  spelled('C11', 'CONFIG_RANGE', 'layer_norm_epsilon', '1e-999'),
  ...warned('C14', 'eos_token_id', 100, -1, 2.5, 2 ** 60, [2, 100], [2, -1], [-1]),
  ...one('C14', 'CONFIG_TYPE', 'eos_token_id', '2', [2, '3'], [[2]], true, [null]),
  ...warned('C14', 'bos_token_id', 100, -1, '1', [1], 1.5),
  ...warned('C14', 'pad_token_id', 100, -1, '1', [1], false),
  ...one('C14', 'ok', 'eos_token_id', 99, [2, 99], [], null),
  [
    'C20',
    'weights beyond 2^50 bytes',
    'CONFIG_RANGE',
    () => tinyConfig({ n_layer: 512, n_embd: 65_536, n_head: 512, n_inner: 2 ** 24 }),
  ],
]

const supportRows: readonly Row[] = [
  ...one('C12', 'CONFIG_UNSUPPORTED', 'activation_function', 'relu', 'silu', 'GELU', 'toString'),
  ...one('C12', 'CONFIG_TYPE', 'activation_function', 7, ['gelu']),
  ...one('C12', 'ok', 'activation_function', 'gelu', 'gelu_new', 'gelu_fast', undefined),
  ...one('C12', 'ok', 'activation_function', 'gelu_python', 'gelu_python_tanh', 'gelu_accurate'),
  ...one('C13', 'UNSUPPORTED_MODEL', 'model_type', 'llama', 'gpt_neox', '', 'GPT2', '__proto__'),
  ...one('C13', 'CONFIG_MISSING', 'model_type', undefined, null),
  ...one('C13', 'CONFIG_TYPE', 'model_type', ['gpt2'], 2, {}),
  ...one('C15', 'CONFIG_UNSUPPORTED', 'scale_attn_by_inverse_layer_idx', true),
  ...one('C15', 'CONFIG_TYPE', 'scale_attn_by_inverse_layer_idx', 'true', 2, [false]),
  ...one('C15', 'CONFIG_UNSUPPORTED', 'add_cross_attention', true, 1),
  ...one('C15', 'CONFIG_UNSUPPORTED', 'scale_attn_by_inverse_layer_idx', 1),
  ...one('C15', 'CONFIG_UNSUPPORTED', 'pruned_heads', { 0: [1] }),
  ...one('C15', 'ok', 'pruned_heads', {}),
  ...one('C15', 'ok', 'scale_attn_weights', 0, 1),
  ...warned('C16', 'torch_dtype', 'float8', 'int8', 'torch.quint8', 16),
  ...warned('C16', 'dtype', 'float8', 7),
  ...one('C16', 'ok', 'torch_dtype', 'float32', 'torch.float16', null, undefined),
  ...one('C18', 'ok', 'my_own_key', 1, 'x', null, { deep: [1] }),
  ...one('C18', 'ok', 'architectures', ['PolyLMHeadModel'], 'anything', 7, undefined),
  ...warned('C18', 'architectures', ['GPT2ForSequenceClassification'], [7]),
  ...warned('C18', 'auto_map', { AutoModelForCausalLM: 'modeling_polylm.PolyLMHeadModel' }),
  ...one('C18', 'ok', 'reorder_and_upcast_attn', 'x', 7),
  ...one('C19', 'CONFIG_UNSUPPORTED', 'quantization_config', { quant_method: 'gptq', bits: 4 }, 7),
  ...one('C19', 'ok', 'quantization_config', null),
]

/** C01 to C24. */
export const configCases: readonly Case[] = [syntaxRows, numberRows, supportRows]
  .flat()
  .map(([id, what, expected, config, warning]) => ({
    id,
    what,
    expected,
    ...(warning === undefined ? {} : { warning }),
    files: () => ({ 'config.json': config(), 'model.safetensors': safetensors(tinyHeader) }),
  }))
