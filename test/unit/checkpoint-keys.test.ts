// The table of docs/checkpoints.md, key by key: what it calls checked is refused when it is wrong, what
// it warns about loads with a warning, and keys that it does not list may hold anything.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import { openCheckpoint } from '../../lib/checkpoint/open.js'
import { loadTokenizerFiles } from '../../lib/tokenizer/load.js'
import { isPolyLMError } from '../../lib/errors.js'
import { tinyConfig, withScratch, writeFiles } from '../malformed/case.js'
import { safetensors, tinyHeader } from '../malformed/safetensors-cases.js'
import { modelFile, smallPieces } from '../malformed/sentencepiece-writer.js'

const page = readFileSync(join(__dirname, '../../docs/checkpoints.md'), 'utf8')
const rows = [...page.matchAll(/^\| `(\w+\.json)` \|([^|]*)\|([^|]*)\|$/gm)].map(([, file = '', checked = '', warned = '']) => {
  const names = (cell: string): string[] => [...cell.matchAll(/`([a-z_]+)`/g)].map(([, name = '']) => name)
  return { file, checked: names(checked), warned: names(warned) }
})

// Wrong for every key that means something; each kind of key minds at least one of them.
const odd: readonly unknown[] = ['odd', 7.5, { odd: 1 }, ['odd'], true]

const bases: Readonly<Record<string, object>> = {
  'config.json': JSON.parse(tinyConfig()) as object,
  'generation_config.json': {},
  'tokenizer_config.json': { add_bos_token: false },
  'special_tokens_map.json': {},
}

/** 'refused', 'warned' or 'silent'. */
async function outcome(file: string, key: string, value: unknown): Promise<string> {
  return await withScratch(async dir => {
    writeFiles(dir, {
      'model.safetensors': safetensors(tinyHeader), 'tokenizer.model': modelFile({ pieces: smallPieces }),
      [file]: JSON.stringify({ ...bases[file], [key]: value }),
    })
    try {
      const isTokenizer = /^(?:tokenizer|special)/.test(file)
      const { warnings } = isTokenizer
        ? await loadTokenizerFiles(dir, { compat: 'hf-4.55', legacy: undefined })
        : await openCheckpoint(dir)
      return warnings.some(warning => warning.includes(key)) ? 'warned' : warnings.length > 0 ? 'other warning' : 'silent'
    } catch (e) {
      if (isPolyLMError(e)) return 'refused'
      throw e
    }
  })
}

const outcomes = async (file: string, key: string): Promise<Set<string>> =>
  new Set(await Promise.all(odd.map(value => outcome(file, key, value))))

test('the table is there', () => {
  expect(rows.map(({ file }) => file)).toEqual(['config.json', 'generation_config.json',
    'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json'])
})

const checked = rows.flatMap(({ file, checked: keys }) => (bases[file] === undefined ? [] : keys.map(key => [file, key] as const)))
test.each(checked)('%s: %s is checked', async (file, key) => {
  expect(await outcomes(file, key)).toContain('refused')
})

const warned = rows.flatMap(({ file, warned: keys }) => keys.map(key => [file, key] as const))
test.each(warned)('%s: %s is warned about', async (file, key) => {
  const found = await outcomes(file, key)
  expect(found).toContain('warned')
  expect(found).not.toContain('refused')
})

const unlisted: Readonly<Record<string, readonly string[]>> = {
  'config.json': [
    'attn_pdrop', 'embd_pdrop', 'resid_pdrop', 'initializer_range', 'summary_type', 'summary_activation', 'use_cache',
    'reorder_and_upcast_attn', 'transformers_version', 'tokenizer_class', 'id2label', 'n_ctx', 'rope_scaling', '_name_or_path',
    'is_decoder', 'output_attentions', 'task_specific_params', '__proto__',
  ],
  'generation_config.json': ['transformers_version', '_from_model_config', 'cache_implementation', 'assistant_early_exit'],
  'tokenizer_config.json': [
    'model_max_length', 'chat_template', 'padding_side', 'truncation_side', 'spaces_between_special_tokens',
    'use_default_system_prompt', 'model_input_names', 'name_or_path', 'tokenizer_file', 'use_fast',
  ],
  'special_tokens_map.json': ['model_max_length', 'image_token', 'chat_template'],
}
test.each(Object.entries(unlisted).flatMap(([file, keys]) => keys.map(key => [file, key] as const)))(
  '%s: %s may hold anything', async (file, key) => {
    expect([...await outcomes(file, key)]).toEqual(['silent'])
  })
