// config.json as PolyLM was published, and generation_config.json.

import { readConfig, readConfigWithWarnings } from '../../lib/checkpoint/config.js'
import { openCheckpoint } from '../../lib/checkpoint/open.js'
import type { Checkpoint, ModelConfig } from '../../lib/checkpoint/types.js'
import { openFiles, tinyConfig, withScratch, writeFiles } from '../malformed/case.js'
import { safetensors, tinyHeader } from '../malformed/safetensors-cases.js'

// The keys of the 13B checkpoint; the others differ in sizes only.
const published = {
  activation_function: 'gelu_fast',
  architectures: ['GPT2LMHeadModel'],
  attn_pdrop: 0.0,
  bos_token_id: 255999,
  embd_pdrop: 0.0,
  eos_token_id: 255999,
  initializer_range: 0.02,
  layer_norm_epsilon: 1e-5,
  model_type: 'gpt2',
  n_embd: 5120,
  n_head: 40,
  n_inner: 20480,
  n_layer: 40,
  n_positions: 2048,
  reorder_and_upcast_attn: false,
  resid_pdrop: 0.0,
  scale_attn_by_inverse_layer_idx: false,
  scale_attn_weights: true,
  summary_activation: null,
  summary_first_dropout: 0.1,
  summary_proj_to_labels: true,
  summary_type: 'cls_index',
  summary_use_proj: true,
  tokenizer_class: 'AutoTokenizer',
  transformers_version: '4.31.0',
  use_cache: true,
  vocab_size: 256000,
}

const expected: ModelConfig = {
  family: 'gpt2',
  layers: 40,
  heads: 40,
  hiddenSize: 5120,
  innerSize: 20480,
  contextSize: 2048,
  vocabSize: 256000,
  layerNormEpsilon: 1e-5,
  activation: 'gelu_tanh',
  tieWordEmbeddings: true,
  scaleAttention: true,
  bosTokenId: 255999,
  eosTokenIds: [255999],
  padTokenId: null,
  dtype: null,
  raw: {},
}

async function read(config: object): Promise<ModelConfig> {
  return await withScratch(async dir => {
    writeFiles(dir, { 'config.json': JSON.stringify(config, null, 2) })
    return await readConfig(dir)
  })
}

test('13B, MultiAlpaca and Chat', async () => {
  expect(await read(published)).toEqual(expected)
})

test('1.7B', async () => {
  const config = { ...published, n_embd: 2048, n_head: 16, n_inner: 8192, n_layer: 24 }
  const sizes = { layers: 24, heads: 16, hiddenSize: 2048, innerSize: 8192 }
  expect(await read(config)).toEqual({ ...expected, ...sizes })
})

test('13B with the class PolyLMHeadModel: the same model, another eos and no bos', async () => {
  const { bos_token_id: _, ...rest } = published
  const config = {
    ...rest,
    architectures: ['PolyLMHeadModel'],
    auto_map: { AutoModelForCausalLM: 'modeling_polylm.PolyLMHeadModel' },
    eos_token_id: 2,
    n_ctx: 2048,
  }
  expect(await read(config)).toEqual({ ...expected, bosTokenId: null, eosTokenIds: [2] })
})

test.each([
  ['gelu_new', 'gelu_tanh'],
  ['gelu_fast', 'gelu_tanh'],
  ['gelu_pytorch_tanh', 'gelu_tanh'],
  ['gelu', 'gelu_erf'],
])('activation %s is %s', async (name, activation) => {
  expect((await read({ ...published, activation_function: name })).activation).toBe(activation)
})

test('settings that may be missing or null', async () => {
  const { n_positions: _, n_inner: __, activation_function: ___, ...rest } = published
  const config = { ...rest, n_ctx: 1024, scale_attn_weights: null, eos_token_id: null }
  expect(await read(config)).toEqual({ ...expected, contextSize: 1024, eosTokenIds: [] })
})

test('settings that are given', async () => {
  const config = {
    ...published,
    tie_word_embeddings: false,
    scale_attn_weights: false,
    torch_dtype: 'torch.bfloat16',
    eos_token_id: [2, 255999, 2],
    pad_token_id: 3,
    max_length: 64,
    do_sample: true,
    temperature: 0.7,
    early_stopping: null,
  }
  expect(await read(config)).toEqual({
    ...expected,
    tieWordEmbeddings: false,
    scaleAttention: false,
    dtype: 'bfloat16',
    eosTokenIds: [2, 255999],
    padTokenId: 3,
    raw: { max_length: 64, do_sample: true, temperature: 0.7 },
  })
})

test('what is odd but harmless becomes a warning', async () => {
  const { eos_token_id: _, ...rest } = published
  const config = { ...rest, pad_token_id: -1, bos_token_id: 256000 }
  const { config: found, warnings } = await withScratch(async dir => {
    writeFiles(dir, { 'config.json': JSON.stringify(config) })
    return await readConfigWithWarnings(dir)
  })
  expect(found).toMatchObject({ bosTokenId: null, padTokenId: null, eosTokenIds: [50256] })
  expect(warnings.map(warning => /\w+_token_id/.exec(warning)?.[0]).sort()).toEqual([
    'bos_token_id',
    'eos_token_id',
    'pad_token_id',
  ])
})

describe("the general names of sizes, as in Hugging Face's attribute_map", () => {
  const { n_embd, n_head, n_layer, n_positions, ...rest } = published
  const general = {
    hidden_size: n_embd, num_attention_heads: n_head, num_hidden_layers: n_layer,
    max_position_embeddings: n_positions,
  }
  const warningsOf = async (config: object): Promise<readonly string[]> => await withScratch(async dir => {
    writeFiles(dir, { 'config.json': JSON.stringify(config) })
    return (await readConfigWithWarnings(dir)).warnings
  })

  test('stand for the names of GPT-2', async () => {
    expect(await read({ ...rest, ...general })).toEqual(expected)
    expect(await warningsOf({ ...rest, ...general })).toEqual([])
  })

  test('count where both are given, with a warning where they differ', async () => {
    expect(await warningsOf({ ...published, ...general })).toEqual([])
    const both = { ...published, num_attention_heads: 20, hidden_size: null }
    expect(await read(both)).toEqual({ ...expected, heads: 20 })
    const [warning, ...others] = await warningsOf(both)
    expect(warning).toContain('num_attention_heads is 20 and n_head is 40')
    expect(others).toEqual([])
  })

  test('are the ones that errors name', async () => {
    await expect(read({ ...rest, ...general, hidden_size: 'x' })).rejects.toMatchObject({
      code: 'CONFIG_TYPE', key: 'hidden_size',
    })
    await expect(read({ ...rest, ...general, num_attention_heads: 3 })).rejects.toThrow(/num_attention_heads 3/)
  })

  test('n_ctx stands in only where nothing else gives the context', async () => {
    expect((await read({ ...published, n_ctx: 7 })).contextSize).toBe(2048)
    expect((await read({ ...rest, ...general, n_ctx: 7 })).contextSize).toBe(2048)
  })

  test('dtype comes before torch_dtype', async () => {
    expect((await read({ ...published, torch_dtype: 'float16', dtype: 'bfloat16' })).dtype).toBe('bfloat16')
    expect((await read({ ...published, torch_dtype: 'float16', dtype: null })).dtype).toBe('float16')
  })
})

test('a foreign model is named together with what is supported', async () => {
  await expect(read({ ...published, model_type: 'llama' })).rejects.toMatchObject({
    code: 'UNSUPPORTED_MODEL',
    found: 'llama',
    supported: ['gpt2'],
    message: expect.stringContaining('supported: "gpt2"') as string,
  })
})

describe('generation_config.json', () => {
  const open = async (text: string): Promise<Checkpoint> =>
    await openFiles({
      'generation_config.json': text,
      'model.safetensors': safetensors(tinyHeader),
    })

  test('is kept under its own names, known ones only, null ones not', async () => {
    const { generationConfig } = await open(
      JSON.stringify({
        _from_model_config: true,
        transformers_version: '4.31.0',
        bad_words_ids: [[1, 2], [3]],
        do_sample: false,
        early_stopping: 'never',
        eos_token_id: [2, 3],
        length_penalty: 0.8,
        max_length: 128,
        num_beams: 4,
        pad_token_id: null,
        temperature: 1.0,
      }),
    )
    expect(generationConfig).toEqual({
      bad_words_ids: [[1, 2], [3]],
      do_sample: false,
      early_stopping: 'never',
      eos_token_id: [2, 3],
      length_penalty: 0.8,
      max_length: 128,
      num_beams: 4,
      temperature: 1,
    })
  })

  test.each([
    ['{', 'JSON_SYNTAX'],
    ['[]', 'JSON_SYNTAX'],
    ['{"eos_token_id":"2"}', 'CONFIG_TYPE'],
    ['{"eos_token_id":[2,"3"]}', 'CONFIG_TYPE'],
    ['{"eos_token_id":true}', 'CONFIG_TYPE'],
  ])('%s is refused', async (text, code) => {
    await expect(open(text)).rejects.toMatchObject({ code })
  })

  // What each of them gives, and the word that its warning contains; '' for none.
  test.each<[string, object, string]>([
    ['{"num_beams":"4"}', {}, 'num_beams'],
    ['{"num_beams":4.5}', {}, 'num_beams'],
    ['{"num_beams":4.0,"max_length":1e2}', { num_beams: 4, max_length: 100 }, ''],
    ['{"do_sample":1,"use_cache":0}', { do_sample: true, use_cache: false }, ''],
    ['{"do_sample":"yes"}', {}, 'do_sample'],
    ['{"temperature":"hot"}', {}, 'temperature'],
    ['{"length_penalty":Infinity}', { length_penalty: Infinity }, ''],
    ['{"temperature":NaN}', { temperature: NaN }, ''],
    ['{"top_k":1,"top_k":2}', { top_k: 2 }, '"top_k" twice'],
    ['{"eos_token_id":100}', { eos_token_id: [] }, 'eos_token_id 100'],
    ['{"eos_token_id":-1}', { eos_token_id: [] }, 'eos_token_id -1'],
    ['{"eos_token_id":[2,-1,99.0]}', { eos_token_id: [2, 99] }, 'eos_token_id -1'],
    ['{"eos_token_id":2.5}', { eos_token_id: [] }, 'eos_token_id 2.5'],
    ['{"pad_token_id":-1,"bos_token_id":100}', {}, 'pad_token_id -1'],
    ['{"pad_token_id":"x"}', {}, 'pad_token_id'],
    ['{"suppress_tokens":[5,100]}', { suppress_tokens: [5] }, 'suppress_tokens 100'],
    ['{"forced_bos_token_id":100}', { forced_bos_token_id: 100 }, ''],
    ['{"bad_words_ids":[1]}', {}, 'bad_words_ids'],
    ['{"cache_implementation":"weird"}', {}, ''],
  ])('%s is read', async (text, expected, warning) => {
    const { generationConfig, warnings } = await open(text)
    expect(generationConfig).toEqual(expected)
    if (warning === '') expect(warnings).toEqual([])
    else expect(warnings.join('\n')).toContain(warning)
  })

  test('is null when there is none, and an error when it cannot be read', async () => {
    await withScratch(async dir => {
      writeFiles(dir, { 'config.json': tinyConfig(), 'model.safetensors': safetensors(tinyHeader) })
      expect((await openCheckpoint(dir)).generationConfig).toBeNull()
      writeFiles(dir, { 'generation_config.json/x': 'a directory' })
      await expect(openCheckpoint(dir)).rejects.toMatchObject({ code: 'FILE_IO' })
    })
  })
})
