// bench.ts: `polylm bench`: how fast a model runs here, beside what this machine's memory and arithmetic can deliver.
// Weights are random for --shape, so no download is needed; speed does not depend on their values.
// Trap: timed numbers are for reading and comparing on one machine in one hour, never for assertions.
import { Command, InvalidArgumentError, Option } from 'commander'
import { Model } from '../index.js'
import { benchChart } from './bench-chart.js'
import { answerProbes, measureLimits } from './bench-limits.js'
import { limitsReport, measure, threadsOf } from './bench-measure.js'
import type { BenchPlan } from './bench-plan.js'
import { asText, rate } from './bench-report.js'
import { benchSource, shapes } from './bench-shapes.js'
import type { Limits } from './bench-stats.js'
import { integerList } from './decoding-flags.js'
import { UsageError } from './failure.js'
import { checkWritable, writeWhole } from './files.js'
import { Interrupt } from './interrupt.js'
import { addModelFlags, loadOptions, splitModel } from './model-flags.js'
import { print, printJson, table } from './terminal.js'

const examples = `
The machine's limits are measured before and after each run. A run whose limits differ by more than 10 % is repeated; a
row for which that does not help is marked noisy.

Examples:
  polylm bench --shape 1.7b
  polylm bench --shape 1.7b --batch 1,16 --depth 0,1900 --json
  polylm bench ./polylm-13b --prompt 128 --batch 1,8 --svg speed.svg
  polylm bench --limits`

interface BenchOptions {
  readonly shape?: string
  readonly smoke?: true
  readonly limits?: true
  readonly answerProbes?: true
  readonly prompt: readonly number[]
  readonly batch: readonly number[]
  readonly depth?: readonly number[]
  readonly tokens: number
  readonly repeats: number
  readonly json?: true
  readonly svg?: string
}

function counts(least: number, most: number): (text: string) => number[] {
  return text => {
    const list = integerList(text)
    if (list.length === 0 || list.some(value => value < least || value > most)) {
      const example = least === 0 ? '0,1900' : '1,4,16'
      throw new InvalidArgumentError(`It must be numbers from ${least} to ${most}, as ${example}.`)
    }
    return list
  }
}

function one(least: number, most: number): (text: string) => number {
  const read = counts(least, most)
  return text => {
    const [value, second] = read(text)
    if (value === undefined || second !== undefined) throw new InvalidArgumentError('It must be one number.')
    return value
  }
}

/** The `bench` command. */
export function benchCommand(): Command {
  const command = new Command('bench')
    .description('measure the speed of a model and the limits of this machine')
    .usage('[options] <model | --demo | --shape 1.7b>')
    .argument('[model]', 'a directory in Hugging Face layout')
    .addOption(new Option('--shape <name>', 'use random weights of this shape').choices(Object.keys(shapes)))
    .addOption(new Option('--prompt <list>', 'prompt lengths in tokens, for the prefill rows')
      .argParser(counts(1, 1_000_000)).default([128, 512, 2000], '128,512,2000'))
    .addOption(new Option('--batch <list>', 'numbers of sequences that are decoded together')
      .argParser(counts(1, 1024)).default([1, 4, 16, 64], '1,4,16,64'))
    .addOption(new Option('--depth <list>',
      'tokens of context before the measured ones (default: 0, and 1900 for one sequence)')
      .argParser(counts(0, 1_000_000)))
    .addOption(new Option('--tokens <n>', 'new tokens per sequence').argParser(one(2, 1_000_000)).default(32))
    .addOption(new Option('--repeats <n>', 'undisturbed runs per row; at most twice as many are tried')
      .argParser(one(1, 1000)).default(3))
    .option('--smoke', 'a quick test: a few tokens, one round')
    .option('--limits', 'measure only the limits of the machine')
    .addOption(new Option('--answer-probes').hideHelp())
    .option('--json', 'print one JSON object')
    .option('--svg <file>', 'also draw the results into this file')
  return addModelFlags(command).addHelpText('after', examples).action(() => bench(command))
}

async function bench(command: Command): Promise<void> {
  const options = command.opts<BenchOptions>()
  const load = loadOptions(command)
  const probe = { threads: threadsOf(load), dtype: load.dtype ?? 'bf16', smoke: options.smoke === true }
  if (options.answerProbes === true) return await answerProbes(probe)
  if (options.limits === true) return await printLimits(command, await measureLimits(probe))
  if (options.shape !== undefined && (command.args.length > 0 || command.getOptionValue('demo') === true)) {
    throw new UsageError('a model and --shape were given', 'give one of them')
  }
  const dir = options.shape === undefined ? splitModel(command, 0).dir : undefined
  if (options.svg !== undefined) await checkWritable(options.svg)
  const interrupt = new Interrupt()
  try {
    const source = await benchSource(dir ?? { shape: options.shape ?? '' }, interrupt.signal)
    const [cpu] = await Model.devices()
    const report = await measure(source, planOf(options), load, cpu?.free ?? 0, interrupt.signal)
    if (options.json === true) await printJson(report)
    else await print(asText(report))
    if (options.svg !== undefined) await writeWhole(options.svg, benchChart(report))
  } finally {
    interrupt.release()
  }
}

function planOf({ smoke, prompt, batch, depth, tokens, repeats }: BenchOptions): BenchPlan {
  if (smoke === true) return { prompt: [16], batch: [1, 2], depth: [0, 64], tokens: 4, repeats: 1, smoke }
  return { prompt, batch, depth, tokens, repeats, smoke: false }
}

async function printLimits(command: Command, limits: Limits): Promise<void> {
  const report = limitsReport([limits])
  if (command.getOptionValue('json') === true || report === null) return await printJson(report)
  await print(table([
    ['memory bandwidth', `${rate(limits.readBytesPerSecond / 1e9)} GB/s`],
    ['compute', `${rate(limits.matrixFlopsPerSecond / 1e12)} TFLOP/s`],
  ]))
}
