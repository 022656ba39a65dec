// bench.test.ts: everything of `polylm bench` that does not depend on a clock: what is measured, what counts as noisy,
// what the machine's limits allow, the report's schema, and the picture.
import { readFileSync } from 'node:fs'
import { createHistogram } from 'node:perf_hooks'
import path from 'node:path'
import { benchChart } from '../../lib/cli/bench-chart.js'
import { limitsReport, resultOf } from '../../lib/cli/bench-measure.js'
import { boundOf, bytesPerStep, deep, fitRows, kvBytesPerToken, kvTokens, planRows, workOf } from '../../lib/cli/bench-plan.js'
import type { BenchRow } from '../../lib/cli/bench-plan.js'
import { asText } from '../../lib/cli/bench-report.js'
import type { BenchReport, BenchResult } from '../../lib/cli/bench-report.js'
import { shapes } from '../../lib/cli/bench-shapes.js'
import type { Shape } from '../../lib/cli/bench-shapes.js'
import { isComplete, isQuiet, isSteady, median, settle, spread } from '../../lib/cli/bench-stats.js'
import { drawBars, escapeXml } from '../../lib/cli/svg.js'
import { violations } from '../json-schema.js'
import { elementsOf } from '../xml.js'

const shape = shapes['1.7b'] as Shape
const limits = { readBytesPerSecond: 50e9, matrixFlopsPerSecond: 8e12 }
const decode = (batch: number, depth = 0): BenchRow => ({ test: 'decode', batch, depth, tokens: 32 })

describe('samples', () => {
  test('median and range', () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(median([4, 1, 2, 3])).toBe(2.5)
    expect(median([])).toBeNaN()
    expect(spread([5, 1, 3])).toEqual({ median: 3, min: 1, max: 5 })
  })

  test('a tenth apart is the same machine, more is not, in either direction', () => {
    expect([isSteady(100, 90), isSteady(90, 100), isSteady(100, 89.9), isSteady(89.9, 100)]).toEqual([true, true, false, false])
    expect(isQuiet({ value: 1 })).toBe(true)
    expect(isQuiet({ value: 1, before: 100, after: 80 })).toBe(false)
  })

  test('noisy runs are repeated, at most as often again, and count only when there is nothing better', () => {
    const quiet = { value: 10, before: 100, after: 100 }
    const noisy = { value: 3, before: 100, after: 50 }
    expect(isComplete([quiet, noisy, quiet], 3, 6)).toBe(false)
    expect(isComplete([quiet, noisy, quiet, quiet], 3, 6)).toBe(true)
    expect(settle([quiet, noisy, quiet, quiet], 3)).toEqual({ used: [quiet, quiet, quiet], noisy: false })
    const spoiled = [noisy, noisy, quiet, noisy, noisy, quiet]
    expect(isComplete(spoiled, 3, 6)).toBe(true)
    expect(settle(spoiled, 3)).toEqual({ used: spoiled, noisy: true })
  })
})

describe('plan', () => {
  const plan = { prompt: [128], batch: [1, 4], depth: undefined, tokens: 32, repeats: 3, smoke: false }

  test('one deep row unless depths are given, then every batch at every depth', () => {
    expect(planRows(plan)).toEqual([
      { test: 'prefill', batch: 1, depth: 0, tokens: 128 }, decode(1), decode(4), decode(1, deep)])
    expect(planRows({ ...plan, prompt: [], depth: [0, 100] })).toEqual([decode(1), decode(4), decode(1, 100), decode(4, 100)])
  })

  test('what does not fit the context or the memory is left out with the reason', () => {
    const kv = kvBytesPerToken(shape, 'bf16')
    const { rows, skipped } = fitRows([decode(1), decode(4), decode(1, 2040), decode(64, 1900)], shape, 'bf16', 5000 * kv)
    expect(rows).toEqual([decode(1), decode(4)])
    expect(skipped.map(({ reason }) => reason)).toEqual([
      '2072 tokens, the context has 2048', expect.stringMatching(/^keys and values need \d+ bytes/)])
    expect(kvTokens([decode(4)])).toBe(4 * (16 + 32 + 64) + 256)
    expect(kvTokens([decode(4), decode(2, 100)])).toBe(2 * (100 + 64) + 4 * (16 + 32 + 64) + 256)
  })

  test('the least work of PolyLM 1.7B', () => {
    expect(bytesPerStep(shape, 'bf16')).toBe(2 * (24 * 12 * 2048 * 2048 + 256_000 * 2048))
    expect(kvBytesPerToken(shape, 'bf16')).toBe(196_608)
    expect(kvBytesPerToken(shape, 'fp32')).toBe(2 * 196_608)
    const step = workOf(decode(1), shape, 'bf16')
    expect(step.bytes).toBe(bytesPerStep(shape, 'bf16') + 32 * 196_608)
    const prompt = workOf({ test: 'prefill', batch: 1, depth: 0, tokens: 512 }, shape, 'bf16')
    expect(prompt.flops / 512).toBeGreaterThan(2.4e9)
    expect(prompt.flops / 512).toBeLessThan(2.5e9)
    expect(boundOf(step, limits)).toEqual({ by: 'memory', seconds: step.bytes / 50e9 })
    expect(boundOf(prompt, limits)).toEqual({ by: 'matrix', seconds: prompt.flops / 8e12 })
  })
})

function result(row: BenchRow, value: number, noisy = false): BenchResult {
  const delays = createHistogram()
  delays.record(2_000_000)
  const run = { value, limits, before: 50e9, after: noisy ? 30e9 : 50e9, timeToFirstTokenMs: 100 }
  return resultOf({ row, runs: [run, run], delays, peakMemory: 4e9 }, 1, shape, 'bf16')
}

describe('report', () => {
  const results = [
    result({ test: 'prefill', batch: 1, depth: 0, tokens: 512 }, 1000), result(decode(1), 13), result(decode(16), 150, true)]
  const report: BenchReport = {
    schema: 1,
    model: {
      name: '1.7b <&"> \u0007', layers: 24, hiddenSize: 2048, vocabSize: 256_000, dtype: 'bf16', parameters: 1.7e9,
      bytesPerStep: 3.4e9, kvBytesPerToken: 196_608 },
    machine: { cpu: 'a CPU', cores: 4, memory: 25e9, device: 'cpu amx', platform: 'linux-x64', node: '20.4.0', date: '2026-01-01' },
    limits: limitsReport([limits, { ...limits, readBytesPerSecond: 40e9 }]),
    load: { seconds: 2, bytes: 3.4e9, bytesPerSecond: 1.7e9, eventLoopDelayMs: 2 },
    memory: { peak: 4e9, weights: 3.4e9, kv: 1e9, workspace: 1e8 },
    results, skipped: [{ ...decode(64, 1900), reason: 'too large' }],
  }
  const file = path.join(__dirname, '../../benchmarks/bench-report.schema.json')
  const schema = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>

  test('fractions of the limit, and rows that are noisy', () => {
    expect(results[1]).toMatchObject({ limitedBy: 'memory', noisy: false, runs: 2, timeToFirstTokenMs: 100 })
    expect(results[1]?.eventLoopDelayMs).toBeCloseTo(2, 1)
    expect(results[1]?.fractionOfLimit).toBeCloseTo(13 * (bytesPerStep(shape, 'bf16') + 32 * 196_608) / 50e9, 6)
    expect(results[0]).toMatchObject({ limitedBy: 'matrix' })
    expect(results[2]).toMatchObject({ noisy: true })
    expect(report.limits).toMatchObject({ readBytesPerSecond: 45e9, readBytesPerSecondMin: 40e9, looks: 2, noisy: true })
    expect(limitsReport([])).toBeNull()
  })

  test('the schema takes a report, and notices what is missing, unknown or of another type', () => {
    expect(violations(JSON.parse(JSON.stringify(report)), schema)).toEqual([])
    expect(violations({ ...report, limits: null }, schema)).toEqual([])
    const { load: _, ...rest } = report
    expect(violations(rest, schema)).toEqual(['value.load: missing'])
    expect(violations({ ...report, more: 1, schema: 2 }, schema)).toEqual(['value.more: unknown', 'value.schema: not 1'])
    const broken = { ...report, results: [{ ...results[0], tokensPerSecond: null, batch: 0, limitedBy: 'luck' }] }
    expect(violations(broken, schema)).toHaveLength(3)
    expect(() => violations(1, { maximum: 2 })).toThrow('does not know')
  })

  test('text names every row, marks noise, and says what was left out', () => {
    const text = asText(report)
    expect(text).toMatch(/prompt of 512 tokens +1000 +1000\.\.1000 +\d+ % of compute/)
    expect(text).toMatch(/^16 sequences .* noisy$/m)
    expect(text).toContain('not measured: 64 sequences after 1900 tokens: too large')
    expect(asText({ ...report, limits: null })).not.toMatch(/^limits/m)
  })

  test('the picture is well-formed, whatever the names hold', () => {
    const svg = benchChart(report)
    const elements = elementsOf(svg)
    expect(elements.filter(name => name === 'rect')).toHaveLength(1 + 2 * results.length)
    expect(svg).toContain('13.0 tokens/s')
    expect(svg).toContain('prefers-color-scheme:dark')
    elementsOf(benchChart({ ...report, limits: null, results: [] }))
    expect(() => elementsOf('<svg><a></svg>')).toThrow()
    expect(() => elementsOf('<svg>a & b</svg>')).toThrow()
  })
})

test('bars are drawn to scale, also above 100 %; noisy ones in stripes', () => {
  const bar = { label: 'x', text: '1' }
  const svg = drawBars({
    title: 't', subtitle: '', footer: [], axis: 'share of the hardware limit',
    groups: [{ title: 'g', bars: [
      { ...bar, share: 1.2, limit: 1, range: [0.9, 1.45], noisy: true }, { ...bar, share: 0.58 }, { ...bar, share: NaN }] }] })
  const widths = [...svg.matchAll(/<rect x="240" [^>]*width="([\d.]+)"/g)].map(match => Number(match[1]))
  expect(widths).toEqual([200, 240, 116, 2])               // 290 are 145 %
  expect(svg.match(/class="stripes"/g)).toHaveLength(1)
  expect(svg).toContain('>share of the hardware limit</text>')
  expect([...svg.matchAll(/>(\d+) %<\/text>/g)].map(match => match[1])).toEqual(['0', '25', '50', '75', '100', '125'])
  elementsOf(svg)
})

test('bars stay in the picture whatever their numbers', () => {
  const bar = { label: 'x', text: '1' }
  const svg = drawBars({
    title: 't', subtitle: '', footer: [],
    groups: [{ title: 'g', bars: [{ ...bar, share: 7, range: [-1, 9] }, { ...bar, share: -1 }] }, { title: 'empty', bars: [] }] })
  const widths = [...svg.matchAll(/<rect x="240" [^>]*width="([\d.]+)"/g)].map(match => Number(match[1]))
  expect(widths[0]).toBeCloseTo(290 * 7 / 9, 1)
  expect(widths[1]).toBe(2)
  expect(Math.max(...[...svg.matchAll(/[MH]([\d.]+)/g)].map(match => Number(match[1])))).toBeLessThanOrEqual(240 + 290)
  expect(svg).not.toContain('empty')
  expect(escapeXml('<a href="x">&\'\u0000')).toBe('&#60;a href=&#34;x&#34;&#62;&#38;&#39;\ufffd')
})
