// What the JSON files beside tokenizer.model may say without harm: the ids are those of transformers
// 4.57.6 (LlamaTokenizer of the same files), and every oddity is a warning.
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

import { isPolyLMError } from '../../lib/errors.js'
import { loadTokenizerFiles, type TokenizerLoad } from '../../lib/tokenizer/load.js'
import { LoadedTokenizer } from '../../lib/tokenizer/tokenizer.js'

const fixture = path.join(__dirname, '..', 'fixtures', 'tokenizers', 'bpe', 'tokenizer.model')
const base = { add_bos_token: false, legacy: false, tokenizer_class: 'LlamaTokenizer' }

interface Files { config?: object | string; map?: object; added?: object | string }

let dir = ''
beforeEach(() => { dir = mkdtempSync(path.join(tmpdir(), 'polylm-lenient-')) })
afterEach(() => { rmSync(dir, { recursive: true }) })

async function open(
  { config = {}, map, added }: Files, load: Partial<TokenizerLoad> = {},
): Promise<LoadedTokenizer> {
  const write = (name: string, value: object | string | undefined): void => {
    if (value === undefined) return
    writeFileSync(path.join(dir, name), typeof value === 'string' ? value : JSON.stringify(value))
  }
  copyFileSync(fixture, path.join(dir, 'tokenizer.model'))
  write('tokenizer_config.json', typeof config === 'string' ? config : { ...base, ...config })
  write('special_tokens_map.json', map)
  write('added_tokens.json', added)
  return new LoadedTokenizer(
    await loadTokenizerFiles(dir, { compat: 'hf-4.55', legacy: undefined, ...load }))
}

const text = 'a[PAD]b<x>y'
const a = [266]
const pad = [1306, 1307, 1289, 1326, 1304]
const b = [1271]
const x = [1379, 1297, 1301]
const y = [1274]
const plain = [...a, ...pad, ...b, ...x, ...y]
const object = (content: string | null): object => ({ __type: 'AddedToken', content })

// Files, the ids of `text`, and a part of the warning; '' for none.
const rows: ReadonlyArray<readonly [string, Files, readonly number[], string]> = [
  ['nothing odd', {}, plain, ''],
  ['an added id past the pieces', { added: { '[PAD]': 5000 } }, [...a, 5000, ...b, ...x, ...y], ''],
  ['an id spelled 4000.0', { added: '{"[PAD]": 4000.0}' }, [...a, 4000, ...b, ...x, ...y], ''],
  ['a key twice', { added: '{"[PAD]":4000,"[PAD]":4001}' }, [...a, 4001, ...b, ...x, ...y], '"[PAD]" twice'],
  ['an added token without text', { added: { '': 4000 } }, plain, '"" with id 4000'],
  ['an added token that is half a character', { added: '{"\\ud800": 4000}' }, plain, '"\\ud800" with id'],
  ['a special token that nothing defines', { config: { pad_token: '[PAD]' } },
    [...a, 4000, ...b, ...x, ...y], '"[PAD]" with id 4000'],
  ['one of special_tokens_map.json', { map: { pad_token: '[PAD]' } },
    [...a, 4000, ...b, ...x, ...y], '"[PAD]" with id 4000'],
  ['one after an added token with a gap before it',
    { config: { pad_token: '[PAD]', additional_special_tokens: ['<x>'] }, added: { '<x>': 4005 } },
    [...a, 4001, ...b, 4005, ...y], '"[PAD]" with id 4001'],
  ['additional ones that nothing defines', { config: { additional_special_tokens: ['<x>', '[PAD]', '<y>'] } },
    [...a, 4001, ...b, 4000, ...y], '"<x>" with id 4000 (and 2 more)'],
  ['a bos token that nothing defines', { config: { bos_token: '<qq>' } }, plain, '"<qq>" with id 4000'],
  ['extra_special_tokens', { config: { extra_special_tokens: { image_token: '<x>' } } },
    [...a, ...pad, ...b, 4000, ...y], '"<x>" with id 4000'],
  ['an empty pad token', { config: { pad_token: '' } }, plain, ''],
  ['a pad token whose text is null', { config: { pad_token: object(null) } }, plain, ''],
  ['an empty additional token', { config: { additional_special_tokens: [''] } }, plain, ''],
  ['a listed token past the pieces', { config: { added_tokens_decoder: { 5000: object('[PAD]') } } },
    [...a, 5000, ...b, ...x, ...y], ''],
  ['flags as numbers', { config: { add_bos_token: 1, legacy: 0 } }, [1, ...plain], ''],
  ['numbers that JSON does not have',
    { config: '{"add_bos_token":false,"legacy":false,"model_max_length":Infinity,"other":[NaN,-Infinity]}' }, plain, ''],
  ['settings of a sampling that is off',
    { config: { sp_model_kwargs: { enable_sampling: false, nbest_size: -1, alpha: 0.1 } } }, plain, ''],
  ['a byte order mark', { config: `\ufeff${JSON.stringify(base)}` }, plain, ''],
  ['code of its own', { config: { auto_map: { AutoTokenizer: ['x.Y', null] } } }, plain, 'auto_map'],
  ['keys that nobody knows', { config: { chat_template: 7, model_max_length: 'x', padding_side: null } }, plain, ''],
]

test.each(rows)('%s', async (_, files, ids, warning) => {
  const tokenizer = await open(files)
  expect([...tokenizer.encode(text)]).toEqual(ids)
  if (warning === '') expect(tokenizer.warnings).toEqual([])
  else expect(tokenizer.warnings.join('\n')).toContain(warning)
})

// transformers gives these ids to a text, and fails when the model looks them up.
test.each<[string, Files]>([
  ['-1', { added: { '[PAD]': -1 } }],
  ['-1 in the config', { config: { added_tokens_decoder: { '-1': object('[PAD]') } } }],
  ['2^31', { added: { '[PAD]': 2 ** 31 } }],
  ['1e30', { added: '{"[PAD]": 1e30}' }],
  ['-1, and special', { config: { pad_token: '[PAD]' }, added: { '[PAD]': -1 } }],
])('an added token with the id %s is ignored with a warning', async (_, files) => {
  const tokenizer = await open(files)
  expect([...tokenizer.encode(text)]).toEqual(plain)
  expect(tokenizer.specialTokens.pad).toBeNull()
  expect(tokenizer.warnings.join('\n')).toContain('"[PAD]" with id')
})

test('an empty special token is none', async () => {
  const { specialTokens } = await open({ config: { bos_token: '', pad_token: '' } })
  expect([specialTokens.bos, specialTokens.pad, specialTokens.eos?.id]).toEqual([null, null, 2])
})

test('4.31 numbers undefined special tokens the same way', async () => {
  const tokenizer = await open({ config: { pad_token: '[PAD]' } }, { compat: 'hf-4.31' })
  expect(tokenizer.specialTokens.pad).toEqual({ id: 4000, content: '[PAD]' })
})

test('an added token with an id that the model does not have is kept, and said', async () => {
  const tokenizer = await open({ added: { '[PAD]': 4096, '<x>': 4095 } }, { modelVocabSize: 4096 })
  expect([...tokenizer.encode(text)]).toEqual([...a, 4096, ...b, 4095, ...y])
  expect(tokenizer.decode([4096])).toBe('[PAD]')
  expect(tokenizer.warnings).toEqual([expect.stringContaining('"[PAD]" with id 4096 is beyond the model')])
})

test('a million odd tokens are one warning', async () => {
  const added = Object.fromEntries(Array.from({ length: 100_000 }, (_, i) => [`<${i}>`, -1 - i]))
  const { warnings } = await open({ added })
  expect(warnings).toHaveLength(1)
  expect(warnings[0]).toContain('(and 99999 more)')
})

test('a special token that every text gets must be one of the model', async () => {
  const files = { config: { add_eos_token: true, eos_token: '<end>' } }
  const error: unknown = await open(files, { modelVocabSize: 4000 }).catch((e: unknown) => e)
  if (!isPolyLMError(error, 'TOKENIZER_RANGE')) throw new Error('expected TOKENIZER_RANGE', { cause: error })
  expect(error.hint).toContain('add_eos_token')
  expect((await open(files, { modelVocabSize: 4001 })).specialTokens.eos?.id).toBe(4000)
})
