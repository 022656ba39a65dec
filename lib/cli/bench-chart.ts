// bench-chart.ts: a bench report as a picture. A bar's full length is what the machine's memory or arithmetic allows;
// where no limit is known, the fastest row of its group.
import { describeRow } from './bench-plan.js'
import { ofLimit, rate } from './bench-report.js'
import type { BenchReport, BenchResult } from './bench-report.js'
import { drawBars } from './svg.js'
import type { Bar, BarGroup } from './svg.js'
import { bytes } from './terminal.js'

function bar(row: BenchResult, fastest: number): Bar {
  const { tokensPerSecond, fractionOfLimit } = row
  const share = fractionOfLimit ?? tokensPerSecond / fastest
  const scale = share / tokensPerSecond
  return {
    label: describeRow(row), share,
    range: [row.tokensPerSecondMin * scale, row.tokensPerSecondMax * scale],
    limit: fractionOfLimit === null ? undefined : 1,
    text: `${rate(tokensPerSecond)} tokens/s`, remark: ofLimit(row) + (row.noisy ? ', noisy' : ''),
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
    `event loop p99 ${delay.toFixed(1)} ms`,
  ]
  const machine = limits === null ? 'A full bar is the fastest row of its group.'
    : `A full bar is this machine's limit: ${rate(limits.readBytesPerSecond / 1e9)} GB/s of memory reads, ` +
      `${rate(limits.matrixFlopsPerSecond / 1e12)} TFLOP/s of products, measured beside each run.`
  return [machine, facts.join(' · ')]
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
    footer: footer(report),
  })
}
