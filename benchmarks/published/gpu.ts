// gpu.ts: what is published of the GPU's results: the page gpu-h200.md, a short table, and the picture next to PyTorch
// and Hugging Face. All from the JSON that benchmarks/gpu/run.sh writes.
import { drawBars } from '../../lib/cli/svg.js'
import type { Bar, BarGroup } from '../../lib/cli/svg.js'
import { markdown, percent, three, times } from './rules.js'
import type { GpuGoal, GpuLine, GpuReport, Results } from './results.js'

const find = (lines: readonly GpuLine[], name: string): GpuLine | undefined => lines.find(line => line.name === name && line.value !== undefined)
const valueOf = (lines: readonly GpuLine[], name: string): number | undefined => find(lines, name)?.value

/** The rows that people compare engines by, with the other engine's name. */
const headline = ['1.7B', '13B'].flatMap(size => [
  { size, name: `${size} generate, 128 tokens, batch 1`, words: 'generate 128 tokens' },
  ...[128, 512, 2048].map(length => ({ size, name: `${size} prefill, ${length} tokens`, words: `prompt of ${length === 2048 ? '2,048' : length} tokens` })),
])

function ratioOf({ ours, torch }: GpuReport, name: string): number | undefined {
  const [mine, other] = [valueOf(ours, name), valueOf(torch, `torch ${name}`)]
  return mine === undefined || other === undefined || other === 0 ? undefined : mine / other
}

const [comma, dash] = [/, /, '-']
const cardName = ({ card }: GpuReport): string => card.split(comma)[0] ?? card
const torchVersion = ({ torch }: GpuReport): string => torch.find(line => line.torch !== undefined)?.torch ?? 'unknown'

/** Generation and prompts next to Hugging Face, with what is slower said first. */
export function gpuShort({ gpu }: Results): string {
  const rows = headline.flatMap(({ size, name, words }) => {
    const [mine, other, ratio] = [valueOf(gpu.ours, name), valueOf(gpu.torch, `torch ${name}`), ratioOf(gpu, name)]
    return mine === undefined || other === undefined || ratio === undefined ? []
      : [[`${size}, ${words}`, three(mine), three(other), `${times(ratio)} times${ratio < 1 ? ' (slower)' : ''}`]]
  })
  const slower = rows.filter(row => row[3]?.includes('slower')).length
  return `${cardName(gpu)}, CUDA ${gpu.nvcc}, random bfloat16 weights, one sequence; Hugging Face \`generate()\` with PyTorch ${torchVersion(gpu)} on ` +
    `the same GPU. ${slower === 0 ? 'No row is slower than Hugging Face' : `${slower} of ${rows.length} rows are slower than Hugging Face`}:\n\n` +
    markdown(['', 'polylm, tokens/s', 'Hugging Face, tokens/s', 'polylm is'], rows)
}

function goalRow(report: GpuReport, { name, share, torch, least, aim }: GpuGoal): string[] {
  const ratios = (torch ?? []).map(item => ratioOf(report, item)).filter(value => value !== undefined)
  const value = share !== undefined ? find(report.ours, share)?.ratio
    : ratios.length === 0 ? undefined : Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length)
  const verdict = value === undefined ? 'not measured' : value < least ? 'missed' : value < aim ? 'reached' : 'aim reached'
  return [name, value?.toFixed(2) ?? dash, String(least), String(aim), verdict]
}

/** The whole page. */
export function gpuPage({ gpu, goals }: Results): string {
  const show = (value: number | undefined): string => value?.toFixed(2) ?? dash
  const rows = gpu.ours.filter(line => line.value !== undefined).map(({ name, value, unit, ratio }) => [
    name, show(value), show(valueOf(gpu.oursAgain, name)), unit ?? '', ratio === undefined || ratio === 0 ? dash : percent(ratio),
    show(valueOf(gpu.plain, name)), show(valueOf(gpu.torch, `torch ${name}`)), show(ratioOf(gpu, name))])
  const left = [...gpu.ours, ...gpu.torch].filter(line => line.skipped !== undefined && line.name !== 'total')
    .map(({ name, skipped }) => `- not measured: ${name}: ${skipped}\n`)
  return `# Measured on ${cardName(gpu)}\n\n` +
    '<!-- Made by `npm run published` from gpu-h200.json and ../gpu/goals.json. Do not edit. -->\n\n' +
    `GPU, compute capability, driver, MiB: ${gpu.card}. Commit ${gpu.commit}, nvcc ${gpu.nvcc}, PyTorch ${torchVersion(gpu)}; ` +
    `checks: ${gpu.passed} passed, ${gpu.failed} failed, ${gpu.skipped} skipped. How: [On a GPU](../README.md#on-a-gpu).\n\n` +
    '![Generation and prompts next to Hugging Face](gpu-h200.svg)\n\n## Goals\n\n' +
    markdown(['goal', 'measured', 'at least', 'aim', ''], goals.map(goal => goalRow(gpu, goal))) +
    '\n## Every row\n\n"Again" is a second run, after PyTorch\'s: the difference is the noise. "Share" is that of the measured read-only stream or of ' +
    'the measured `mma.sync` products; "ratio" is polylm over PyTorch.\n\n' +
    markdown(['what', 'polylm', 'again', 'unit', 'share', 'without graphs', 'PyTorch', 'ratio'], rows) + (left.length > 0 ? '\n' + left.join('') : '')
}

/** Bars of both engines for one row of the headline. */
function group(report: GpuReport, { size, name, words }: (typeof headline)[number]): BarGroup {
  const [mine, again, other] = [valueOf(report.ours, name), valueOf(report.oursAgain, name), valueOf(report.torch, `torch ${name}`)]
  if (mine === undefined || other === undefined) return { title: '', bars: [] }
  const fastest = Math.max(mine, other)
  const [from, to] = [Math.min(mine, again ?? mine), Math.max(mine, again ?? mine)]
  const bars: Bar[] = [
    {
      label: 'polylm', kind: 'main', share: mine / fastest, range: [from / fastest, to / fastest], text: `${three(mine)} tokens/s`,
      remark: `${times(mine / other)}x Hugging Face`,
    },
    { label: 'Hugging Face', kind: 'other', share: other / fastest, text: `${three(other)} tokens/s` },
  ]
  return { title: `${size}: ${words}`, bars }
}

/** Ours next to PyTorch and Hugging Face, every row to its own scale. */
export function gpuChart({ gpu }: Results): string {
  return drawBars({
    title: `polylm and Hugging Face on ${cardName(gpu)}`,
    subtitle: 'Random bfloat16 weights of PolyLM\'s shapes, one sequence; thin lines: two runs of polylm',
    groups: headline.map(row => group(gpu, row)),
    axis: 'share of the faster of the two',
    footer: [`Hugging Face generate() and forward passes with PyTorch ${torchVersion(gpu)}, CUDA ${gpu.nvcc}, driver ${gpu.card.split(comma)[2] ?? 'unknown'}.`],
  })
}
