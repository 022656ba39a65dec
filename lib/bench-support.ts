// bench-support.ts: what `polylm bench` needs and the package does not offer: models with random weights
// and the limits of this machine. Not exported.
import type { ModelConfig } from './checkpoint/types.js'
import { checkLoad } from './load-options.js'
import { loadRandom } from './load.js'
import { makeModel, type Model } from './model.js'
import { fromCore, loadNative } from './native.js'
import type { LoadOptions } from './options.js'

/** The numbers of a GPT-2 network that decide its speed. */
export type RandomModelShape = Pick<
  ModelConfig, 'layers' | 'heads' | 'hiddenSize' | 'innerSize' | 'contextSize' | 'vocabSize'
>

/** A GPT-2 network of this shape with random weights, without a tokenizer. */
export async function createRandomModel(shape: RandomModelShape, options?: LoadOptions): Promise<Model> {
  const config: ModelConfig = {
    ...shape,
    family: 'gpt2',
    layerNormEpsilon: 1e-5,
    activation: 'gelu_tanh',
    tieWordEmbeddings: true,
    scaleAttention: true,
    bosTokenId: null,
    eosTokenIds: [],
    padTokenId: null,
    dtype: null,
    raw: {},
  }
  return makeModel(await loadRandom(config, checkLoad(options)))
}

/**
 * Bytes per second that `threads` CPU workers (0: as many as a model gets) read from `bytes` of memory, which stay
 * allocated; 0 is more than any cache holds.
 */
export async function probeBandwidth(threads: number, bytes = 0): Promise<number> {
  return await fromCore(() => loadNative().probeBandwidth(threads, bytes))
}

/** Multiply-adds per second (each counts as two) in registers, of the kind that products at this `dtype` use. */
export async function probeProducts(threads: number, dtype: string, rounds = 9): Promise<number> {
  return await fromCore(() => loadNative().probeProducts(threads, dtype === 'fp32' ? 'fp32' : 'bf16', rounds))
}
