// The public Tokenizer: options, ranges, offsets, streams, hostile and huge texts, a vocabulary of
// PolyLM's size. Equality with Hugging Face is in tokenizer-fixtures.test.ts.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

import fc from 'fast-check'

import { LoadedTokenizer, Tokenizer } from '../../lib/tokenizer/tokenizer.js'
import { modelFile, syntheticPieces } from '../malformed/sentencepiece-writer.js'

const root = path.join(__dirname, '..', 'fixtures', 'tokenizers')
const unigram = async (): Promise<Tokenizer> => await Tokenizer.load(path.join(root, 'unigram'))
const bpe = async (): Promise<Tokenizer> => await Tokenizer.load(path.join(root, 'bpe'))
const fails = (call: () => unknown, expected: object): void => {
  let error: unknown
  try {
    call()
  } catch (e) {
    error = e
  }
  expect(error).toMatchObject(expected)
}

test('what a tokenizer says about itself', async () => {
  const tokenizer = await bpe()
  expect(tokenizer.vocabSize).toBe(4002)
  expect(tokenizer.specialTokens).toEqual({
    bos: { id: 1, content: '<s>' },
    eos: { id: 2, content: '</s>' },
    unk: { id: 0, content: '<unk>' },
    pad: null,
    all: expect.arrayContaining([
      { id: 4000, content: '<|user|>' }, { id: 4001, content: '<|assistant|>' },
    ]),
  })
  expect((tokenizer as LoadedTokenizer).controlId('<|user|>')).toBe(4000)
  expect((tokenizer as LoadedTokenizer).controlId('hello')).toBeUndefined()
})

test.each([['unigram', unigram], ['bpe', bpe]])('%s: names of ids and back, texts of single tokens', async (_, load) => {
  const tokenizer = await load() as LoadedTokenizer
  const wrong: unknown[] = []                             // one expectation for all: there are thousands of ids
  for (let id = 0; id < tokenizer.vocabSize; id++) {
    const [piece, text, bytes] = [tokenizer.idToPiece(id), tokenizer.texts.text(id), tokenizer.texts.bytes(id)]
    const byte = /^<0x([0-9A-F]{2})>$/.exec(piece)
    const expected = byte === null ? piece.replaceAll('\u2581', ' ') : undefined
    const plain = byte === null && !tokenizer.native.isSpecial(id) && !piece.includes('\u2581')
    const right = (piece === '' || tokenizer.pieceToId(piece) === id) &&
      (byte === null ? text === expected : (bytes?.[0] ?? text.charCodeAt(0)) === parseInt(byte[1] ?? '', 16)) &&
      (!plain || tokenizer.decode([id, id], { skipSpecialTokens: false }) === text + text)
    if (!right) wrong.push({ id, piece, text, bytes })
  }
  expect(wrong).toEqual([])
  expect([tokenizer.pieceToId('no such piece'), tokenizer.pieceToId('')]).toEqual([undefined, undefined])
  expect(tokenizer.pieceToId('</s>')).toBe(2)
  for (const id of [-1, tokenizer.vocabSize, 1.5, NaN, '1', undefined]) {
    fails(() => tokenizer.idToPiece(id as number), { code: 'INVALID_PROMPT', reason: 'token out of range' })
  }
  fails(() => tokenizer.pieceToId(5 as unknown as string), { code: 'INVALID_PROMPT', reason: 'type' })
})

test('load: options are strict, a signal aborts', async () => {
  const dir = path.join(root, 'bpe')
  const load = Tokenizer.load as (dir: unknown, options?: unknown) => Promise<unknown>
  await expect(load(dir, { compat: 'hf-4.36' })).rejects.toMatchObject({ option: 'compat' })
  await expect(load(dir, { legacyTokenizer: true })).rejects.toMatchObject({ code: 'INVALID_OPTION' })
  await expect(load(7)).rejects.toMatchObject({ code: 'INVALID_OPTION', option: 'dir' })
  const reason = new Error('changed my mind')
  await expect(Tokenizer.load(dir, { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
  const controller = new AbortController()
  const pending = Tokenizer.load(dir, { signal: controller.signal })
  controller.abort(reason)
  await expect(pending).rejects.toBe(reason)
})

test('compat and legacy choose the rules', async () => {
  const text = '<|user|>\nhello'
  const dir = path.join(root, 'bpe')
  const ids = async (options: Parameters<typeof Tokenizer.load>[1]): Promise<number[]> =>
    [...(await Tokenizer.load(dir, options)).encode(text)]
  expect(await ids({})).toEqual([4000, 13, 1268, 330, 322])
  expect(await ids({ legacy: true })).toEqual([4000, 1251, 13, 1268, 330, 322])
  expect(await ids({ compat: 'hf-4.31' })).toEqual([4000, 1268, 330, 322])
  expect(await ids({ compat: 'hf-4.31', legacy: true })).toEqual([4000, 321, 330, 322])
})

test('encode, count and their options', async () => {
  const tokenizer = await unigram()
  const ids = tokenizer.encode('Beijing is the capital of China.')
  expect(Object.prototype.toString.call(ids)).toBe('[object Int32Array]')
  expect(tokenizer.count('Beijing is the capital of China.')).toBe(ids.length)
  expect(tokenizer.decode(ids)).toBe('Beijing is the capital of China.')
  expect([...tokenizer.encode('')]).toEqual([])
  fails(() => tokenizer.encode('a', { parse_special: true } as object), { option: 'parse_special' })
  fails(() => tokenizer.encode('a', { parseSpecial: 1 } as object), { option: 'parseSpecial' })
  for (const text of [undefined, null, 7, {}, ['a']]) {
    fails(() => tokenizer.encode(text as unknown as string), { code: 'INVALID_PROMPT' })
  }
  fails(() => tokenizer.encode('a'.repeat(16 * 1024 * 1024 + 1)), { code: 'LIMIT' })
})

test('T23: lone surrogates are U+FFFD, pairs are whole', async () => {
  const tokenizer = await unigram()
  const same = (a: string, b: string): void => {
    expect([...tokenizer.encode(a)]).toEqual([...tokenizer.encode(b)])
    expect(tokenizer.encodeWithOffsets(a)).toEqual(tokenizer.encodeWithOffsets(b))
  }
  same('a\ud83db', 'a\ufffdb')
  same('\ude00', '\ufffd')
  same('x\udc00\ud800', 'x\ufffd\ufffd')
  expect(tokenizer.decode(tokenizer.encode('\ud83d\ude00'))).toBe('😀')
})

test('T25: special tokens in the text are special only with parseSpecial', async () => {
  for (const tokenizer of [await unigram(), await bpe()]) {
    for (const { id, content } of tokenizer.specialTokens.all) {
      expect([...tokenizer.encode(content)]).toEqual([id])
    }
    const ids = new Set(tokenizer.specialTokens.all.map(token => token.id))
    const part = fc.oneof(
      fc.constantFrom(...tokenizer.specialTokens.all.map(token => token.content), ' ', '\n', '<'),
      fc.string({ unit: 'grapheme', maxLength: 4 }),
    )
    fc.assert(fc.property(fc.array(part, { maxLength: 12 }), parts => {
      const plain = tokenizer.encode(parts.join(''), { parseSpecial: false })
      expect(plain.some(id => ids.has(id))).toBe(false)
    }), { numRuns: 1000 })
  }
})

test('T26: ids out of range', async () => {
  const tokenizer = await bpe()
  for (const bad of [-1, 4002, 1.5, NaN, 2 ** 31, '3', null]) {
    const expected = { code: 'INVALID_PROMPT', reason: 'token out of range' }
    fails(() => tokenizer.decode([5, bad as number]), expected)
    fails(() => tokenizer.createStreamDecoder().push(bad as number), expected)
    fails(() => tokenizer.createStreamDecoder({ prompt: [bad as number] }), expected)
  }
  fails(() => tokenizer.decode('5' as unknown as number[]), { code: 'INVALID_PROMPT' })
  fails(() => tokenizer.decode([5], { skip: true } as object), { code: 'INVALID_OPTION' })
  expect(tokenizer.decode([])).toBe('')
  expect(tokenizer.decode(Float64Array.of(321, 330, 322))).toBe('hello')
})

test('offsets are UTF-16 positions in the text as given', async () => {
  const tokenizer = await unigram()
  const text = '  ﬁ 😀 <s>日本'
  const { ids, offsets } = tokenizer.encodeWithOffsets(text)
  expect(offsets).toHaveLength(ids.length * 2)
  const parts = Array.from(ids, (id, i) => [id, text.slice(offsets[2 * i], offsets[2 * i + 1])])
  expect(parts.find(([id]) => id === 1)).toEqual([1, '<s>'])
  // The emoji falls back to four bytes, each with the whole character.
  expect(parts.filter(([, part]) => part === '😀')).toHaveLength(4)
  expect(parts.at(-1)?.[1]).toBe('日本')
})

test('offsets: random texts', async () => {
  for (const tokenizer of [await unigram(), await bpe()]) {
    const sample = fc.string({ unit: 'binary', maxLength: 40 })
    fc.assert(fc.property(sample, text => {
      const { ids, offsets } = tokenizer.encodeWithOffsets(text)
      expect([...ids]).toEqual([...tokenizer.encode(text)])
      let last = 0
      for (let i = 0; i < ids.length; i++) {
        const begin = offsets[2 * i] as number
        const end = offsets[2 * i + 1] as number
        expect(last <= begin && begin <= end && end <= text.length).toBe(true)
        // Never through a surrogate pair.
        expect(text.slice(begin, end)).not.toMatch(/^[\udc00-\udfff]|[\ud800-\udbff]$/)
        last = begin
      }
    }), { numRuns: 1000 })
  }
})

test('stream decoder: holds back bytes, continues a prompt, ends once', async () => {
  const tokenizer = await unigram()
  const ids = tokenizer.encode('ok 😀!')
  const decoder = tokenizer.createStreamDecoder()
  const parts = Array.from(ids, id => decoder.push(id))
  expect(parts.filter(part => part.includes('😀'))).toEqual(['😀'])
  expect(parts.join('') + decoder.finish()).toBe('ok 😀!')
  fails(() => decoder.push(5), { code: 'STREAM_USED' })
  fails(() => decoder.finish(), { code: 'STREAM_USED' })

  const rest = tokenizer.createStreamDecoder({ prompt: tokenizer.encode('hello') })
  const world = tokenizer.encode('hello world').slice(tokenizer.count('hello'))
  expect(Array.from(world, id => rest.push(id)).join('')).toBe(' world')

  const broken = tokenizer.createStreamDecoder()
  const [, firstByte] = tokenizer.encode('😀')
  expect(broken.push(firstByte as number)).toBe('')
  expect(broken.finish()).toBe('\ufffd')
})

test('T21, T22, T24: a mebibyte of anything', async () => {
  const letters = ['a', ' ', '\n', 'ab', 'e\u0301', '👨‍👩‍👧', '\ufffd', '<s>', '<']
  for (const tokenizer of [await unigram(), await bpe()]) {
    for (const unit of letters) {
      const text = unit.repeat(2 ** 20 / Buffer.byteLength(unit))
      const ids = tokenizer.encode(text)
      if (!/^(?:a|ab|<)$/.test(unit)) continue
      expect(tokenizer.decode(ids) === text).toBe(true)
    }
  }
})

test.each([1, 2])('a vocabulary of 256,000 pieces, model type %d', async modelType => {
  const dir = mkdtempSync(path.join(tmpdir(), 'polylm-tokenizer-'))
  try {
    const pieces = syntheticPieces(256_000)
    const model = modelFile({ pieces, byteFallback: true, modelType })
    writeFileSync(path.join(dir, 'tokenizer.model'), model)
    writeFileSync(path.join(dir, 'tokenizer_config.json'), '{"add_bos_token": false}')
    const tokenizer = (await Tokenizer.load(dir)) as LoadedTokenizer
    expect(tokenizer.vocabSize).toBe(256_000)
    for (const id of [3, 258, 259, 100_000, 255_999]) {
      expect(tokenizer.native.piece(id)).toBe(pieces[id]?.text)
    }
    const text = 'Ein längerer Text über Größe, 中文 und 🦆.'
    expect(tokenizer.decode(tokenizer.encode(text))).toBe(text)
  } finally {
    rmSync(dir, { recursive: true })
  }
})

test('loads at the same time do not disturb each other', async () => {
  const tokenizers = await Promise.all([unigram(), bpe(), unigram(), bpe()])
  expect(tokenizers.map(tokenizer => tokenizer.vocabSize)).toEqual([4000, 4002, 4000, 4002])
})
