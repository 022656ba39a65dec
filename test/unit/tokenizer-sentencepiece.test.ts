// Random strings of many scripts against the real SentencePiece (compiled to WebAssembly): same ids,
// same text back, for both golden models.
import path from 'node:path'

import fc from 'fast-check'
import * as oracle from 'sentencepiece-js'

import { loadTokenizerFiles } from '../../lib/tokenizer/load.js'
import { LoadedTokenizer } from '../../lib/tokenizer/tokenizer.js'

const root = path.join(__dirname, '..', 'fixtures', 'tokenizers')

const ranges: ReadonlyArray<readonly [number, number]> = [
  [0x20, 0x7e], [0x20, 0x7e], [0x01, 0x1f], [0xa0, 0x24f], [0x300, 0x36f], [0x370, 0x5ff],
  [0x600, 0x6ff], [0x900, 0x97f], [0xc00, 0xc7f], [0xe00, 0xe7f], [0x1e00, 0x1eff],
  [0x2000, 0x206f], [0x2580, 0x259f], [0x3000, 0x30ff], [0x4e00, 0x9fff], [0xac00, 0xd7a3],
  [0xf900, 0xfaff], [0xfb50, 0xfdff], [0xfe00, 0xffef], [0x1f300, 0x1f6ff], [0xe000, 0xe0ff],
]
const character = fc.oneof(...ranges.map(([min, max]) =>
  fc.integer({ min, max }).map(code => String.fromCodePoint(code))))
const fragment = fc.constantFrom(
  ' ', '  ', '\n', '▁', '<s>', '</s>', '<unk>', '<|user|>', '<|assistant|>', '<0x0A>', 'hello',
  ' world', 'the capital of', 'El niño', '北京', '日本語', '안녕하세요', 'สวัสดี', 'नमस्ते', 'مرحبا',
  'Привет', 'Xin chào', '👨‍👩‍👧', 'ﬁ', 'ﷺ', 'é', 'e\u0301', '12345', 'aaaaaaaaaaaaaaaa',
)
const text = fc.array(fc.oneof(character, fragment), { maxLength: 24 }).map(parts => parts.join(''))

// sentencepiece-js hands text through a TextDecoder, which drops a byte order mark at the start.
const asDecoded = (decoded: string): string => decoded.replace(/^\ufeff/, '')

describe.each(['unigram', 'bpe'])('%s', name => {
  test('ids and text are those of SentencePiece', async () => {
    const dir = path.join(root, name)
    const { native } = new LoadedTokenizer(
      await loadTokenizerFiles(dir, { compat: 'hf-4.55', legacy: undefined }))
    const real = new oracle.SentencePieceProcessor()
    await real.load(path.join(dir, 'tokenizer.model'))
    fc.assert(fc.property(text, sample => {
      const ids = [...native.encodeRaw(sample)]
      expect(ids).toEqual(real.encodeIds(sample))
      expect(asDecoded(native.decodeRaw(Int32Array.from(ids)))).toBe(real.decodeIds(ids))
    }), { numRuns: 3000 })
    const pieces = native.vocabSize - (name === 'bpe' ? 2 : 0)
    const someIds = fc.array(fc.integer({ min: 0, max: pieces - 1 }), { maxLength: 20 })
    fc.assert(fc.property(someIds, ids => {
      expect(asDecoded(native.decodeRaw(Int32Array.from(ids)))).toBe(real.decodeIds(ids))
    }), { numRuns: 1000 })
  })
})
