// What downloads and copies leave in place of a file, for every kind of file of a model directory, and
// paths that miss the directory of a model by a little.

import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { basename, dirname, join } from 'node:path'

import { openCheckpoint } from '../../lib/checkpoint/open.js'
import { isPolyLMError, type PolyLMError } from '../../lib/errors.js'
import { Tokenizer } from '../../lib/tokenizer/tokenizer.js'
import { tinyConfig, withScratch, writeFiles } from '../malformed/case.js'
import { safetensors, tinyHeader } from '../malformed/safetensors-cases.js'
import { modelFile, smallPieces } from '../malformed/sentencepiece-writer.js'

const weights = safetensors(tinyHeader)
const index = JSON.stringify({ weight_map: { a: 'shard.safetensors', b: 'shard.safetensors' } })

async function failure(opening: Promise<unknown>): Promise<PolyLMError> {
  const error: unknown = await opening.then(() => 'no error', (e: unknown) => e)
  if (isPolyLMError(error)) return error
  throw new Error('expected an error', { cause: error })
}

const pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3402\n'
// Content, a part of the message, a part of the hint.
const foreign: ReadonlyArray<readonly [string, string | Buffer, string, string]> = [
  ['an empty file', '', 'is empty', 'download it again'],
  ['a Git LFS pointer', pointer, 'is a Git LFS pointer', "'git lfs pull'"],
  ['a web page', '<!DOCTYPE html>\n<html><head>', 'is a web page', 'download again'],
  ['a web page after a byte order mark', '\ufeff<html>', 'is a web page', 'download again'],
  ['an XML error', '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', 'is a web page', 'access'],
  ['Entry not found', 'Entry not found', 'server\'s message, "Entry not found"', 'check the name'],
  ['a JSON error', '{"error":"Repository not found"}', '"Repository not found"', 'check the name'],
  ['a login', 'Invalid username or password.', '"Invalid username or password."', 'access'],
  ['a gate', 'Access to model x/y is restricted.\nPlease log in.', '"Access to model x/y is restricted."', 'access'],
  ['a status', '404: Not Found', '"404: Not Found"', 'check the name'],
  ['a limit', '429 Too Many Requests', '"429 Too Many Requests"', 'download it again'],
  ['a link of a cache as text', '../../blobs/0f3e44dd', 'the text of a link', "'cp -rL'"],
  ['a gzip archive', Buffer.from('1f8b0800000000000003', 'hex'), 'gzip', 'unpack'],
  ['a GGUF file', Buffer.from('GGUF\x03\0\0\0\xff\xff\xff\xff', 'latin1'), 'GGUF', 'original checkpoint'],
  ['an escape sequence', 'Not found \x1b[31m\u202e', '\\u001b', 'check the name'],
]
// A file, its code, and the files that make it be read.
const kinds: ReadonlyArray<readonly [string, string, object]> = [
  ['config.json', 'JSON_SYNTAX', {}],
  ['generation_config.json', 'JSON_SYNTAX', {}],
  ['model.safetensors', 'FORMAT_UNKNOWN', {}],
  ['model.safetensors.index.json', 'JSON_SYNTAX', {}],
  ['shard.safetensors', 'FORMAT_UNKNOWN', { 'model.safetensors.index.json': index }],
  ['pytorch_model.bin.index.json', 'JSON_SYNTAX', { 'model.safetensors': null }],
  ['pytorch_model.bin', 'FORMAT_UNKNOWN', { 'model.safetensors': null }],
  ['tokenizer.model', 'PROTO_FORMAT', {}],
  ['tokenizer_config.json', 'JSON_SYNTAX', {}],
  ['special_tokens_map.json', 'JSON_SYNTAX', {}],
  ['added_tokens.json', 'JSON_SYNTAX', {}],
]

describe.each(kinds)('%s', (name, code, others) => {
  test.each(foreign)('that is %s', async (_, content, message, hint) => {
    await withScratch(async dir => {
      writeFiles(dir, {
        'model.safetensors': weights, 'tokenizer.model': modelFile({ pieces: smallPieces }), ...others, [name]: content,
      })
      const isTokenizer = /^(?:tokenizer|special|added)/.test(name)
      const error = await failure(isTokenizer ? Tokenizer.load(dir) : openCheckpoint(dir))
      const weightFile = code === 'FORMAT_UNKNOWN'
      expect(error.code).toBe(weightFile && content === '' ? 'FILE_TRUNCATED' : code)
      expect(error.message).toContain(message)
      expect(error.message).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
      expect(error.hint).toContain(hint)
      expect(error['file']).toBe(join(dir, name))
    })
  })

  test('that is cut', async () => {
    await withScratch(async dir => {
      const model = modelFile({ pieces: smallPieces })
      const whole: Buffer = name === 'tokenizer.model' ? model : name.endsWith('.json') ? Buffer.from('{"a": {"b": [1, 2') : weights
      writeFiles(dir, {
        'model.safetensors': weights, 'tokenizer.model': model, ...others,
        [name]: whole.subarray(0, whole.length - 3),
      })
      const isTokenizer = /^(?:tokenizer|special|added)/.test(name)
      const error = await failure(isTokenizer ? Tokenizer.load(dir) : openCheckpoint(dir))
      if (!name.endsWith('.safetensors')) expect(error.hint).toContain('download it again')
    })
  })

  test('that is a link to nowhere', async () => {
    await withScratch(async dir => {
      writeFiles(dir, {
        'model.safetensors': weights, 'tokenizer.model': modelFile({ pieces: smallPieces }), ...others, [name]: null,
      })
      rmSync(join(dir, name), { force: true })
      symlinkSync(join(dir, 'gone'), join(dir, name))
      const isTokenizer = /^(?:tokenizer|special|added)/.test(name)
      const error = await failure(isTokenizer ? Tokenizer.load(dir) : openCheckpoint(dir))
      expect(error.code).toBe(name === 'shard.safetensors' ? 'SHARD_MISSING' : 'FILE_NOT_FOUND')
      expect(error.hint).toContain('download')
    })
  })
})

test('zeros that a download reserved', async () => {
  await withScratch(async dir => {
    writeFiles(dir, { 'config.json': Buffer.alloc(600) })
    expect((await failure(openCheckpoint(dir))).message).toContain('begins with zeros')
  })
})

test('small files that only look like a message are read', async () => {
  await withScratch(async dir => {
    writeFiles(dir, {
      'model.safetensors': weights, 'tokenizer.model': modelFile({ pieces: smallPieces }),
      'added_tokens.json': '{"error": 8}',
      'generation_config.json': '{"message": "x", "detail": {}}',
    })
    await openCheckpoint(dir)
    expect([...(await Tokenizer.load(dir)).encode('error')]).toContain(8)
  })
})

describe('a path that misses the model', () => {
  const revision = 'a'.repeat(40)
  const place = (dir: string, ...files: string[]): void => {
    for (const file of files) {
      mkdirSync(dirname(join(dir, file)), { recursive: true })
      writeFileSync(join(dir, file), file.endsWith('config.json') ? tinyConfig() : 'x')
    }
  }
  const cache = ['models--o--m/blobs/0', 'models--o--m/refs/main', `models--o--m/snapshots/${revision}/config.json`]

  // Files, the path given, its code, a part of the hint; $ is the scratch directory.
  test.each<[string, readonly string[], string, string, string]>([
    ['a cache folder', cache, '$/models--o--m', 'FILE_NOT_FOUND', `$/models--o--m/snapshots/${revision}"`],
    ['the snapshots', cache, '$/models--o--m/snapshots', 'FILE_NOT_FOUND', `$/models--o--m/snapshots/${revision}"`],
    ['the blobs', cache, '$/models--o--m/blobs', 'FILE_NOT_FOUND', `$/models--o--m/snapshots/${revision}"`],
    ['the whole cache', cache, '$', 'FILE_NOT_FOUND', `$/models--o--m/snapshots/${revision}"`],
    ['a cache without a snapshot', ['m/refs/main', 'm/snapshots/b/x', 'm/blobs/0'], '$/m', 'FILE_NOT_FOUND', 'download the model again'],
    ['one level above', ['m/config.json', 'n/x'], '$', 'FILE_NOT_FOUND', 'the model is in "$/m"'],
    ['above several', ['m/config.json', 'n/config.json'], '$', 'FILE_NOT_FOUND', '"$/m", "$/n"'],
    ['one level below', ['m/config.json', 'm/onnx/x'], '$/m/onnx', 'FILE_NOT_FOUND', 'the model is in "$/m"'],
    ['its config', ['m/config.json'], '$/m/config.json', 'FILE_IO', 'give its directory: "$/m"'],
    ['its weights', ['m/config.json', 'm/model.safetensors'], '$/m/model.safetensors', 'FILE_IO', 'give its directory: "$/m"'],
    ['a GGUF file', ['m.gguf'], '$/m.gguf', 'FILE_IO', 'GGUF'],
    ['a directory of a GGUF file', ['m/m.gguf'], '$/m', 'FILE_NOT_FOUND', 'GGUF'],
    ['an archive', ['m.tar.gz'], '$/m.tar.gz', 'FILE_IO', 'unpack'],
    ['an adapter', ['m/adapter_config.json', 'm/adapter_model.safetensors'], '$/m', 'FILE_NOT_FOUND', 'adapter'],
    ['an empty directory', ['m/x/y'], '$/m/x/z', 'FILE_NOT_FOUND', ''],
    ['TensorFlow weights', ['m/config.json', 'm/tf_model.h5'], '$/m', 'FILE_NOT_FOUND', 'tf_model.h5'],
    ['weights of another name', ['m/config.json', 'm/weights.safetensors'], '$/m', 'FILE_NOT_FOUND', 'rename it to model.safetensors'],
    ['a typing error', ['polylm/config.json'], '$/polylmm', 'FILE_NOT_FOUND', 'the model is in "$/polylm"'],
    ['a missing parent', [], '$/no/m', 'FILE_NOT_FOUND', '"$/no" does not exist either'],
    ['a name of a hub', [], 'DAMO-NLP-MT/polylm-1.7b', 'FILE_NOT_FOUND', 'hf download DAMO-NLP-MT/polylm-1.7b'],
    ['a name with a revision', [], 'hf:DAMO-NLP-MT/polylm-1.7b@main', 'FILE_NOT_FOUND', 'hf download DAMO-NLP-MT/polylm-1.7b '],
    ['an address', [], 'https://hub.example/DAMO-NLP-MT/polylm-1.7b/tree/main', 'FILE_NOT_FOUND', 'hf download DAMO-NLP-MT/polylm-1.7b '],
    ['a home directory', [], '~/polylm-1.7b', 'FILE_NOT_FOUND', homedir()],
    ['a file address', [], 'file:///models/m', 'FILE_NOT_FOUND', 'without file:'],
  ])('%s', async (_, files, given, code, hint) => {
    await withScratch(async dir => {
      place(dir, ...files)
      const at = (text: string): string => text.replaceAll('$', dir)
      const error = await failure(openCheckpoint(at(given)))
      expect([error.code, error.message]).toEqual([code, error.message])
      expect(error.hint ?? '').toContain(at(hint))
    })
  })

  test('the snapshot of the main branch comes first', async () => {
    await withScratch(async dir => {
      place(dir, 'm/snapshots/b/config.json', 'm/snapshots/c/config.json', 'm/snapshots/d/config.json', 'm/refs/main')
      writeFileSync(join(dir, 'm/refs/main'), 'c\n')
      expect((await failure(openCheckpoint(join(dir, 'm')))).hint).toContain('snapshots/c"')
    })
  })

  test('a name of a hub that is in the cache of this machine', async () => {
    await withScratch(async dir => {
      place(dir, ...cache)
      const before = process.env['HF_HUB_CACHE']
      process.env['HF_HUB_CACHE'] = dir
      try {
        expect((await failure(openCheckpoint('o/m'))).hint).toContain(join(dir, 'models--o--m/snapshots', revision))
      } finally {
        if (before === undefined) delete process.env['HF_HUB_CACHE']
        else process.env['HF_HUB_CACHE'] = before
      }
    })
  })

  test('the tokenizer gives the same hints', async () => {
    await withScratch(async dir => {
      place(dir, 'm/tokenizer.model', 'n/tokenizer.json')
      const missing = await failure(Tokenizer.load(dir))
      expect([missing.code, missing.hint]).toEqual(['TOKENIZER_MISSING', `the model is in "${join(dir, 'm')}"`])
      expect(await failure(Tokenizer.load(join(dir, 'm/tokenizer.model')))).toMatchObject({ code: 'FILE_IO' })
      expect(await failure(Tokenizer.load('o/m'))).toMatchObject({ code: 'FILE_NOT_FOUND' })
      expect(basename((await failure(Tokenizer.load(join(dir, 'n'))))['file'] as string)).toBe('tokenizer.json')
    })
  })
})
