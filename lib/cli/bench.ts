// bench.ts: `polylm bench`: how fast a model runs here, beside what this machine's memory can deliver.
// Weights are random for --shape, so no download is needed; speed does not depend on their values.
// Trap: timed numbers are for reading and comparing on one machine in one hour, never for assertions.
import { writeFile } from 'node:fs/promises'
import { Command, InvalidArgumentError, Option } from 'commander'
import { probeBandwidth } from '../bench-support.js'
import { barChart } from './bench-chart.js'
import { measure } from './bench-measure.js'
import type { BenchPlan, BenchReport } from './bench-measure.js'
import { benchModel, shapes } from './bench-shapes.js'
import { integerList } from './decoding-flags.js'
import { UsageError } from './failure.js'
import { Interrupt } from './interrupt.js'
import { addModelFlags, loadOptions, splitModel } from './model-flags.js'
import { bytes, note, paint, print, printJson, table } from './terminal.js'

const examples = `
Examples:
  polylm bench --shape 1.7b
  polylm bench ./polylm-13b --batch 1,8 --json
  polylm bench --shape tiny --smoke`

interface BenchOptions {
  readonly shape?: string
  readonly smoke?: true
  readonly batch: readonly number[]
  readonly prefill: readonly number[]
  readonly tokens: number
  readonly json?: true
  readonly svg?: string
}

function counts(text: string): number[] {
  const list = integerList(text)
  if (list.length === 0 || list.some(value => value < 1)) throw new InvalidArgumentError('It must be as 1,4,8.')
  return list
}

/** The `bench` command. */
export function benchCommand(): Command {
  const command = new Command('bench')
    .description('speed of a model beside the limits of this machine')
    .usage('[options] <model | --demo | --shape 1.7b>')
    .argument('[model]', 'a directory in Hugging Face layout')
    .addOption(new Option('--shape <name>', 'random weights of this shape').choices(Object.keys(shapes)))
    .addOption(new Option('--prefill <list>', 'prompt lengths').argParser(counts).default([128, 512], '128,512'))
    .addOption(new Option('--batch <list>', 'sequences decoded together').argParser(counts).default([1, 4, 8], '1,4,8'))
    .addOption(new Option('--tokens <n>', 'new tokens of each sequence').argParser(text => counts(text)[0]).default(32))
    .option('--smoke', 'sizes of a test run: a few tokens, batch 1 and 2')
    .option('--json', 'print one JSON object')
    .option('--svg <file>', 'write a bar chart')
  return addModelFlags(command).addHelpText('after', examples).action(() => bench(command))
}

async function bench(command: Command): Promise<void> {
  const options = command.opts<BenchOptions>()
  if (options.shape !== undefined && (command.args.length > 0 || command.getOptionValue('demo') === true)) {
    throw new UsageError('a model and --shape were given', 'give one of them')
  }
  const dir = options.shape === undefined ? splitModel(command, 0).dir : undefined
  const load = loadOptions(command)
  const plan: BenchPlan = options.smoke === true
    ? { prefill: [16], batch: [1, 2], tokens: 4, rounds: 1 }
    : { prefill: options.prefill, batch: options.batch, tokens: options.tokens, rounds: 3 }
  const interrupt = new Interrupt()
  try {
    note(paint('dim', 'measuring the memory ...', process.stderr))
    const before = await probeBandwidth(typeof load.threads === 'number' ? load.threads : 0)
    note(paint('dim', 'loading ...', process.stderr))
    const source = dir ?? { shape: options.shape ?? '' }
    const report = await measure(() => benchModel(source, load, interrupt.signal), plan, before, interrupt.signal)
    if (options.svg !== undefined) await writeFile(options.svg, barChart(report))
    if (options.json === true) await printJson(report)
    else await print(asText(report))
  } finally {
    interrupt.release()
  }
}

const rate = (value: number): string => value.toPrecision(3)

/** The report as people read it. */
export function asText(report: BenchReport): string {
  const { model, machine, load, prefill, decode, memory, eventLoop } = report
  const head = table([
    ['model', `${model.name}: ${model.layers} layers, hidden ${model.hiddenSize}, ` +
      `vocabulary ${model.vocabSize}, ${model.dtype}`],
    ['machine', `${machine.cpu}, ${machine.cores} cores, ${machine.device}, Node ${machine.node}`],
    ['memory reads', `${rate(machine.readGBps)} GB/s (after the run ${rate(machine.readGBpsAfter)})`],
    ['load', `${load.seconds.toFixed(2)} s for ${bytes(load.bytes)}, ${rate(load.GBps)} GB/s`],
    ['weights/step', `${bytes(model.bytesPerStep)}, so at most ` +
      `${rate(machine.readGBps * 1e9 / model.bytesPerStep)} steps/s from memory`],
    ['peak memory', bytes(memory.peakRss)],
    ['event loop', `p99 delay ${eventLoop.loadP99Ms.toFixed(1)} ms while loading, ` +
      `${eventLoop.generateP99Ms.toFixed(1)} ms while generating`],
  ])
  const prefillRows = prefill.map(row => [
    `${row.promptTokens}`, rate(row.tokensPerSecond), `${row.timeToFirstTokenMs.toFixed(1)} ms`])
  const decodeRows = decode.map(row => [
    `${row.batch}`, rate(row.tokensPerSecond), rate(row.stepsPerSecond), rate(row.weightGBps),
    row.ofBandwidth.toFixed(2)])
  return head + '\n' + table([['prompt', 'tokens/s', 'first token after'], ...prefillRows]) + '\n' +
    table([['batch', 'tokens/s', 'steps/s', 'GB/s of weights', 'of measured reads'], ...decodeRows])
}
