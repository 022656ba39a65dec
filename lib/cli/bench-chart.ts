// bench-chart.ts: a bench report as a bar chart, in SVG that any browser shows. Numbers stand at the bars, so that
// nothing depends on reading an axis.
import type { BenchReport } from './bench-measure.js'

interface Bar {
  readonly label: string
  readonly value: number
  readonly text: string
}

const width = 720
const labelWidth = 190
const barHeight = 24
const gap = 8

const escape = (text: string): string => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`)

function group(title: string, bars: readonly Bar[], top: number): { svg: string; height: number } {
  const longest = Math.max(...bars.map(bar => bar.value), Number.MIN_VALUE)
  const rows = bars.map((bar, i) => {
    const y = top + 28 + i * (barHeight + gap)
    const length = Math.max(1, (width - labelWidth - 120) * bar.value / longest)
    return `<text x="${labelWidth - 10}" y="${y + 16}" text-anchor="end">${escape(bar.label)}</text>` +
      `<rect x="${labelWidth}" y="${y}" width="${length.toFixed(1)}" height="${barHeight}" fill="#4472c4"/>` +
      `<text x="${(labelWidth + length + 8).toFixed(1)}" y="${y + 16}">${escape(bar.text)}</text>`
  })
  return {
    svg: `<text x="10" y="${top + 14}" font-weight="bold">${escape(title)}</text>${rows.join('')}`,
    height: 40 + bars.length * (barHeight + gap),
  }
}

/** The throughput of prefill and decode, and the weights read beside the machine's own rate. */
export function barChart(report: BenchReport): string {
  const { model, machine, prefill, decode } = report
  const perSecond = (value: number): string => `${value.toPrecision(3)} tokens/s`
  const gigabytes = (value: number): string => `${value.toPrecision(3)} GB/s`
  const groups: [string, Bar[]][] = [
    ['Prompt', prefill.map(row => ({
      label: `${row.promptTokens} tokens`, value: row.tokensPerSecond, text: perSecond(row.tokensPerSecond) }))],
    ['Generation', decode.map(row => ({
      label: `batch ${row.batch}`, value: row.tokensPerSecond, text: perSecond(row.tokensPerSecond) }))],
    ['Memory', [
      { label: 'this machine reads', value: machine.readGBps, text: gigabytes(machine.readGBps) },
      ...decode.slice(0, 1).map(row => ({
        label: `weights at batch ${row.batch}`, value: row.weightGBps, text: gigabytes(row.weightGBps) })),
    ]],
  ]
  let top = 50
  const parts = groups.map(([title, bars]) => {
    const { svg, height } = group(title, bars, top)
    top += height
    return svg
  })
  const title = escape(`${model.name}, ${machine.device}`)
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${top}" font-family="sans-serif"` +
    ` font-size="14"><rect width="100%" height="100%" fill="white"/>` +
    `<text x="10" y="24" font-size="16">${title}</text>${parts.join('')}</svg>\n`
}
