// bench-shapes.ts: the models that `polylm bench` runs: a directory, or random weights of a published shape.
import { openCheckpoint } from '../checkpoint/open.js'
import { createRandomModel } from '../bench-support.js'
import { Model } from '../index.js'
import type { LoadOptions } from '../index.js'
import { UsageError } from './failure.js'

/** The numbers of a GPT-2 network that decide its speed. */
export interface Shape {
  readonly layers: number
  readonly heads: number
  readonly hiddenSize: number
  readonly innerSize: number
  readonly contextSize: number
  readonly vocabSize: number
}

/** Shapes by name: PolyLM's as published, and a tiny one for tests of the bench itself. */
export const shapes: Readonly<Record<string, Shape>> = {
  'tiny': { layers: 2, heads: 2, hiddenSize: 256, innerSize: 1024, contextSize: 1024, vocabSize: 4096 },
  '1.7b': { layers: 24, heads: 16, hiddenSize: 2048, innerSize: 8192, contextSize: 2048, vocabSize: 256_000 },
  '13b': { layers: 40, heads: 40, hiddenSize: 5120, innerSize: 20_480, contextSize: 2048, vocabSize: 256_000 },
}

/** A loaded model with its name and shape. */
export interface BenchModel {
  readonly model: Model
  readonly name: string
  readonly shape: Shape
}

/** Loads a directory, or makes random weights. */
export async function benchModel(
  source: string | { readonly shape: string }, options: LoadOptions, signal: AbortSignal,
): Promise<BenchModel> {
  if (typeof source === 'string') {
    const { config } = await openCheckpoint(source, { signal })
    return { model: await Model.load(source, { ...options, signal }), name: source, shape: config }
  }
  const shape = shapes[source.shape]
  if (shape === undefined) throw new UsageError(`there is no shape ${source.shape}`)
  const model = await createRandomModel(shape, { ...options, signal })
  return { model, name: `${source.shape} (random weights)`, shape }
}

/**
 * Bytes of weights that a decode step reads at least: every matrix of every layer and the output layer.
 * Embeddings are gathered, a row per token.
 */
export function bytesPerStep(shape: Shape, dtype: string): number {
  const { layers, hiddenSize: c, innerSize: f, vocabSize } = shape
  const element = dtype === 'fp32' ? 4 : 2
  return element * (layers * (4 * c * c + 2 * c * f) + vocabSize * c)
}
