// crowd.ts: random calls of every kind from a seed, and what must be equal about their results. Shared by the
// tests of many callers at once and the soak benchmark's suite. Not a test.
import type { GenerateOptions, GenerateResult, Model, Prompt } from '../../lib/index.js'

/** A small generator (mulberry32): the same numbers for the same seed on every machine. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let x = Math.imul(state ^ (state >>> 15), state | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
  }
}

/** One call: what it asks, or what it scores. */
export type Ask =
  | { readonly kind: 'generate'; readonly prompt: Prompt; readonly options: GenerateOptions }
  | { readonly kind: 'loglikelihood'; readonly context: Prompt; readonly continuation: Prompt }
  | { readonly kind: 'logits'; readonly prompt: Prompt }

const sentences = [
  'Beijing is the capital of China.\nTranslate this sentence from English to Chinese.',
  'Rome is the capital of Italy.\nTranslate this sentence from English to German.',
  'Rome is', 'Paris is the capital of France.', 'The weather is nice today and I would like to',
]

/** A random call for a model with so many words; many begin alike. */
export function randomAsk(random: () => number, vocabSize: number, mostTokens: number): Ask {
  const pick = (n: number): number => Math.floor(random() * n)
  const ids = (n: number): number[] => Array.from({ length: n }, () => pick(vocabSize))
  const family = 1 + pick(3)
  const shared = Array.from({ length: 1 + pick(100) }, (_, i) => (i * family + 7) % vocabSize)
  const prompt: Prompt = random() < 0.4 ? sentences[pick(sentences.length)] ?? '' : { tokens: [...shared, ...ids(1 + pick(12))] }
  const kind = random()
  if (kind < 0.08) return { kind: 'loglikelihood', context: { tokens: shared }, continuation: { tokens: ids(1 + pick(6)) } }
  if (kind < 0.12) return { kind: 'logits', prompt }
  const style = random()
  const options: Record<string, unknown> = { maxTokens: 1 + pick(mostTokens), seed: pick(1e6) }
  if (style < 0.3) {
    options['temperature'] = 0.4 + random()
    if (random() < 0.5) options['topK'] = 1 + pick(100)
    if (random() < 0.5) options['topP'] = 0.9
    if (random() < 0.3) options['n'] = 2 + pick(3)
  } else if (style < 0.45) {
    Object.assign(options, { numBeams: 2 + pick(4), earlyStopping: random() < 0.5 })
  } else if (random() < 0.5) {
    options['speculate'] = 'lookup'
  }
  if (random() < 0.2) options['repetitionPenalty'] = 1.2
  if (random() < 0.3) options['logprobs'] = pick(4)
  if (random() < 0.2) options['stop'] = ['the', '。']
  if (random() < 0.3) options['stopTokenIds'] = []
  return { kind: 'generate', prompt, options: options as GenerateOptions }
}

/** All of a result that may not depend on what else runs. */
export const essence = (result: GenerateResult): string =>
  JSON.stringify(result.toJSON().outputs.map(output => ({ ...output, score: output.score })))

/** Makes a call and gives the essence of what came. */
export async function make(model: Model, ask: Ask): Promise<string> {
  if (ask.kind === 'generate') return essence(await model.generate(ask.prompt, ask.options))
  if (ask.kind === 'logits') return Buffer.from((await model.logits(ask.prompt)).data.buffer).toString('base64')
  const [item] = await model.loglikelihood([ask])
  return JSON.stringify({ logprob: item?.logprob, greedy: item?.isGreedy, each: Array.from(item?.tokenLogprobs ?? []) })
}
