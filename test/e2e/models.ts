// models.ts: the models and recorded numbers that the end-to-end tests share. Not a test.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { demoModel, Model } from '../../lib/index.js'
import type { LoadOptions, PolyLMError } from '../../lib/index.js'

/** A fixture directory: token ids only, 512 of them, 256 positions. */
export const tinyDir = path.join(__dirname, '../fixtures/models/gpt2-tiny')

/** PolyLM's own example, which the demonstration model was trained to answer. */
export const example = 'Beijing is the capital of China.\nTranslate this sentence from English to Chinese.'

interface Recorded {
  readonly prompt: number[]
  readonly max_new_tokens: number
  readonly generated: number[]
  readonly eos_token_id: number
}

/** What transformers did with the fixture. */
export const recorded = JSON.parse(readFileSync(path.join(tinyDir, 'expected.json'), 'utf8')) as {
  readonly greedy: Recorded[]
  readonly greedy_eos: Recorded[]
  readonly logits: Array<{ prompt: number[]; positions: Array<{ pos: number; logits: number[] }>; prompt_token_logprobs: number[] }>
  readonly beam: Array<{
    prompt: number[]
    variants: Array<{
      max_new_tokens: number; num_beams: number; num_return_sequences: number; length_penalty: number
      early_stopping: boolean | 'never'; eos_token_id: number; sequences: number[][]; sequences_scores: number[]
    }>
  }>
}

/** The fixture in float32 arithmetic, where it gives transformers' tokens. */
export const loadTiny = (options: LoadOptions = {}): Promise<Model> =>
  Model.load(tinyDir, { device: 'cpu', dtype: 'fp32', ...options })

/** The demonstration model of the package. */
export const loadDemo = (options: LoadOptions = {}): Promise<Model> => Model.load(demoModel, { device: 'cpu', ...options })

/** The error of a promise that must fail. */
export async function failure(promise: Promise<unknown>): Promise<PolyLMError> {
  try {
    await promise
  } catch (e) {
    return e as PolyLMError
  }
  throw new Error('the promise was fulfilled')
}

/** Resolves after so many milliseconds. */
export const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))

/** Waits until a model has nothing to do: an aborted call ends for its caller before the engine's next step. */
export async function idle(model: Model): Promise<void> {
  for (let i = 0; i < 400; i++) {
    const { running, waiting } = model.stats()
    if (running + waiting === 0) return
    await sleep(5)
  }
  throw new Error(`still busy: ${JSON.stringify(model.stats())}`)
}
