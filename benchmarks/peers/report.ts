// report.ts: a comparison as JSON, as a table for people and as a picture. Pure functions of what was measured.
import { noisyLegend } from '../../lib/cli/bench-chart.js'
import { rate } from '../../lib/cli/bench-report.js'
import type { LimitsReport } from '../../lib/cli/bench-report.js'
import { drawBars } from '../../lib/cli/svg.js'
import type { Bar, BarGroup } from '../../lib/cli/svg.js'
import { bytes, table } from '../../lib/cli/terminal.js'
import type { PeerResult } from './rounds.js'

/** An engine that took part. */
export interface PeerEngine {
  readonly name: string
  readonly version: string
  readonly peakMemory: number | null
}

/** What `npm run peers -- measure --out` writes. */
export interface PeerReport {
  readonly schema: 1
  /** Of this project's code. */
  readonly commit: string
  readonly shape: string
  readonly threads: number
  readonly rounds: number
  readonly machine: {
    readonly cpu: string
    readonly cores: number
    readonly memory: number
    readonly platform: string
    readonly node: string
    readonly date: string
  }
  readonly limits: LimitsReport | null
  readonly engines: readonly PeerEngine[]
  readonly results: readonly PeerResult[]
}

/** A row in words. */
export function describeTest({ test, batch, tokens }: Pick<PeerResult, 'test' | 'batch' | 'tokens'>): string {
  if (test === 'prefill') return `prompt of ${tokens} tokens`
  return batch === 1 ? 'generation, 1 sequence' : `generation, ${batch} sequences`
}

const testsOf = ({ results }: PeerReport): PeerResult[][] => {
  const names = [...new Set(results.map(describeTest))]
  return names.map(name => results.filter(row => describeTest(row) === name))
}

/** The comparison as a table for people. */
export function peerText(report: PeerReport): string {
  const rows = report.results.map(row => [
    describeTest(row), row.engine, rate(row.tokensPerSecond),
    `${rate(row.tokensPerSecondMin)}..${rate(row.tokensPerSecondMax)}`, `${row.ratio.toFixed(2)}x`, row.noisy ? 'noisy' : ''])
  const memory = report.engines.map(({ name, version, peakMemory }) =>
    [name, version, peakMemory === null ? 'unknown' : bytes(peakMemory)])
  return table([['', 'engine', 'tokens/s', 'min..max', 'polylm is', ''], ...rows]) + '\n' +
    table([['engine', 'version', 'peak memory'], ...memory])
}

/** The comparison as a table of a Markdown page. */
export function peerMarkdown(report: PeerReport): string {
  const { engines } = report
  const head = ['', ...engines.map(({ name }) => name), ...engines.slice(1).map(({ name }) => `polylm / ${name}`)]
  const rows = testsOf(report).map(rows => {
    const of = (engine: string): PeerResult | undefined => rows.find(row => row.engine === engine)
    const cell = (row: PeerResult | undefined): string => (row === undefined ? '-' : `${rate(row.tokensPerSecond)} ` +
      `(${rate(row.tokensPerSecondMin)}..${rate(row.tokensPerSecondMax)})${row.noisy ? ' noisy' : ''}`)
    const [first] = rows
    return [
      first === undefined ? '' : describeTest(first), ...engines.map(({ name }) => cell(of(name))),
      ...engines.slice(1).map(({ name }) => { const row = of(name); return row === undefined ? '-' : `${row.ratio.toFixed(2)}x` }),
    ]
  })
  const memory = ['peak memory', ...engines.map(({ peakMemory }) => (peakMemory === null ? '-' : bytes(peakMemory))),
    ...engines.slice(1).map(() => '')]
  return [head, head.map(() => '---'), ...rows, memory].map(row => `| ${row.join(' | ')} |\n`).join('')
}

function speedGroup(rows: readonly PeerResult[]): BarGroup {
  const most = Math.max(...rows.map(row => row.tokensPerSecondMax))
  const bars = rows.map((row, i): Bar => ({
    label: row.engine, kind: i === 0 ? 'main' : 'other', share: row.tokensPerSecond / most,
    range: [row.tokensPerSecondMin / most, row.tokensPerSecondMax / most],
    text: `${rate(row.tokensPerSecond)} tokens/s`,
    remark: [i === 0 ? '' : `polylm is ${row.ratio.toFixed(1)}x as fast`, row.noisy ? 'noisy' : ''].filter(part => part !== '').join(', '),
    noisy: row.noisy,
  }))
  const [first] = rows
  return { title: first === undefined ? '' : describeTest(first).replace(/^./, c => c.toUpperCase()), bars }
}

function memoryGroup(engines: readonly PeerEngine[]): BarGroup {
  const known = engines.filter(({ peakMemory }) => peakMemory !== null)
  const most = Math.max(...known.map(({ peakMemory }) => peakMemory ?? 0))
  return {
    title: 'Peak memory (lower is better)',
    bars: known.map(({ name, peakMemory }): Bar => ({
      label: name, kind: name === engines[0]?.name ? 'main' : 'other', share: (peakMemory ?? 0) / most, text: bytes(peakMemory ?? 0),
    })),
  }
}

/** The comparison as a picture; of prompts the longest alone. */
export function peerChart(report: PeerReport): string {
  const { machine, limits, engines, threads, rounds } = report
  const tests = testsOf(report)
  const prompts = tests.filter(rows => rows[0]?.test === 'prefill')
  const longest = prompts.reduce<PeerResult[]>((best, rows) => ((rows[0]?.tokens ?? 0) > (best[0]?.tokens ?? 0) ? rows : best), [])
  const versions = engines.slice(1).map(({ name, version }) => `${name} ${version}`).join(', ')
  const reads = limits === null ? '' : `memory bandwidth ${rate(limits.readBytesPerSecond / 1e9)} GB/s, ` +
    `compute ${rate(limits.matrixFlopsPerSecond / 1e12)} TFLOP/s around the runs`
  const noise = report.results.some(row => row.noisy) ? noisyLegend : ''
  return drawBars({
    title: `PolyLM ${report.shape} shape, bfloat16, random weights`,
    subtitle: `${machine.cpu}, ${threads} threads; medians of ${rounds} alternating rounds, thin lines from min to max`,
    groups: [speedGroup(longest), ...tests.filter(rows => rows[0]?.test === 'decode').map(speedGroup), memoryGroup(engines)],
    footer: [noise, [versions, machine.date.slice(0, 10)].join(' · '), reads].filter(line => line !== ''),
  })
}
