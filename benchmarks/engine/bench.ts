// bench.ts: `npm run bench:engine`: what many callers cost each other. Aggregate decode against what the memory
// delivers, a short prompt beside a long one, cached beginnings, beams' memory, choices that share a context, guessed
// tokens. Weights of the 1.7B shape are random: speed does not depend on them; copying is asked of the demo model.
// Trap: numbers are for reading beside the limit of the same run; nothing here is an assertion.
import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { createRandomModel, probeBandwidth } from '../../lib/bench-support.js'
import { bytesPerStep } from '../../lib/cli/bench-plan.js'
import { shapes, type Shape } from '../../lib/cli/bench-shapes.js'
import { median } from '../../lib/cli/bench-stats.js'
import { demoModel, Model, type GenerateOptions, type GenerateResult } from '../../lib/index.js'

const { values: flags } = parseArgs({ options: {
  shape: { type: 'string', default: '1.7b' }, smoke: { type: 'boolean', default: false }, json: { type: 'string' },
  only: { type: 'string' }, repeats: { type: 'string', default: '3' }, threads: { type: 'string' },
} })
const smoke = flags.smoke
const repeats = smoke ? 1 : Number(flags.repeats)
const shape = shapes[smoke ? 'tiny' : flags.shape] as Shape
const long = smoke ? 300 : 2000                  // tokens of a long prompt
const report: Record<string, unknown> = {}

const round = (value: number, digits = 1): number => Number(value.toFixed(digits))
const print = (text: string): void => { process.stdout.write(`${text}\n`) }

function table(title: string, rows: ReadonlyArray<Readonly<Record<string, number | string>>>): void {
  const heads = Object.keys(rows[0] ?? {})
  const cells = [heads, ...rows.map(row => heads.map(head => String(row[head])))]
  const widths = heads.map((_, i) => Math.max(...cells.map(row => row[i]?.length ?? 0)))
  print(`\n${title}`)
  for (const row of cells) print(`  ${row.map((cell, i) => cell.padStart(widths[i] ?? 0)).join('  ')}`)
  report[title] = rows
}

let state = 0x2545f491
function token(vocab: number): number {
  state ^= state << 13
  state ^= state >>> 17
  state ^= state << 5
  return (state >>> 0) % vocab
}
const prompt = (length: number): { tokens: Int32Array } => ({ tokens: Int32Array.from({ length }, () => token(shape.vocabSize)) })
const timed = async <T>(work: () => Promise<T>): Promise<[number, T]> => {
  const from = performance.now()
  const value = await work()
  return [performance.now() - from, value]
}

const exact = (maxTokens: number, more: GenerateOptions = {}): GenerateOptions => ({ maxTokens, stopTokenIds: [], ...more })

/** Decode of many at once: they start together, so the slowest one tells how long the steps took. */
async function decode(model: Model): Promise<void> {
  const tokens = smoke ? 4 : 24
  const stepBytes = bytesPerStep(shape, model.info.dtype)
  const rows = []
  for (const callers of [1, 4, 16, 64]) {
    const [rates, shares]: [number[], number[]] = [[], []]
    for (let i = 0; i < repeats; i++) {
      const before = await probeBandwidth(0)
      const all = await Promise.all(Array.from({ length: callers }, () => model.generate(prompt(8), exact(tokens))))
      const limit = (before + await probeBandwidth(0)) / 2
      const seconds = Math.max(...all.map(result => result.timings.decodeMs)) / 1000
      rates.push(callers * (tokens - 1) / seconds)
      shares.push(100 * stepBytes * (tokens - 1) / seconds / limit)
    }
    rows.push({ callers, 'tokens/s': round(median(rates)), 'of memory limit %': round(median(shares)) })
  }
  table('aggregate decode', rows)
}

/** A question of 8 tokens while a long prompt is being computed, against the same question alone. */
async function firstToken(model: Model): Promise<void> {
  const [alone, beside, longAlone, longBeside]: number[][] = [[], [], [], []]
  for (let i = 0; i < repeats; i++) {
    alone?.push((await model.generate(prompt(8), exact(1))).timings.timeToFirstTokenMs)
    longAlone?.push((await model.generate(prompt(long), exact(1))).timings.timeToFirstTokenMs)
    const stranger = model.generate(prompt(long), exact(1))
    await new Promise(resolve => setTimeout(resolve, 200))
    beside?.push((await model.generate(prompt(8), exact(1))).timings.timeToFirstTokenMs)
    longBeside?.push((await stranger).timings.timeToFirstTokenMs)
  }
  table('time to first token, ms', [
    { prompt: '8 tokens', alone: round(median(alone ?? [])), together: round(median(beside ?? [])) },
    { prompt: `${long} tokens`, alone: round(median(longAlone ?? [])), together: round(median(longBeside ?? [])) },
  ])
}

async function prefix(model: Model): Promise<void> {
  const length = smoke ? 200 : 1500
  const [cold, warm]: number[][] = [[], []]
  let cached = 0
  for (let i = 0; i < repeats; i++) {
    const { tokens } = prompt(length)
    const ask = async (): Promise<GenerateResult> => await model.generate({ tokens: [...tokens, ...prompt(16).tokens] }, exact(1))
    cold?.push((await ask()).timings.timeToFirstTokenMs)
    const second = await ask()
    warm?.push(second.timings.timeToFirstTokenMs)
    cached = second.usage.cachedTokens
  }
  table(`first token behind a beginning of ${length} tokens, ms`, [
    { uncached: round(median(cold ?? [])), cached: round(median(warm ?? [])), 'cached tokens': cached },
  ])
}

/** The most KV that a call held, in tokens. */
async function peakOf(model: Model, options: GenerateOptions): Promise<number> {
  let peak = 0
  const look = (): void => { peak = Math.max(peak, model.stats().kv.usedTokens) }
  const stream = await model.stream(prompt(long), { ...options, cacheSalt: String(token(1 << 30)) })
  for await (const _ of stream) look()
  return peak
}

async function beams(model: Model): Promise<void> {
  const { kv, memory } = model.stats()
  const bytes = memory.kv / kv.totalTokens
  const rows = []
  for (const numBeams of [1, 4]) {
    const peak = await peakOf(model, exact(smoke ? 8 : 24, numBeams > 1 ? { numBeams } : {}))
    rows.push({ beams: numBeams, 'KV tokens': peak, 'KV MiB': round(peak * bytes / 2 ** 20) })
  }
  table(`memory of a prompt of ${long} tokens`, rows)
}

/** Four answers behind one context in one call, and each behind a beginning that nobody else has. */
async function choices(model: Model): Promise<void> {
  const context = prompt(smoke ? 200 : 1000)
  const items = Array.from({ length: 4 }, () => ({ context, continuation: prompt(8) }))
  const [shared] = await timed(() => model.loglikelihood(items, { cacheSalt: 'shared' }))
  const [apart] = await timed(async () => {
    for (const [i, item] of items.entries()) await model.loglikelihood([item], { cacheSalt: `apart ${i}` })
  })
  table(`log-likelihood of 4 choices behind ${context.tokens.length} tokens, ms`, [{ shared: round(shared), separately: round(apart) }])
}

async function speculation(model: Model, rows: Array<Record<string, number | string>>, name: string, asks: ReadonlyArray<
  readonly [string, Parameters<Model['generate']>[0], GenerateOptions]>): Promise<void> {
  for (const [task, ask, options] of asks) {
    const row: Record<string, number | string> = { model: name, task }
    for (const speculate of [false, 'lookup'] as const) {
      const rates = []
      const before = model.stats().counters
      for (let i = 0; i < repeats; i++) rates.push((await model.generate(ask, { ...options, speculate })).timings.tokensPerSecond)
      const after = model.stats().counters
      const label = speculate === false ? 'off' : 'lookup'
      row[`${label} tokens/s`] = round(median(rates))
      row[`${label} tokens/step`] = round((after.completionTokens - before.completionTokens) / (after.steps - before.steps), 2)
    }
    rows.push(row)
  }
}

async function speculationRows(model: Model, rows: Array<Record<string, number | string>>): Promise<void> {
  const period = Array.from({ length: 12 }, () => token(shape.vocabSize))
  const bias = period.map((id, i): [number[], number] => [[id, period[(i + 1) % 12] ?? 0], 1000])
  const tokens = smoke ? 12 : 40
  await speculation(model, rows, `${flags.shape}, random`, [
    ['copies everything', { tokens: [...period, ...period] }, exact(tokens, { bias })],
    ['copies nothing', prompt(24), exact(tokens, { temperature: 5, seed: 3 })],
  ])
}

async function demo(rows: Array<Record<string, number | string>>): Promise<void> {
  const model = await Model.load(demoModel)
  const text = 'Beijing is the capital of China.'
  const ids = Array.from(new Set(model.tokenizer.encode(text, { addSpecialTokens: false })))
  const bias = ids.map((id, i): [number[], number] => [[id, ids[(i + 1) % ids.length] ?? 0], 1000])
  await speculation(model, rows, 'demo', [
    ['translation', `${text}\nTranslate this sentence from English to Chinese.`, { maxTokens: 64 }],
    ['repeats itself', { tokens: [...ids, ...ids] }, exact(64, { bias })],
    ['free text', 'The weather is nice today and', exact(64, { temperature: 1.2, seed: 5 })],
  ])
  await model.dispose()
}

/** How long a call waits beside what others have asked; their calls are then cancelled. */
async function turns(): Promise<void> {
  const model = await Model.load(demoModel)
  const text = 'The quick brown fox jumps over the lazy dog, and nobody knows why it does. '.repeat(smoke ? 40 : 1290)   // 96 kB
  const many = smoke ? 50 : 1000
  const scores = (count: number) => (signal: AbortSignal): Promise<unknown> => Promise.all(Array.from({ length: count },
    (_, i) => model.score(text, { cacheSalt: `scorer ${i}`, signal })))
  const requests = (signal: AbortSignal): Promise<unknown> => Promise.all(Array.from({ length: many }, (_, i) =>
    model.generate({ tokens: [5 + i, 7, 9] }, exact(64, { cacheSalt: 'others', signal }))))
  const cases: ReadonlyArray<readonly [string, string, number, (signal: AbortSignal) => Promise<unknown>]> = [
    ['nothing', 'mine', 1, () => Promise.resolve()],
    ['a score of 96 kB', 'mine', 1, scores(1)],
    ['four scores of 96 kB', 'mine', 1, scores(4)],
    [`${many} calls of 64 tokens`, 'mine', 1, requests],
    [`${many} calls of 64 tokens of the same caller`, 'others', 1, requests],
    ['nothing', 'mine', 64, () => Promise.resolve()],
    [`${many} calls of 64 tokens`, 'mine', 64, requests],
  ]
  const rows = []
  for (const [beside, cacheSalt, tokens, load] of cases) {
    const [waits, steps]: [number[], number[]] = [[], []]
    for (let i = 0; i < repeats; i++) {
      const stop = new AbortController()
      const others = load(stop.signal).catch(() => { /* cancelled below */ })
      await new Promise(resolve => setTimeout(resolve, 200))
      const before = model.stats().counters.steps
      const [ms] = await timed(() => model.generate({ tokens: [5, 7, 9] }, exact(tokens, { cacheSalt })))
      waits.push(ms)
      steps.push(model.stats().counters.steps - before)
      stop.abort()
      await others
    }
    rows.push({ tokens, beside, 'ms': round(median(waits)), 'ms, worst': round(Math.max(...waits)), 'steps': median(steps) })
  }
  await model.dispose()
  table('one call beside others, demo model', rows)
}

const wanted = (name: string): boolean => flags.only === undefined || flags.only.split(',').includes(name)
const threads = flags.threads === undefined ? {} : { threads: Number(flags.threads) }
const shapeName = smoke ? 'tiny' : flags.shape
print(`${cpus()[0]?.model.trim() ?? 'unknown'}, ${cpus().length} cores, Node ${process.versions.node}, shape ${shapeName}`)
async function ofShape(): Promise<void> {
  const model = await createRandomModel(shape, { ...threads, device: 'cpu', kvMemory: smoke ? '64MiB' : '3GiB' })
  const { device, dtype } = model.info
  print(`loaded in ${round(performance.now() / 1000)} s`)
  const limit = await probeBandwidth(0)
  print(`${device.kind} ${device.isa ?? ''}, ${dtype}; memory delivers ${round(limit / 1e9)} GB/s, ` +
    `a step reads ${round(bytesPerStep(shape, dtype) / 1e9, 2)} GB`)
  Object.assign(report, { shape: flags.shape, isa: device.isa, dtype, memoryGBps: round(limit / 1e9) })
  await model.generate(prompt(40), exact(2))
  for (const [name, part] of Object.entries(parts)) if (wanted(name)) await part(model)
  const guessed: Array<Record<string, number | string>> = []
  if (wanted('speculation')) await speculationRows(model, guessed)
  await model.dispose()
  if (wanted('speculation')) {
    await demo(guessed)
    table('guessed tokens (speculate)', guessed)
  }
}

const parts = { decode, first: firstToken, prefix, beams, choices }
Object.assign(report, { cpu: cpus()[0]?.model.trim(), cores: cpus().length, node: process.versions.node,
  date: new Date().toISOString().slice(0, 10) })
if ([...Object.keys(parts), 'speculation'].some(wanted)) await ofShape()
if (wanted('turns')) await turns()
if (flags.json !== undefined) writeFileSync(flags.json, `${JSON.stringify(report, null, 2)}\n`)
