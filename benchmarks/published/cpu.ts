// cpu.ts: what is published of the CPU's results: tables and sentences made from bench.json, engine.json, peers.json,
// gemm.json and onednn.json. Every function is one block of a page.
import { limitNames } from '../../lib/cli/bench-report.js'
import type { BenchReport, BenchResult } from '../../lib/cli/bench-report.js'
import { bytesPerStep, describeRow, kvBytesPerToken } from '../../lib/cli/bench-plan.js'
import { shapes } from '../../lib/cli/bench-shapes.js'
import type { Shape } from '../../lib/cli/bench-shapes.js'
import { count } from '../../lib/cli/terminal.js'
import { between, binary, duration, gigabytes, markdown, percent, ranged, three, times } from './rules.js'
import { observed, observedRuns, origin } from './results.js'
import type { Results } from './results.js'

// ------------------------------------------------------------------------------------------- bench.json

const isPrompt = (row: BenchResult): boolean => row.test === 'prefill'

function shareOf({ fractionOfLimit, limitedBy }: BenchResult): string {
  return fractionOfLimit === null || limitedBy === null ? '' : `${percent(fractionOfLimit)} of ${limitNames[limitedBy]}`
}

function nameOf(row: BenchResult): string {
  const words = describeRow(row).replace(/\d{4,}/, digits => count(Number(digits)))
  return isPrompt(row) ? words : `generation, ${words}`
}

const noise = (row: BenchResult): string => (row.noisy ? ' (noisy)' : '')

/** The machine and the model in words. */
function setting({ model, machine }: BenchReport): string {
  const unit = machine.device.replace(/^cpu /, '').toUpperCase()
  return `PolyLM ${model.name.replace(/ .*/, '').toUpperCase()}'s shape with random ${model.dtype === 'bf16' ? 'bfloat16' : 'float32'} weights, ` +
    `${machine.cores} cores of an ${machine.cpu.replace(/\(R\)/g, '')} (${unit}), Node ${machine.node}, ${machine.date.slice(0, 10)}`
}

const delays = ({ results }: BenchReport): string =>
  `${between(results.map(row => row.eventLoopDelayMs), value => value.toFixed(0))} ms`

/** The README's table of speeds. */
export function benchShort({ bench }: Results): string {
  const rows = bench.results.map(row => [
    nameOf(row), ranged(row.tokensPerSecond, row.tokensPerSecondMin, row.tokensPerSecondMax) + noise(row), shareOf(row), isPrompt(row) ? duration(row.timeToFirstTokenMs ?? NaN) : ''])
  return `${setting(bench)}, next to the machine's limits, measured in the same run; medians (minimum to maximum):\n\n` +
    markdown(['', 'tokens/s', 'share of the hardware limit', 'first token'], rows) +
    `\nPeak memory with Node: ${gigabytes(bench.memory.peak)}. Event-loop delay at p99: ${delays(bench)}, depending on the row.\n`
}

/** The whole table of bench.json. */
export function benchLong(results: Results): string {
  const { bench } = results
  const rows = bench.results.map(row => [
    nameOf(row), ranged(row.tokensPerSecond, row.tokensPerSecondMin, row.tokensPerSecondMax) + noise(row), shareOf(row),
    isPrompt(row) ? duration(row.timeToFirstTokenMs ?? NaN) : '', `${row.eventLoopDelayMs.toFixed(0)} ms`])
  const { limits, load } = bench
  const others = [128, 512, 2000].map(length =>
    `${between(observedRuns(results, 'bench-other-runs', `prompt ${length}`))} for a prompt of ${count(length)}`)
  return `${setting(bench)}; medians (minimum to maximum) of ${Math.max(...bench.results.map(row => row.runs))} runs.\n\n` +
    markdown(['', 'tokens/s', 'share of the hardware limit', 'first token', 'event-loop delay, p99'], rows) +
    `\nPeak memory with Node: ${gigabytes(bench.memory.peak)}. Weights made and loaded in ${duration(load.seconds * 1000)}.` +
    (limits === null ? '\n' : ` The machine's limits during the run: memory bandwidth ` +
      `${ranged(limits.readBytesPerSecond / 1e9, limits.readBytesPerSecondMin / 1e9, limits.readBytesPerSecondMax / 1e9)} GB/s, compute ` +
      `${ranged(limits.matrixFlopsPerSecond / 1e12, limits.matrixFlopsPerSecondMin / 1e12, limits.matrixFlopsPerSecondMax / 1e12)} TFLOP/s` +
      `${limits.noisy ? '; they changed by more than 10 % (noisy)' : ''}.\n`) +
    `\nOther runs within two hours, tokens/s: ${others.join(', ')} ${origin(results, 'bench-other-runs')}.\n`
}

// ------------------------------------------------------------------------------------------ engine.json

/** Many callers on one model. */
export function engineTables(results: Results): string {
  const { engine } = results
  const [short, long] = engine['time to first token, ms']
  const [prefix] = engine['first token behind a beginning of 1500 tokens, ms']
  const [single, beams] = engine['memory of a prompt of 2000 tokens']
  const [choices] = engine['log-likelihood of 4 choices behind 1000 tokens, ms']
  if (!short || !long || !prefix || !single || !beams || !choices) throw new Error('engine.json misses a table')
  const ms = (value: number | undefined): string => duration(value ?? NaN)
  return markdown(['callers', 'tokens/s, all together', 'share of memory bandwidth'], engine['aggregate decode'].map(row =>
    [String(row['callers']), three(row['tokens/s'] ?? NaN), percent((row['of memory limit %'] ?? NaN) / 100)])) + '\n' +
    markdown(['', '', ''], [
      [`first token of a prompt of ${short.prompt}`, `${ms(short.alone)} alone`, `${ms(short.together)} while a prompt of ${long.prompt} is computed`],
      [`first token of a prompt of ${long.prompt}`, `${ms(long.alone)} alone`, `${ms(long.together)} with the short one`],
      ['first token after 1,500 tokens', `${ms(prefix['uncached'])} uncached`, `${ms(prefix['cached'])} cached`],
      ['KV cache of a prompt of 2,000 tokens and its output', `${single['KV MiB']} MiB for one sequence`, `${beams['KV MiB']} MiB for ${beams['beams']} beams`],
      ['log-likelihood of 4 choices after 1,000 tokens', `${ms(choices['separately'])} one after the other`, `${ms(choices['shared'])} together`],
    ]) + engineOthers(results)
}

const knownTables = [
  'aggregate decode', 'time to first token, ms', 'first token behind a beginning of 1500 tokens, ms', 'memory of a prompt of 2000 tokens',
  'log-likelihood of 4 choices behind 1000 tokens, ms', 'guessed tokens (speculate)',
]

/** Tables of engine.json that have no form of their own above: shown as they are, so that none is left out. */
function engineOthers({ engine }: Results): string {
  const others = Object.entries(engine).filter(([name, value]) => Array.isArray(value) && !knownTables.includes(name))
  return others.map(([name, value]) => {
    const rows = value as ReadonlyArray<Readonly<Record<string, number | string>>>
    const head = [...new Set(rows.flatMap(row => Object.keys(row)))]
    const cell = (content: number | string | undefined): string =>
      (typeof content !== 'number' ? content ?? '' : Number.isInteger(content) ? count(content) : three(content))
    return `\n${name.replace(/^./, c => c.toUpperCase())}:\n\n` + markdown(head, rows.map(row => head.map(key => cell(row[key]))))
  }).join('')
}

/** How long one call waits beside others, of two versions. */
export function turnsTable({ turns }: Results): string {
  const { before, after, cpu: processor, cores, date } = turns
  const of = (version: typeof before): typeof before['one call beside others, demo model'] => version['one call beside others, demo model']
  const show = (line: { ms: number; 'ms, worst': number; steps: number } | undefined): string[] => (line === undefined ? ['not measured', '']
    : [`${duration(line.ms)}${line['ms, worst'] > line.ms ? ` (worst ${duration(line['ms, worst'])})` : ''}`, count(line.steps)])
  const rows = of(after).map(line => {
    const earlier = of(before).find(({ tokens, beside }) => tokens === line.tokens && beside === line.beside)
    return [line.tokens === 1 ? '1 token' : `${line.tokens} tokens`, line.beside, ...show(earlier), ...show(line)]
  })
  return `${cores} cores of a shared ${processor}, ${date}; medians of ${after.repeats} runs, before (commit ${before.commit ?? 'unknown'}) of ${before.repeats}.\n\n` +
    markdown(['call of', 'beside', 'before', 'steps', 'now', 'steps'], rows)
}

interface Guessing { readonly task: string; readonly off: number; readonly lookup: number; readonly perStep: number; readonly ratio: number }

function guessing({ engine }: Results): Array<Guessing & { readonly model: string }> {
  return engine['guessed tokens (speculate)'].map(row => {
    const [off, lookup, perStep] = [row['off tokens/s'], row['lookup tokens/s'], row['lookup tokens/step']].map(Number) as [number, number, number]
    return { model: String(row['model']), task: String(row['task']), off, lookup, perStep, ratio: lookup / off }
  })
}

/** What `speculate` gained and cost. */
export function speculateTable(results: Results): string {
  const rows = guessing(results).map(({ model, task, off, lookup, perStep, ratio }) =>
    [model.replace(/^demo$/, 'demo model').replace(/^(\S+)b, random$/, '$1B shape, random weights'), task, three(off), three(lookup), times(ratio), perStep.toFixed(1)])
  const { cores, isa, date } = results.engine
  return markdown(['model', 'task', "tokens/s, `false`", "tokens/s, `'lookup'`", 'ratio', 'tokens per step'], rows) +
    `\n${cores} cores of an ${results.engine.cpu.replace(/\(R\)/g, '')} (${isa.toUpperCase()}), ${date}. Single runs with steps of a fraction of a millisecond (demo ` +
    `model) vary: translations reached ${times(observed(results, 'speculate-other-day', 'demo model, translation'))} of their speed on another day.\n`
}

// ------------------------------------------------------------------------------------------- peers.json

/** One paragraph next to other engines. */
export function peersShort({ peers }: Results): string {
  const sentences = peers.engines.slice(1).map(({ name }) => {
    const rows = peers.results.filter(row => row.engine === name)
    const prompts = rows.filter(row => row.test === 'prefill').map(row => row.ratio)
    const decode = rows.filter(row => row.test === 'decode')
      .map(row => `${times(row.ratio)} times its speed for ${row.batch === 1 ? 'one sequence' : `${row.batch} sequences`}`)
    return `${name}: ${decode.join(', ')}, ${between(prompts, times)} times for prompts`
  })
  const noisy = peers.results.filter(row => row.noisy).length
  return `Interleaved with other engines in one run (${peers.threads} threads, the same shape, medians of ratios within each of ` +
    `${peers.rounds} rounds; ${noisy} of ${peers.results.length} rows were noisy):\n\n${sentences.map(line => `- ${line}\n`).join('')}`
}

/** Remarks below the table that report.ts makes. */
export function peersNotes(results: Results): string {
  const { peers } = results
  const earlier = observedRuns(results, 'peers-earlier', 'ratios to llama.cpp').map(times)
  return `${peers.rounds} interleaved rounds; medians (minimum..maximum) in tokens/s, ratios within a round. ` +
    `${peers.engines.slice(1).map(({ name, version }) => `${name} ${version}`).join(', ')}; ${peers.threads} threads, ${peers.machine.date.slice(0, 10)}. ` +
    `Half an hour before, the rows of the table in their order came out at ${earlier.join(', ')} times llama.cpp's speed: llama.cpp waits for its ` +
    'slowest thread and suffers more where cores are shared.\n'
}

// ------------------------------------------------------------------------------- gemm.json, onednn.json

const meanOf = (values: readonly number[]): number => Math.exp(values.reduce((sum, value) => sum + Math.log(value), 0) / values.length)

/** Single products next to oneDNN. */
export function onednnTable({ onednn }: Results): string {
  const rows = [...new Set(onednn.map(line => line.name.replace(/.*, /, '')))]
  return markdown(['', 'geometric mean of the ratios', 'single shapes'], rows.map(name => {
    const ratios = onednn.filter(line => line.name.endsWith(`, ${name}`)).map(line => line.ratio)
    return [name.replace(/\d{4,}/, digits => count(Number(digits))), `${times(meanOf(ratios))} times as fast`, between(ratios, times)]
  }))
}

/** Products of the core as shares of what the machine did at the same time. */
export function gemmTable(results: Results): string {
  const { gemm } = results
  const sizes = [...new Set(gemm.map(line => Number(/, (\d+) rows/.exec(line.name)?.[1])))].sort((a, b) => a - b)
  const rows = sizes.map(size => {
    const mine = gemm.filter(line => line.name.endsWith(`, ${size} rows`))
    const mean = gemm.find(line => line.name === `gemm, ${size} rows, geometric mean`)?.ratio ?? NaN
    const limit = mine[0]?.unit === 'GB/s' ? limitNames.memory : limitNames.matrix
    return [count(size), `${percent(mean)} of ${limit}`, between(mine.map(line => line.ratio), percent)]
  })
  const share = (entry: string, key: string): string => between(observedRuns(results, entry, key), percent)
  const other = (key: string): string => percent(observed(results, 'gemm-other-run', key))
  return markdown(['rows', 'geometric mean of all shapes', 'single shapes'], rows) +
    `\nAnother run, while all cores were shared with other guests: ${other('512 rows')} and ${other('2048 rows')} of compute at 512 and 2,048 rows, ` +
    `single shapes up to ${other('best shape')}, where ${other('bound of any loop on a shared core')} is the upper bound of any loop over tiles.\n\n` +
    `Without AMX, 512 rows: AVX-512 ${share('gemm-without-amx', 'avx512, 512 rows')} of its multiply-adds in registers, AVX2 ` +
    `${share('gemm-without-amx', 'avx2, 512 rows')}. Decode: AVX-512 ${share('gemm-without-amx', 'avx512, decode')} of memory bandwidth, AVX-512 BF16 ` +
    `${share('gemm-without-amx', 'avx512bf16, decode')}, AVX2 ${share('gemm-without-amx', 'avx2, decode')}. The whole forward pass without the engine: ` +
    `prompts of 512 tokens ${share('forward-pass', '512')} of compute (${share('forward-pass', '512, next to the version before')} when interleaved with ` +
    `the version before), of 2,000 tokens ${share('forward-pass', '2048')} ${origin(results, 'forward-pass')}.\n`
}

// --------------------------------------------------------------------------- loading, endurance, planning

/** Loading as a share of reading the same file. */
export function loadingTable(results: Results): string {
  const rows = Object.keys(results.observations['loading']?.values ?? {}).map(key =>
    [key, observedRuns(results, 'loading', key).map(percent).join(' and ')])
  return markdown(['weights', 'share of the speed of reading the file into memory, two runs'], rows) + `\n${origin(results, 'loading')}\n`
}

/** Long runs. */
export function enduranceText(results: Results): string {
  const n = (entry: string, key: string): string => count(observed(results, entry, key))
  return `- ${n('soak', 'requests')} requests from ${n('soak', 'callers')} callers: ${n('soak', 'MiB in the middle')} MiB resident half way, ` +
    `${n('soak', 'MiB at the end')} MiB at the end, file descriptors and threads as at the beginning; ${n('soak', 'workers')} workers and ` +
    `${n('soak', 'processes')} processes ended in the middle of generation, none crashed or hung ${origin(results, 'soak')}.\n` +
    `- Simulation with faults: ${n('simulation', 'seeds')} seeds, ${n('simulation', 'steps')} steps of the engine, ${n('simulation', 'device faults')} device ` +
    `faults, ${n('simulation', 'failed allocations')} failed allocations, ${n('simulation', 'violations')} violations ${origin(results, 'simulation')}.\n` +
    `- With steps in flight: ${n('simulation-ahead', 'seeds')} seeds, ${n('simulation-ahead', 'steps')} steps, ${n('simulation-ahead', 'ahead')} of them ahead ` +
    `of results, ${n('simulation-ahead', 'device faults')} device faults, ${n('simulation-ahead', 'violations')} violations ${origin(results, 'simulation-ahead')}.\n`
}

/** Memory of both published sizes, computed from their shapes. */
export function memoryPlan(): string {
  const sizes = ['1.7b', '13b'].map(name => shapes[name] as Shape)
  const row = (name: string, value: (shape: Shape) => string): string[] => [name, ...sizes.map(value)]
  // The token embedding is a matrix of its own besides the output layer's only where weights are not tied: PolyLM ties them.
  return markdown(['', 'PolyLM 1.7B', 'PolyLM 13B'], [
    row('weights in bfloat16', shape => gigabytes(bytesPerStep(shape, 'bf16'))),
    row('in float32', shape => gigabytes(bytesPerStep(shape, 'fp32'))),
    row('KV cache in bfloat16, one token', shape => binary(kvBytesPerToken(shape, 'bf16'))),
    row('KV cache, a full context of 2,048 tokens', shape => binary(shape.contextSize * kvBytesPerToken(shape, 'bf16'))),
  ])
}
