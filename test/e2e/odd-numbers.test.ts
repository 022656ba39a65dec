// odd-numbers.test.ts: calls with every number a double can hold in every numeric option, through the public functions and
// in every mode, beside healthy calls. A call may only be refused or served: it never ends the model, and what comes back is
// JSON without holes. A hundred thousand more on the simulated device: test/native/sweep_test.cc.
// Larger: POLYLM_ODD=20000; other cases: POLYLM_SEED.
import { isPolyLMError } from '../../lib/index.js'
import type { GenerateOptions, Model, Prompt } from '../../lib/index.js'
import { optionTable } from '../../lib/option-table.js'
import { essence, randomFrom } from './crowd.js'
import { failure, idle, loadDemo } from './models.js'

const count = Number(process.env['POLYLM_ODD'] ?? 1500)
const seed = Number(process.env['POLYLM_SEED'] ?? 20230711)

let model: Model
beforeAll(async () => { model = await loadDemo({ maxSequences: 48 }) })
afterAll(async () => { await model.dispose() })

const odd = [
  0, -0, 5e-324, 1e-320, 1e-308, 7e-46, 1e-46, 1.4e-45, 1e-40, 1e-37, 1e-30, 1e-9, 1e-4, 0.1, 0.5, 0.9, 0.99999999,
  1 - Number.EPSILON / 2, 1, 1 + Number.EPSILON, 1.3, 2, 2 + 2 * Number.EPSILON, 7, 32, 100, 100 + 1e-13, 1000, 1e6, 1e16,
  3.4028234663852886e38, 3.5e38, 1e308, Number.MAX_VALUE, Infinity, NaN,
]

interface Dice { real(): number; below(n: number): number; chance(p: number): boolean }

function dice(random: () => number): Dice {
  const below = (n: number): number => Math.floor(random() * n)
  return {
    below, chance: p => random() < p,
    real: () => (random() < 0.25 ? -1 : 1) * (random() < 0.8 ? odd[below(odd.length)] ?? 0 : random()),
  }
}

// Options that hit a rule about their range are tried too, but seldom: a refused call tries nothing else.
function oddOptions(d: Dice): Record<string, unknown> {
  const options: Record<string, unknown> = {}
  const often = 0.05 + 0.25 * (d.below(100) / 100)
  for (const { name, type, min, max } of optionTable) {
    if (name.startsWith('pad') || name === 'logprobsProcessed' || name === 'speculateLookup' || !d.chance(often)) continue
    if (type === 'bool') { options[name] = d.chance(0.5); continue }
    let value = d.real()
    for (let i = 0; i < 30 && d.chance(0.99) && !(value >= min && value <= max); i++) value = d.real()
    options[name] = type === 'int' && d.chance(0.98) ? Math.max(min, Math.min(max, Math.trunc(value) || 0)) : value
  }
  for (const name of ['maxTokens', 'minTokens'] as const) if (d.chance(0.98)) options[name] = d.below(3) + (name === 'maxTokens' ? 3 : 0)
  for (const name of ['forcedFirstToken', 'forcedLastToken', 'seed'] as const) if (Number(options[name]) < 0) delete options[name]
  if (Number(options['logprobs']) < 0) delete options['logprobs']
  if (d.chance(0.3)) options['logprobsOf'] = d.chance(0.5) ? 'processed' : 'model'
  if (d.chance(0.3)) {
    options['bias'] = Array.from({ length: 1 + d.below(5) }, (_, i) =>
      [d.chance(0.5) ? i : [5, i], d.chance(0.95) ? Math.max(-3.4e38, Math.min(3.4e38, d.real() || 0)) : d.real()])
  }
  if (d.chance(0.1)) options['allow'] = d.chance(0.5) ? { tokens: [5, 6, 7, 8] } : { choices: [' Italy', ' Rome'] }
  if (d.chance(0.1)) options['stop'] = ['the', 'a']
  if (d.chance(0.2)) options['beamScoring'] = 'hf-4.31'
  if (Number(options['numBeams'] ?? 1) > 1) {
    options['sampleBeams'] ??= d.chance(0.6)
    if (options['sampleBeams'] === false) options['temperature'] = 0
    options['n'] = Math.min(Number(options['n'] ?? 1), Number(options['numBeams']))
  } else if (options['n'] !== undefined && options['temperature'] === undefined) {
    options['temperature'] = 0.7
  }
  return options
}

/** Makes one call; what it gave, as JSON. */
async function call(d: Dice): Promise<string> {
  const prompt: Prompt = { tokens: Array.from({ length: 1 + d.below(8) }, () => d.below(model.info.vocabSize)) }
  const kind = d.below(20)
  if (kind === 0) return JSON.stringify(await model.score(prompt, { window: d.real(), stride: d.real(), logprobs: d.below(22) }))
  if (kind === 1) return JSON.stringify(await model.score('Rome is the capital', { logprobs: d.below(21) }))
  if (kind === 2) return JSON.stringify(Array.from((await model.logits(prompt, { positions: [d.below(9)] })).data))
  if (kind === 3) return JSON.stringify(await model.loglikelihood([{ context: prompt, continuation: ' Rome' }], { prefixToken: d.real() }))
  const options = oddOptions(d) as GenerateOptions
  if (kind === 4) {
    const session = model.createSession({ template: 'none' })
    try {
      await session.send('Rome is', { maxTokens: 2 })
      return JSON.stringify(await session.send(' a', options))
    } finally {
      await session.dispose()
    }
  }
  if (kind > 12) return JSON.stringify(await model.generate(prompt, options))
  return JSON.stringify(await (await model.stream(prompt, options)).result)
}

/** A number that JSON could not hold has become null; these members may be null by their type. */
const holes = (json: string): number => json.replace(/"(logprobs|stoppedBy)":null/g, '').split('null').length - 1

test(`${count} calls with odd numbers, and healthy ones that do not notice`, async () => {
  const d = dice(randomFrom(seed))
  const healthy: GenerateOptions[] = [
    { maxTokens: 8 }, { maxTokens: 8, temperature: 0.9, topK: 20, seed: 4 }, { maxTokens: 8, numBeams: 3, logprobs: 1 },
  ]
  const usual = async (options: GenerateOptions): Promise<string> => essence(await model.generate('Rome is', options))
  const expected: string[] = []
  for (const options of healthy) expected.push(await usual(options))
  let served = 0
  for (let done = 0; done < count; done += 25) {
    const beside = Promise.all(healthy.map(usual))
    const calls = await Promise.allSettled(Array.from({ length: 25 }, () => call(d)))
    expect(await beside).toEqual(expected)
    for (const result of calls) {
      if (result.status === 'fulfilled') {
        served++
        expect(holes(result.value)).toBe(0)
      } else {
        const error: unknown = result.reason
        expect(isPolyLMError(error) ? error.code : error).toMatch(/^(INVALID_OPTION|CONTEXT_OVERFLOW|INSUFFICIENT_MEMORY)$/)
      }
    }
  }
  expect(served).toBeGreaterThan(count / 4)
  await idle(model)
  expect(model.stats()).toMatchObject({ state: 'ready', running: 0, waiting: 0, kv: { usedTokens: 0 } })
}, 300_000)

test('a temperature that float32 rounds to 0 takes the best token, and its probabilities are JSON', async () => {
  const best = await model.generate('Rome is', { maxTokens: 6 })
  for (const temperature of [Number.MIN_VALUE, 1e-46, 1e-38, 1e-30]) {
    const options = { maxTokens: 6, temperature, logprobs: 3, logprobsOf: 'processed' } as const
    const result = await model.generate('Rome is', options)
    expect(result.text).toBe(best.text)
    expect(holes(JSON.stringify(result.outputs[0]?.logprobs))).toBe(0)
  }
})

test('what float32 and double cannot hold is refused with the numbers', async () => {
  const e = await failure(model.generate('Rome is', { bias: [[5, 1e39]] }))
  expect(e).toMatchObject({ code: 'INVALID_OPTION', option: 'bias', fatal: false })
  expect(e.message).toContain('rule 0 adds 1e+39')
  const beams = { numBeams: 2, lengthPenalty: -100, maxTokens: 3 } as const
  const { outputs: [output] } = await model.generate('Rome is', beams)
  expect(Number.isFinite(output?.score)).toBe(true)
})
