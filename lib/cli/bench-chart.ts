// bench-chart.ts: a bench report as a picture. A bar's length is the share of what the machine's memory or arithmetic
// allows; where no limit is known, of the fastest row of its group.
import { describeRow } from './bench-plan.js'
import { ofLimit, rate } from './bench-report.js'
import type { BenchReport, BenchResult } from './bench-report.js'
import { drawBars } from './svg.js'
import type { Bar, BarGroup } from './svg.js'
import { bytes } from './terminal.js'

/** What stripes mean, for every picture that has some. */
export const noisyLegend = 'Striped bars are noisy: the machine\'s own speed changed by more than 10 % around the runs.'

function bar(row: BenchResult, fastest: number): Bar {
  const { tokensPerSecond, fractionOfLimit } = row
  const share = fractionOfLimit ?? tokensPerSecond / fastest
  const scale = share / tokensPerSecond
  return {
    label: describeRow(row), share,
    range: [row.tokensPerSecondMin * scale, row.tokensPerSecondMax * scale],
    limit: fractionOfLimit === null ? undefined : 1,
    text: `${rate(tokensPerSecond)} tokens/s`,
    remark: [ofLimit(row), row.noisy ? 'noisy' : ''].filter(part => part !== '').join(', '), noisy: row.noisy,
  }
}

function group(title: string, rows: readonly BenchResult[]): BarGroup {
  const fastest = Math.max(...rows.map(row => row.tokensPerSecond))
  return { title, bars: rows.map(row => bar(row, fastest)) }
}

function footer({ limits, load, memory, results }: BenchReport): string[] {
  const first = results.find(row => row.test === 'prefill' && row.timeToFirstTokenMs !== null)
  const delay = Math.max(0, ...results.map(row => row.eventLoopDelayMs))
  const facts = [
    `peak memory ${bytes(memory.peak)}`, `loaded in ${load.seconds.toFixed(1)} s`,
    ...(first === undefined ? []
      : [`first token after ${first.timeToFirstTokenMs?.toFixed(0)} ms (${describeRow(first)})`]),
    `event-loop delay at most ${delay.toFixed(0)} ms at p99`,
  ]
  const machine = limits === null ? []
    : [`100 % is what this machine reached right before and after each run: median ` +
      `${rate(limits.readBytesPerSecond / 1e9)} GB/s of memory reads, ` +
      `${rate(limits.matrixFlopsPerSecond / 1e12)} TFLOP/s of compute.`]
  const noise = results.some(row => row.noisy) ? [noisyLegend] : []
  return [...machine, ...noise, facts.join(' · ')]
}

/** Throughput of prompts and generation, beside what the machine allows. */
export function benchChart(report: BenchReport): string {
  const { model, machine, results } = report
  return drawBars({
    title: `polylm: ${model.name}`,
    subtitle: `${model.dtype} on ${machine.cpu}, ${machine.cores} cores, ${machine.device}; medians, ` +
      'thin lines from min to max',
    groups: [
      group('Prompt', results.filter(row => row.test === 'prefill')),
      group('Generation', results.filter(row => row.test === 'decode')),
    ],
    axis: report.limits === null ? 'share of the fastest row' : 'share of the hardware limit',
    footer: footer(report),
  })
}
