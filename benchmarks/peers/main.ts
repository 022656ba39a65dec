// main.ts: `npm run peers`: measures this project and its peers side by side on random weights of one shape, in turns.
// Peers are installed or built by whoever runs it (see ../README.md) and found by the folders that are given.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, totalmem } from 'node:os'
import path from 'node:path'
import { Command, Option } from 'commander'
import { LimitsProbe } from '../../lib/cli/bench-limits.js'
import { limitsReport } from '../../lib/cli/bench-measure.js'
import { shapes } from '../../lib/cli/bench-shapes.js'
import type { Shape } from '../../lib/cli/bench-shapes.js'
import { integer, integerList } from '../../lib/cli/decoding-flags.js'
import { bytes, note, print } from '../../lib/cli/terminal.js'
import { llamaCpp, nodeLlamaCpp, polylm } from './engines.js'
import type { Engine, Task } from './engines.js'
import { writeGguf } from './gguf.js'
import { peerChart, peerMarkdown, peerText } from './report.js'
import type { PeerReport } from './report.js'
import { measureRounds, peakOf, summarize } from './rounds.js'

const root = path.resolve(__dirname, '..')
const program = path.join(root, 'dist/cli.js')

interface MeasureOptions extends Task {
  readonly rounds: number
  readonly gguf?: string
  readonly llamaCpp?: string
  readonly nodeLlamaCpp?: string
  readonly out?: string
}

function enginesOf({ gguf, llamaCpp: llama, nodeLlamaCpp: node }: MeasureOptions): Engine[] {
  if ((llama !== undefined || node !== undefined) && gguf === undefined) throw new Error('--gguf is missing: `peers gguf FILE` writes one')
  const script = path.join(root, 'benchmarks/peers/node-llama-cpp.mjs')
  return [
    polylm(program),
    ...(llama === undefined ? [] : [llamaCpp(llama, gguf ?? '')]),
    ...(node === undefined ? [] : [nodeLlamaCpp(node, gguf ?? '', script)]),
  ]
}

/** The commit of this checkout, with a plus where files differ from it; 'unknown' outside of one. */
function commit(): string {
  try {
    const git = (...args: string[]): string => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim()
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') === '' ? '' : '+')
  } catch {
    return 'unknown'
  }
}

async function measure(options: MeasureOptions): Promise<void> {
  if (!existsSync(program)) throw new Error('dist/cli.js is missing: npm run build')
  const engines = enginesOf(options)
  const task = { ...options, shape: options.shape }
  const probe = new LimitsProbe({ threads: options.threads, dtype: 'bf16', smoke: false }, program)
  try {
    const trials = await measureRounds(engines, task, options.rounds, () => probe.take(), note)
    const names = engines.map(({ name }) => name)
    const report: PeerReport = {
      schema: 1, commit: commit(), shape: options.shape, threads: options.threads, rounds: options.rounds,
      machine: {
        cpu: cpus()[0]?.model.trim() ?? 'unknown', cores: cpus().length, memory: totalmem(),
        platform: `${process.platform}-${process.arch}`, node: process.versions.node, date: new Date().toISOString(),
      },
      limits: limitsReport(trials.flatMap(({ before, after }) => [before, after])),
      engines: names.map(name => ({
        name, version: trials.find(({ engine }) => engine === name)?.run.version ?? 'unknown', peakMemory: peakOf(trials, name),
      })),
      results: summarize(trials, names),
    }
    if (options.out !== undefined) writeFileSync(options.out, JSON.stringify(report, null, 1) + '\n')
    await print(peerText(report))
  } finally {
    probe.close()
  }
}

const readReport = (file: string): PeerReport => JSON.parse(readFileSync(file, 'utf8')) as PeerReport

const root_ = new Command('peers').description('this project and its peers side by side, on random weights of one shape')
const shapeOption = new Option('--shape <name>', 'of the model').choices(Object.keys(shapes)).default('1.7b')
root_.command('gguf <file>').description('write a GGUF file with random weights').addOption(shapeOption)
  .action(async (file: string, { shape }: { shape: string }) => {
    note(`${bytes(await writeGguf(file, shapes[shape] as Shape))} written`)
  })
root_.command('measure').description('measure, in turns').addOption(shapeOption)
  .option('--llama-cpp <folder>', 'where llama-bench and llama-batched-bench are')
  .option('--node-llama-cpp <folder>', 'where node-llama-cpp was installed from npm')
  .option('--gguf <file>', 'what `peers gguf` wrote, for the two')
  .addOption(new Option('--threads <n>').argParser(integer).default(availableParallelism()))
  .addOption(new Option('--prompt <list>').argParser(integerList).default([128, 512], '128,512'))
  .addOption(new Option('--batch <list>').argParser(integerList).default([1, 16], '1,16'))
  .addOption(new Option('--tokens <n>', 'new tokens of each sequence').argParser(integer).default(16))
  .addOption(new Option('--rounds <n>').argParser(integer).default(3))
  .option('--out <file>', 'write the results as JSON')
  .action(measure)
root_.command('table <json>').description('results as Markdown').action(async (file: string) => print(peerMarkdown(readReport(file))))
root_.command('plot <json> <svg>').description('results as a picture')
  .action((file: string, svg: string) => { writeFileSync(svg, peerChart(readReport(file))) })
await root_.parseAsync()
