// Equality with SentencePiece 0.1.97 and with the LlamaTokenizer of transformers 4.31, 4.36 and 4.55
// on every golden string, and with 4.31 and 4.55 on variants of the files beside tokenizer.model.
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

import { loadTokenizerFiles, type TokenizerLoad } from '../../lib/tokenizer/load.js'
import { LoadedTokenizer } from '../../lib/tokenizer/tokenizer.js'

const root = path.join(__dirname, '..', 'fixtures', 'tokenizers')
const read = (file: string): unknown => JSON.parse(readFileSync(path.join(root, file), 'utf8'))

interface Case {
  text: string
  sp_ids: number[]
  sp_pieces?: string[]
  sp_decode: string
  ids: number[]
  decode: string
  decode_skip_special: string
  other_versions?: Record<string, unknown>
}
interface Expected {
  cases: Case[]
  decode_random: Array<{
    ids: number[]; sp_decode?: string; decode: string; decode_skip_special: string
  }>
  stream: Array<{ text: string; ids: number[]; prefix_decodes: string[] }>
}
type Newer = Record<'legacy_false' | 'legacy_true', {
  cases: Array<[number, string, string]>
  decode_random: Array<[number, string, string]>
}>

const load = async (dir: string, compat: TokenizerLoad['compat'], legacy: boolean) =>
  new LoadedTokenizer(await loadTokenizerFiles(dir, { compat, legacy }))

const decodings = (tokenizer: LoadedTokenizer, ids: readonly number[]): [string, string] => [
  tokenizer.decode(ids, { skipSpecialTokens: false }),
  tokenizer.decode(ids),
]

// What a version gives for a case. "only present where that version gives something else": than
// 4.31 with legacy false, and for 4.36 with legacy true than 4.31 with legacy true.
function expectedIds({ ids, other_versions: other }: Case, legacy: boolean, newer: boolean): unknown {
  const legacyIds = legacy ? (other?.['v4.31_legacy_true_ids'] ?? ids) : ids
  if (!newer) return legacyIds
  return other?.[`v4.36_legacy_${String(legacy)}_ids`] ?? legacyIds
}

describe.each(['unigram', 'bpe'])('%s', name => {
  const dir = path.join(root, name)
  const { cases, decode_random: random, stream } = read(`${name}/expected.json`) as Expected
  const newer = read(`${name}/expected-4.55.json`) as Newer

  test('the fixture is the whole fixture', () => {
    expect([cases.length, random.length, stream.length]).toEqual([365, 120, 40])
  })

  test('SentencePiece: ids, pieces, text', async () => {
    const { native } = await load(dir, 'hf-4.55', false)
    for (const { text, sp_ids: ids, sp_pieces: pieces, sp_decode: decoded } of cases) {
      expect([text, [...native.encodeRaw(text)]]).toEqual([text, ids])
      if (pieces !== undefined) expect(ids.map(id => native.piece(id))).toEqual(pieces)
      expect(native.decodeRaw(Int32Array.from(ids))).toBe(decoded)
    }
    for (const { ids, sp_decode: decoded } of random) {
      // Absent where an id is no piece but an added token.
      if (decoded !== undefined) expect(native.decodeRaw(Int32Array.from(ids))).toBe(decoded)
    }
  })

  test.each([
    ['hf-4.31', false], ['hf-4.31', true], ['hf-4.36', false],
    ['hf-4.36', true], ['hf-4.55', false], ['hf-4.55', true],
  ] as const)('LlamaTokenizer %s legacy %s: ids', async (compat, legacy) => {
    const tokenizer = await load(dir, compat, legacy)
    for (const row of cases) {
      const ids = [...tokenizer.encode(row.text)]
      expect([row.text, ids]).toEqual([row.text, expectedIds(row, legacy, compat !== 'hf-4.31')])
    }
  })

  test.each(['hf-4.31', 'hf-4.36'] as const)('%s: text', async compat => {
    const tokenizer = await load(dir, compat, false)
    const key = 'v4.36_legacy_false_decode'
    for (const row of cases) {
      const other = compat === 'hf-4.36' ? row.other_versions : undefined
      expect(decodings(tokenizer, expectedIds(row, false, compat !== 'hf-4.31') as number[])).toEqual([
        other?.[key] ?? row.decode,
        other?.[`${key}_skip_special`] ?? row.decode_skip_special,
      ])
    }
    for (const { ids, decode, decode_skip_special: skipped } of random) {
      expect(decodings(tokenizer, ids)).toEqual([decode, skipped])
    }
  })

  test.each([false, true])('hf-4.55 legacy %s: text', async legacy => {
    const tokenizer = await load(dir, 'hf-4.55', legacy)
    const differing = newer[`legacy_${legacy}`]
    const byIndex = new Map(differing.cases.map(([index, ...texts]) => [index, texts]))
    cases.forEach((row, index) => {
      expect(decodings(tokenizer, expectedIds(row, legacy, true) as number[])).toEqual(
        byIndex.get(index) ?? [row.decode, row.decode_skip_special],
      )
    })
    expect(differing.decode_random).toEqual([])
    for (const { ids, decode, decode_skip_special: skipped } of random) {
      expect(decodings(tokenizer, ids)).toEqual([decode, skipped])
    }
  })

  test('hf-4.31: streams', async () => {
    const tokenizer = await load(dir, 'hf-4.31', false)
    for (const { ids, prefix_decodes: prefixes } of stream) {
      const decoder = tokenizer.createStreamDecoder()
      let text = ''
      ids.forEach((id, i) => {
        const part = decoder.push(id)
        expect(part).not.toMatch(/\p{Cs}/u)
        text += part
        const whole = prefixes[i] as string
        // Everything but an incomplete character is out, and stays.
        expect(whole.startsWith(text)).toBe(true)
        expect(text.startsWith(whole.replace(/\ufffd+$/, ''))).toBe(true)
      })
      expect(text + decoder.finish()).toBe(prefixes.at(-1))
    }
  })
})

describe('files beside tokenizer.model', () => {
  interface Variant {
    name: string
    model: string
    config: object | null
    map: object | null
    added: object | null
    special: Record<string, number[]>
    expected: Record<string, Array<[number[] | null, string, string]>>
  }
  const { texts, variants } = read('variants.json') as { texts: string[]; variants: Variant[] }
  const rows = variants.flatMap(variant =>
    Object.keys(variant.expected).map(version => [variant.name, version, variant] as const))
  let dir = ''

  beforeEach(() => { dir = mkdtempSync(path.join(tmpdir(), 'polylm-tokenizer-')) })
  afterEach(() => { rmSync(dir, { recursive: true }) })

  test('there are variants for both versions', () => {
    expect(variants.length).toBe(8)
    expect(rows.length).toBe(32)
  })

  test.each(rows)('%s: %s', async (_, version, variant) => {
    copyFileSync(path.join(root, variant.model, 'tokenizer.model'), path.join(dir, 'tokenizer.model'))
    const files = {
      tokenizer_config: variant.config, special_tokens_map: variant.map, added_tokens: variant.added,
    }
    for (const [name, content] of Object.entries(files)) {
      if (content !== null) writeFileSync(path.join(dir, `${name}.json`), JSON.stringify(content))
    }
    const [compat, , legacy] = version.split(' ') as ['hf-4.31' | 'hf-4.55', string, string]
    const tokenizer = await load(dir, compat, legacy === 'true')
    expect(tokenizer.specialTokens.all.map(token => token.id).sort((a, b) => a - b))
      .toEqual(variant.special[compat])
    texts.forEach((text, i) => {
      // null: transformers raises IndexError.
      const [ids, ...decoded] = variant.expected[version]?.[i] ?? [null]
      if (ids === null) return
      expect([text, [...tokenizer.encode(text)]]).toEqual([text, ids])
      expect([text, ...decodings(tokenizer, ids)]).toEqual([text, ...decoded])
    })
  })
})
