// soak.mjs: requests of many kinds against the demo model for a long time, from `npm run soak` or by hand; memory must
// stay where it was. Prints the process's resident size as it goes and, last, a line of JSON. Needs dist/.
//   node --expose-gc benchmarks/engine/soak.mjs [requests = 100000] [callers = 48]
// Trap: the heap is collected before every look; without --expose-gc the numbers wander by tens of megabytes.
import { readdirSync } from 'node:fs'
import { demoModel, Model } from '../../dist/index.js'

const requests = Number(process.argv[2] ?? 100_000)
const callers = Number(process.argv[3] ?? 48)
const model = await Model.load(demoModel, { device: 'cpu', kvMemory: '64MiB' })
let state = 1
const random = () => {
  state = (state + 0x6d2b79f5) >>> 0
  let x = Math.imul(state ^ (state >>> 15), state | 1)
  x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
  return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
}
const pick = n => Math.floor(random() * n)

async function one() {
  const prompt = { tokens: Array.from({ length: 1 + pick(40) }, (_, i) => (random() < 0.5 ? i + 5 : pick(3000))) }
  const options = { maxTokens: 1 + pick(8), stopTokenIds: [], seed: pick(1000) }
  const kind = random()
  if (kind < 0.4) return await model.generate(prompt, options)
  if (kind < 0.55) return await model.generate(prompt, { ...options, temperature: 1, logprobs: 2, n: 2 })
  if (kind < 0.65) return await model.generate(prompt, { ...options, numBeams: 3 })
  if (kind < 0.75) return await model.loglikelihood([{ context: prompt, continuation: { tokens: [7, 8] } }])
  if (kind < 0.8) return await model.generate(prompt, { ...options, maxTokens: 1000 }).catch(() => { /* too long */ })
  if (kind < 0.85) {
    const chat = model.createSession({ template: 'none' })
    await chat.send(prompt, options)
    const other = chat.fork()
    await other.send(' and', options)
    return await other.dispose()
  }
  if (kind < 0.93) {
    const stream = await model.stream(prompt, { ...options, maxTokens: 40 })
    for await (const event of stream) if (event.type === 'text' && random() < 0.2) break
    return await stream.result
  }
  const controller = new AbortController()
  const call = model.generate(prompt, { ...options, maxTokens: 60, signal: controller.signal }).catch(() => { /* aborted */ })
  setTimeout(() => { controller.abort() }, pick(20))
  return await call
}

const open = () => { try { return readdirSync('/proc/self/fd').length } catch { return 0 } }
const threads = () => { try { return readdirSync('/proc/self/task').length } catch { return 0 } }
const looks = []
async function look(done) {
  for (let i = 0; i < 3; i++) { globalThis.gc?.(); await new Promise(resolve => setTimeout(resolve, 20)) }
  const { rss, heapUsed } = process.memoryUsage()
  const { kv, running, waiting } = model.stats()
  looks.push({ done, rssMiB: rss / 2 ** 20, heapMiB: heapUsed / 2 ** 20, fds: open(), threads: threads(), used: kv.usedTokens, running, waiting })
  if (requests >= 20_000) console.log(JSON.stringify(looks.at(-1)))
}

const part = Math.ceil(requests / 10)
for (let done = 0; done < requests; done += part) {
  let left = Math.min(part, requests - done)
  await Promise.all(Array.from({ length: callers }, async () => { while (left-- > 0) await one() }))
  while (model.stats().running + model.stats().waiting > 0) await new Promise(resolve => setTimeout(resolve, 5))
  await look(done + part)
}
const [first, last] = [looks[1] ?? looks[0], looks.at(-1)]      // the first tenth fills caches and heaps
console.log(JSON.stringify({
  requests, grownMiB: Number((last.rssMiB - first.rssMiB).toFixed(1)), rssMiB: Number(last.rssMiB.toFixed(1)),
  fds: last.fds - first.fds, threads: last.threads - first.threads, usedTokens: last.used, counters: model.stats().counters,
}))
await model.dispose()
