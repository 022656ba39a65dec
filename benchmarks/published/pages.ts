// pages.ts: which published number stands where. Tables and sentences are generated blocks between two comments of a
// Markdown page; pictures and gpu-h200.md are whole files. `outputs` says what every file must hold; published.test.ts
// and `npm run published -- --check` compare, `npm run published` writes.
// Trap: a block has to be marked in its page by hand, once: `<!-- published NAME -->` and `<!-- /published -->`.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { benchChart } from '../../lib/cli/bench-chart.js'
import { peerChart, peerMarkdown } from '../peers/report.js'
import * as cpu from './cpu.js'
import { gpuChart, gpuPage, gpuShort } from './gpu.js'
import * as platforms from './platforms.js'
import { readResults } from './results.js'
import type { Results } from './results.js'

/** A generated part of a page. */
interface Block {
  /** Shown in the page, so that nobody edits by hand what is made from these. */
  readonly from: string
  readonly text: (results: Results) => string
}

const results = 'benchmarks/results'

/** Every block by name. A page may show any of them, and each is shown somewhere. */
export const blocks: Readonly<Record<string, Block>> = {
  'speed': { from: `${results}/bench.json`, text: cpu.benchShort },
  'peers-summary': { from: `${results}/peers.json`, text: cpu.peersShort },
  'gpu-summary': { from: `${results}/gpu-h200.json`, text: gpuShort },
  'bench': { from: `${results}/bench.json and observations.json`, text: cpu.benchLong },
  'engine': { from: `${results}/engine.json`, text: cpu.engineTables },
  'turns': { from: `${results}/turns.json`, text: cpu.turnsTable },
  'speculate': { from: `${results}/engine.json and observations.json`, text: cpu.speculateTable },
  'peers': { from: `${results}/peers.json`, text: ({ peers }) => peerMarkdown(peers) },
  'peers-notes': { from: `${results}/peers.json and observations.json`, text: cpu.peersNotes },
  'onednn': { from: `${results}/onednn.json`, text: cpu.onednnTable },
  'gemm': { from: `${results}/gemm.json and observations.json`, text: cpu.gemmTable },
  'loading': { from: `${results}/observations.json`, text: cpu.loadingTable },
  'endurance': { from: `${results}/observations.json`, text: cpu.enduranceText },
  'memory-plan': { from: 'lib/cli/bench-shapes.ts', text: cpu.memoryPlan },
  'binaries': { from: `${results}/observations.json`, text: platforms.binarySizes },
  'consumers': { from: `${results}/observations.json`, text: platforms.consumerRun },
  'arm64-emulated': { from: `${results}/observations.json`, text: platforms.emulatedRun },
}

/** Pages with generated blocks. */
export const pages = [
  'README.md', 'benchmarks/results/README.md', 'docs/performance.md', 'docs/decoding.md', 'docs/platforms.md', 'docs/gpu.md',
]

/** Files that are generated as a whole. */
export const files: Readonly<Record<string, (results: Results) => string>> = {
  [`${results}/bench.svg`]: ({ bench }) => benchChart(bench),
  [`${results}/peers.svg`]: ({ peers }) => peerChart(peers),
  [`${results}/gpu-h200.svg`]: gpuChart,
  [`${results}/gpu-h200.md`]: gpuPage,
}

const marked = /<!-- published ([\w-]+)[^>]*-->\n[\s\S]*?<!-- \/published -->/g

/** The page with every block made anew. */
export function fill(page: string, text: string, from: Results): string {
  return text.replace(marked, (_, name: string) => {
    const block = blocks[name]
    if (block === undefined) throw new Error(`${page} has a block ${name} that nothing makes`)
    return `<!-- published ${name}: made by \`npm run published\` from ${block.from} -->\n\n${block.text(from)}\n<!-- /published -->`
  })
}

/** The page without its generated blocks: what a person wrote. Line numbers stay. */
export const handwritten = (text: string): string => text.replace(marked, block => block.replace(/[^\n]/g, ''))

/** Names of the blocks that a page shows. */
export const shown = (text: string): string[] => [...text.matchAll(marked)].map(match => match[1] ?? '')

/** What every published file must hold, by its name. */
export function outputs(root: string): Map<string, string> {
  const from = readResults(root)
  const made = pages.map(page => [page, fill(page, readFileSync(path.join(root, page), 'utf8'), from)] as const)
  return new Map([...made, ...Object.entries(files).map(([name, make]) => [name, make(from)] as const)])
}
