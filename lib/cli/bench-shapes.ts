// bench-shapes.ts: the models that `polylm bench` runs: a directory, or random weights of a published shape.
import { openCheckpoint } from '../checkpoint/open.js'
import { createRandomModel } from '../bench-support.js'
import type { RandomModelShape } from '../bench-support.js'
import { Model } from '../index.js'
import type { LoadOptions } from '../index.js'
import { UsageError } from './failure.js'

/** The numbers of a GPT-2 network that decide its speed. */
export type Shape = RandomModelShape

/** Shapes by name: PolyLM's as published, and a tiny one for tests of the bench itself. */
export const shapes: Readonly<Record<string, Shape>> = {
  'tiny': { layers: 2, heads: 2, hiddenSize: 256, innerSize: 1024, contextSize: 1024, vocabSize: 4096 },
  '1.7b': { layers: 24, heads: 16, hiddenSize: 2048, innerSize: 8192, contextSize: 2048, vocabSize: 256_000 },
  '13b': { layers: 40, heads: 40, hiddenSize: 5120, innerSize: 20_480, contextSize: 2048, vocabSize: 256_000 },
}

/** A model that can be loaded, and what is known of it before. */
export interface BenchSource {
  readonly name: string
  readonly shape: Shape
  load(options: LoadOptions): Promise<Model>
}

/** What a directory, or the name of a shape, stands for. */
export async function benchSource(
  source: string | { readonly shape: string }, signal: AbortSignal,
): Promise<BenchSource> {
  if (typeof source === 'string') {
    const { config } = await openCheckpoint(source, { signal })
    return { name: source, shape: config, load: options => Model.load(source, { ...options, signal }) }
  }
  const shape = shapes[source.shape]
  if (shape === undefined) throw new UsageError(`there is no shape ${source.shape}`)
  const name = `${source.shape} (random weights)`
  return { name, shape, load: options => createRandomModel(shape, { ...options, signal }) }
}
