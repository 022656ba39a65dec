// limited.mjs: calls of every kind, made again each time the parent says `go` after it has changed the limit of this
// process's address space. Prints its size when ready, then one line of outcomes per round.
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

const { demoModel, isPolyLMError, Model, Tokenizer } = await import('../../../dist/index.js')
const model = await Model.load(demoModel, { device: 'cpu' })
const session = model.createSession({ template: 'none' })

const deep = n => (n === 0 ? 0 : 1 + deep(n - 1))   // deep enough to grow the stack, not to overflow it
const all = async stream => { for await (const _ of stream) { /* to its end */ } }
const calls = {
  tokenizer: () => Tokenizer.load(demoModel),
  missing: () => Tokenizer.load('/no/such/folder'),
  load: async () => { await (await Model.load(demoModel, { device: 'cpu' })).dispose() },
  devices: () => Model.devices(),
  estimate: () => Model.estimate(demoModel),
  generate: () => model.generate('Rome is', { maxTokens: 8 }),
  beams: () => model.generate('Rome is', { maxTokens: 8, numBeams: 3 }),
  sample: () => model.generate('Rome is', { maxTokens: 8, temperature: 1, n: 4, logprobs: 5 }),
  stream: async () => { await all(await model.stream('Rome is', { maxTokens: 8 })) },
  score: () => model.score('Rome is the capital of Italy.'),
  loglikelihood: () => model.loglikelihood([{ context: 'Rome is', continuation: ' the' }]),
  logits: () => model.logits('Rome'),
  send: () => session.send('Rome', { maxTokens: 2 }),
  rewind: () => session.rewind({ turns: 1 }),
  recursion: async () => { deep(7000) },
  encode: async () => model.tokenizer.encode('a text'),
  refused: () => model.generate('Rome', { maxTokens: -1 }),
}

const say = text => { process.stdout.write(`${text}\n`) }
const size = () => Number(/VmSize:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
const outcome = e => (isPolyLMError(e) ? e.code : `${e?.name}: ${e?.message}`)

const attempt = (except = '') => Promise.all(Object.entries(calls).filter(([name]) => name !== except).map(([name, call]) =>
  call().then(() => [name, 'ok'], e => [name, outcome(e)])))
// Once without a limit: what JavaScript itself needs is there afterwards. Not the deep stack: that is the addon's work.
await attempt('recursion')
say(size())
for await (const line of createInterface({ input: process.stdin })) {
  if (line !== 'go') break
  say(JSON.stringify(Object.fromEntries(await attempt())))
}
await model.dispose()
say('disposed')
process.exit(0)
