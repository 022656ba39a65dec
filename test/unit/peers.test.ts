// peers.test.ts: what of the comparison with other engines does not depend on a clock: the GGUF file, how the output of
// peers is read, rounds and ratios, the table and the picture.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { execute, readBatchedBench, readLlamaBench } from '../../benchmarks/peers/engines.js'
import type { Engine, Speed, Task } from '../../benchmarks/peers/engines.js'
import { randomBlock, tensorBytes, tensorsOf, vocabularyOf, writeGguf } from '../../benchmarks/peers/gguf.js'
import { peerChart, peerMarkdown, peerText } from '../../benchmarks/peers/report.js'
import type { PeerReport } from '../../benchmarks/peers/report.js'
import { measureRounds, peakOf, summarize, turns } from '../../benchmarks/peers/rounds.js'
import { shapes } from '../../lib/cli/bench-shapes.js'
import type { Shape } from '../../lib/cli/bench-shapes.js'
import { elementsOf } from '../xml.js'

const shape = shapes['tiny'] as Shape

// ---------------------------------------------------------------------------------------------- GGUF

interface ReadTensor { readonly name: string; readonly dims: number[]; readonly type: number; readonly offset: number }

/** A reader of its own: walks a GGUF file byte by byte. */
class GgufReader {
  #at = 0
  readonly #file: Buffer

  constructor(file: Buffer) {
    this.#file = file
  }

  u32(): number {
    this.#at += 4
    return this.#file.readUInt32LE(this.#at - 4)
  }

  u64(): number {
    this.#at += 8
    return Number(this.#file.readBigUInt64LE(this.#at - 8))
  }

  text(): string {
    const length = this.u64()
    this.#at += length
    return this.#file.toString('utf8', this.#at - length, this.#at)
  }

  value(type = this.u32()): unknown {
    if (type === 4 || type === 5) return this.u32()
    if (type === 6) return Buffer.from(Uint32Array.of(this.u32()).buffer).readFloatLE()
    if (type === 8) return this.text()
    if (type !== 9) throw new Error(`a value of type ${type}`)
    const items = this.u32()
    return Array.from({ length: this.u64() }, () => this.value(items))
  }

  read(): { version: number; keys: Map<string, unknown>; tensors: ReadTensor[]; data: number } {
    expect(this.#file.toString('latin1', 0, 4)).toBe('GGUF')
    this.#at = 4
    const version = this.u32()
    const [tensorCount, keyCount] = [this.u64(), this.u64()]
    const keys = new Map(Array.from({ length: keyCount }, () => [this.text(), this.value()] as const))
    const tensors = Array.from({ length: tensorCount }, () => ({
      name: this.text(), dims: Array.from({ length: this.u32() }, () => this.u64()), type: this.u32(), offset: this.u64() }))
    return { version, keys, tensors, data: Math.ceil(this.#at / 32) * 32 }
  }
}

test('a GGUF file is read back as it was meant', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'polylm-'))
  try {
    const name = path.join(folder, 'x.gguf')
    const size = await writeGguf(name, shape)
    const file = readFileSync(name)
    expect(file.length).toBe(size)
    const { version, keys, tensors, data } = new GgufReader(file).read()
    expect(version).toBe(3)
    expect(Object.fromEntries([...keys].filter(([key]) => key.startsWith('gpt2.')))).toEqual({
      'gpt2.context_length': 1024, 'gpt2.embedding_length': 256, 'gpt2.feed_forward_length': 1024, 'gpt2.block_count': 2,
      'gpt2.attention.head_count': 2, 'gpt2.attention.layer_norm_epsilon': expect.closeTo(1e-5, 9) as number,
      'gpt2.vocab_size': 4096,
    })
    expect(keys.get('tokenizer.ggml.tokens')).toHaveLength(4096)
    const wanted = tensorsOf(shape)
    expect(tensors.map(tensor => [tensor.name, tensor.dims, tensor.type])).toEqual(
      wanted.map(tensor => [tensor.name, tensor.dims, tensor.type === 'f32' ? 0 : 30]))
    let end = 0
    tensors.forEach((tensor, i) => {
      expect([tensor.name, tensor.offset % 32, tensor.offset]).toEqual([tensor.name, 0, end])
      end = Math.ceil((tensor.offset + tensorBytes(wanted[i] as (typeof wanted)[number])) / 32) * 32
    })
    expect(file.length).toBe(data + end)
    const norm = tensors.find(tensor => tensor.name === 'blk.0.attn_norm.weight')
    expect(file.readFloatLE(data + (norm?.offset ?? 0))).toBe(1)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('a file that cannot be written is an error', async () => {
  await expect(writeGguf(path.join(tmpdir(), 'no-such-folder', 'x.gguf'), shape)).rejects.toThrow('ENOENT')
})

test('PolyLM 1.7B has 292 tensors of 3.48 GB; random numbers are bfloat16 within their scale', () => {
  const tensors = tensorsOf(shapes['1.7b'] as Shape)
  expect(tensors).toHaveLength(4 + 24 * 12)
  expect(tensors.reduce((sum, tensor) => sum + tensorBytes(tensor), 0)).toBe(3_483_844_608)
  const block = randomBlock({ name: 'x', dims: [1], type: 'bf16', scale: 0.5 })
  const numbers = Array.from({ length: 1000 }, (_, i) => {
    const bits = Buffer.alloc(4)
    bits.writeUInt16LE(block.readUInt16LE(2 * i), 2)
    return bits.readFloatLE()
  })
  expect(Math.max(...numbers.map(Math.abs))).toBeLessThanOrEqual(0.5)
  expect(new Set(numbers).size).toBeGreaterThan(300)
  expect(vocabularyOf(300).pieces.slice(0, 4)).toEqual(['<unk>', '<s>', '</s>', '<0x00>'])
  expect(vocabularyOf(300).pieces).toHaveLength(300)
  expect(vocabularyOf(10).kinds).toEqual([2, 3, 3, 6, 6, 6, 6, 6, 6, 6])
})

// ---------------------------------------------------------------------------------------------- peers

test('what llama.cpp\'s programs print', () => {
  const printed = JSON.stringify([
    { build_commit: 'abc', n_prompt: 128, n_gen: 0, avg_ts: 110.5 }, { build_commit: 'abc', n_prompt: 0, n_gen: 16, avg_ts: 9.6 }])
  expect(readLlamaBench(printed)).toEqual({
    version: 'abc',
    speeds: [
      { test: 'prefill', batch: 1, tokens: 128, tokensPerSecond: 110.5 },
      { test: 'decode', batch: 1, tokens: 16, tokensPerSecond: 9.6 }],
  })
  expect(() => readLlamaBench('[{"n_prompt":0,"n_gen":0,"avg_ts":1}]')).toThrow('unknown kind')
  expect(() => readLlamaBench('[{"n_prompt":8,"n_gen":0}]')).toThrow('unknown kind')
  expect(readBatchedBench('main: n_kv_max = 512\n{"pl":16,"tg":16,"speed_tg":61.5}\n')).toEqual([
    { test: 'decode', batch: 16, tokens: 16, tokensPerSecond: 61.5 }])
  expect(() => readBatchedBench('{"pl":16,"tg":16}')).toThrow('unknown kind')
})

test('a program that fails is an error with what it said', async () => {
  const script = 'console.error("no model"); process.exit(3)'
  await expect(execute(process.execPath, ['-e', script])).rejects.toThrow(/ended with 3: no model/)
  await expect(execute('/no/such/program', [])).rejects.toThrow('ENOENT')
  expect((await execute(process.execPath, ['-e', 'console.log(1)'])).stdout).toBe('1\n')
})

const task: Task = { shape: 'tiny', threads: 1, prompt: [8], batch: [1], tokens: 4 }
const speed = (tokensPerSecond: number): Speed => ({ test: 'decode', batch: 1, tokens: 4, tokensPerSecond })

function engine(name: string, speeds: number[], started: string[], peakMemory: number | null = 1e9): Engine {
  let at = 0
  return {
    name,
    run: () => {
      started.push(name)
      return Promise.resolve({ speeds: [speed(speeds[at++] ?? NaN)], peakMemory, version: '1' })
    },
  }
}

describe('rounds', () => {
  test('engines take turns, another one begins each round, and a look stands on both sides', async () => {
    expect([turns(['a', 'b', 'c'], 0), turns(['a', 'b', 'c'], 4), turns([], 1)]).toEqual([['a', 'b', 'c'], ['b', 'c', 'a'], []])
    const started: string[] = []
    let looks = 0
    const look = (): Promise<{ readBytesPerSecond: number; matrixFlopsPerSecond: number }> =>
      Promise.resolve({ readBytesPerSecond: ++looks, matrixFlopsPerSecond: 1 })
    const both = [engine('a', [20, 30], started), engine('b', [10, 10], started)]
    const trials = await measureRounds(both, task, 2, look, () => undefined)
    expect(started).toEqual(['a', 'b', 'b', 'a'])
    expect(trials.map(({ before, after }) => [before.readBytesPerSecond, after.readBytesPerSecond]))
      .toEqual([[1, 2], [2, 3], [3, 4], [4, 5]])
    expect(peakOf(trials, 'a')).toBe(1e9)
    expect(peakOf(trials, 'c')).toBeNull()
  })

  test('ratios are taken within a round; rows between unlike looks are noisy', async () => {
    const row = { test: 'decode', batch: 1, tokens: 4, runs: 3, noisy: false }
    const steady = { readBytesPerSecond: 100, matrixFlopsPerSecond: 1 }
    const engines = [engine('a', [20, 90, 30], []), engine('b', [10, 30, 10], [])]
    const trials = await measureRounds(engines, task, 3, () => Promise.resolve(steady), () => undefined)
    expect(summarize(trials, ['a', 'b'])).toEqual([
      { ...row, engine: 'a', tokensPerSecond: 30, tokensPerSecondMin: 20, tokensPerSecondMax: 90, ratio: 1 },
      { ...row, engine: 'b', tokensPerSecond: 10, tokensPerSecondMin: 10, tokensPerSecondMax: 30, ratio: 3 },
    ])
    let looks = 0
    const shaky = (): Promise<typeof steady> => Promise.resolve({ ...steady, readBytesPerSecond: ++looks % 2 === 0 ? 100 : 50 })
    const bad = await measureRounds([engine('a', [20, 90, 30], [])], task, 3, shaky, () => undefined)
    expect(summarize(bad, ['a'])).toMatchObject([{ noisy: true, runs: 3 }])
  })
})

test('table and picture of a comparison', () => {
  const row = { test: 'decode', batch: 1, tokens: 4, runs: 3, tokensPerSecondMin: 9, tokensPerSecondMax: 12 } as const
  const report: PeerReport = {
    schema: 1, commit: 'abc', shape: '1.7b', threads: 4, rounds: 3, limits: null,
    machine: { cpu: 'a <CPU>', cores: 4, memory: 25e9, platform: 'linux-x64', node: '20.4.0', date: '2026-01-01T00:00:00Z' },
    engines: [{ name: 'polylm', version: 'amx', peakMemory: 4e9 }, { name: 'other & co', version: '1', peakMemory: null }],
    results: [
      { ...row, engine: 'polylm', tokensPerSecond: 12, ratio: 1, noisy: false },
      { ...row, engine: 'other & co', tokensPerSecond: 9, ratio: 1.333, noisy: true },
      { ...row, engine: 'polylm', test: 'prefill', tokens: 512, tokensPerSecond: 1200, tokensPerSecondMax: 1300, ratio: 1, noisy: false },
      { ...row, engine: 'polylm', test: 'prefill', tokens: 128, tokensPerSecond: 700, tokensPerSecondMax: 800, ratio: 1, noisy: false }],
  }
  const svg = peerChart(report)
  expect(elementsOf(svg).filter(name => name === 'rect')).toHaveLength(1 + 2 + 1 + 1)
  expect(svg).toContain('1200 tokens/s')
  expect(svg).not.toContain('Prompt of 128')
  expect(peerMarkdown(report)).toContain('| generation, 1 sequence | 12.0 (9.00..12.0) | 9.00 (9.00..12.0) noisy | 1.33x |\n')
  expect(peerMarkdown(report)).toContain('| peak memory | 4.00 GB | - |  |\n')
  expect(peerText(report)).toMatch(/generation, 1 sequence +other & co +9.00 +9.00\.\.12.0 +1.33x +noisy/)
})
