// node-llama-cpp.mjs: measures node-llama-cpp on a GGUF file: node node-llama-cpp.mjs FOLDER FILE TASK, where FOLDER is
// where it was installed from npm and TASK is JSON: { threads, prompt, batch, tokens }. Prints one line of JSON.
// Trap: its public interface hands out one token at a time, so what is measured includes its own loop in JavaScript.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [folder, file, task] = process.argv.slice(2)
if (task === undefined) {
  console.error('usage: node node-llama-cpp.mjs FOLDER MODEL.gguf \'{"threads":4,"prompt":[128],"batch":[1],"tokens":16}\'')
  process.exit(2)
}
const { threads, prompt, batch, tokens } = JSON.parse(task)
const home = path.resolve(folder, 'node_modules/node-llama-cpp')
const { version } = JSON.parse(readFileSync(path.join(home, 'package.json'), 'utf8'))
const { getLlama } = await import(pathToFileURL(path.join(home, 'dist/index.js')).href)

const short = 16
const sequences = Math.max(...batch)
const longest = Math.max(...prompt, short + tokens) + 8
const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: 'error', maxThreads: threads })
const model = await llama.loadModel({ modelPath: path.resolve(file) })
const open = (count, size) =>
  model.createContext({ contextSize: size, sequences: count, batchSize: Math.min(2048, Math.max(512, count * short)), threads })

let state = 0x2545f491
const random = count => Array.from({ length: count }, () => {
  state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
  return state % 250_000
})

/** Milliseconds from the first to the last of so many new tokens. */
async function decode(sequence, count) {
  const stamps = []
  for await (const _ of sequence.evaluate(random(short), { temperature: 0, yieldEogToken: true })) {
    stamps.push(performance.now())
    if (stamps.length === count) break
  }
  return { first: stamps[0], last: stamps.at(-1) }
}

const speeds = []
const one = await open(1, longest)
const sequence = one.getSequence()
await decode(sequence, 2)                                  // first use of buffers
for (const length of prompt) {
  await sequence.clearHistory()
  const started = performance.now()
  await sequence.evaluateWithoutGeneratingNewTokens(random(length))
  speeds.push({ test: 'prefill', batch: 1, tokens: length, tokensPerSecond: length / ((performance.now() - started) / 1000) })
}
await sequence.clearHistory()
if (batch.includes(1)) {
  const { first, last } = await decode(sequence, tokens)
  speeds.push({ test: 'decode', batch: 1, tokens, tokensPerSecond: (tokens - 1) / ((last - first) / 1000) })
}
await one.dispose()
if (sequences > 1) {
  const many = await open(sequences, short + tokens + 8)
  const all = Array.from({ length: sequences }, () => many.getSequence())
  for (const size of batch.filter(count => count > 1)) {
    await Promise.all(all.map(each => each.clearHistory()))
    const runs = await Promise.all(all.slice(0, size).map(each => decode(each, tokens)))
    const first = Math.max(...runs.map(run => run.first))
    const last = Math.max(...runs.map(run => run.last))
    speeds.push({ test: 'decode', batch: size, tokens, tokensPerSecond: size * (tokens - 1) / ((last - first) / 1000) })
  }
}
console.log(JSON.stringify({ speeds, version }))
process.exit(0)                                            // its threads may keep the process alive
