// load.ts: from a directory to the parts of a model: headers, then weights and tokenizer side by side,
// then the engine and one step to warm it up. All or nothing: whatever fails or is aborted frees the rest.
import { linkedController } from './abort.js'
import { startCall, type Engine } from './call.js'
import { Callbacks } from './callbacks.js'
import { openCheckpoint } from './checkpoint/open.js'
import { printableLines, quote } from './checkpoint/text.js'
import type { Checkpoint, ModelConfig } from './checkpoint/types.js'
import type { Core } from './core.js'
import { isPolyLMError, PolyLMError } from './errors.js'
import { EventRouter } from './events.js'
import { contextOf, type CheckedLoad } from './load-options.js'
import type { LoadProgress } from './options.js'
import { checkMemory, freeMemory, kvTokens, matrixBytesOf, modelSizes, weightBytes } from './memory.js'
import type { LoadedParts, ModelInfo } from './model.js'
import {
  fromCore, fromNative, inCore, loadNative, type NativeConfig, type NativeLoad, type NativeTable, type NativeWeights,
} from './native.js'
import { loadTokenizerFiles } from './tokenizer/load.js'
import { LoadedTokenizer } from './tokenizer/tokenizer.js'

/** What a load needs beyond its options. */
interface Source {
  readonly config: ModelConfig
  readonly tokenizer: Promise<LoadedTokenizer | null>
  readonly weights: Pick<NativeLoad, 'table' | 'random'>
  readonly stopTokenIds: (tokenizer: LoadedTokenizer | null) => number[]
  readonly generationConfig: LoadedParts['generationConfig']
  readonly warnings: readonly string[]
}

/** Loads a model directory. */
export async function loadModel(dir: string, checked: CheckedLoad): Promise<LoadedParts> {
  const { signal } = checked
  signal?.throwIfAborted()
  loadNative()
  const stop = stopOf(signal)
  try {
    const checkpoint = await openCheckpoint(dir, { signal: stop.signal })
    const { config } = checkpoint
    const matrixBytes = matrixBytesOf(checkpoint, checked.precision)
    await checkMemory(config, matrixBytes, checked, contextOf(checked, config.contextSize))
    const tokenizer = openTokenizer(dir, checkpoint, checked, stop.signal)
    tokenizer.catch((e: unknown) => { stop.abort(e) })
    return await build({
      config,
      tokenizer,
      weights: { table: toTable(checkpoint) },
      stopTokenIds: found => stopTokens(checkpoint, found),
      generationConfig: checkpoint.generationConfig,
      warnings: checkpoint.warnings,
    }, checked, stop)
  } finally {
    stop.release()
  }
}

/** A model with random weights, for benchmarks: no directory, no tokenizer, no stop tokens. */
export async function loadRandom(config: ModelConfig, checked: CheckedLoad): Promise<LoadedParts> {
  loadNative()
  const stop = stopOf(checked.signal)
  try {
    await checkMemory(config, checked.precision === 'fp32' ? 4 : 2, checked, contextOf(checked, config.contextSize))
    return await build({
      config,
      tokenizer: Promise.resolve(null),
      weights: { random: { seed: 1, stddev: 0.02 } },
      stopTokenIds: () => [],
      generationConfig: null,
      warnings: [],
    }, checked, stop)
  } finally {
    stop.release()
  }
}

/** What ends a load, and the callbacks that may. */
interface Stop extends ReturnType<typeof linkedController> {
  readonly callbacks: Callbacks
}

function stopOf(signal: AbortSignal | undefined): Stop {
  const linked = linkedController(signal)
  return { ...linked, callbacks: new Callbacks(reason => { linked.abort(reason) }) }
}

async function build(source: Source, checked: CheckedLoad, stop: Stop): Promise<LoadedParts> {
  const contextSize = contextOf(checked, source.config.contextSize)
  const { weights, read } = await readWeights(source, checked, stop)
  let owned: NativeWeights | undefined = weights
  try {
    const tokenizer = await source.tokenizer
    stop.signal.throwIfAborted()
    const maxTokens = await roomForKv(source.config, checked, contextSize, weights)
    report(checked, stop, { phase: 'prepare', loaded: read, total: read })
    const router = new EventRouter(tokenizer?.texts)
    owned = undefined
    const native = await fromCore(() => weights.start(
      tokenizer === null ? null : tokenizer.native,
      {
        contextSize,
        maxSequences: checked.maxSequences,
        kvBlocks: Math.max(1, Math.floor(maxTokens / weights.device.blockTokens)),
        maxQueue: checked.maxQueue,
        prefixCache: checked.prefixCache,
      },
      router.receive))
    const engine: Engine = { native, router }
    try {
      stop.signal.throwIfAborted()
      report(checked, stop, { phase: 'warmup', loaded: read, total: read })
      await warmUp(engine, stop.signal)
      stop.signal.throwIfAborted()
      const parts = finish(source, checked, weights, engine, tokenizer, contextSize)
      tell(parts.info, checked, stop)
      await stop.callbacks.settled(stop.signal)
      stop.signal.throwIfAborted()
      return parts
    } catch (e) {
      await native.dispose()
      throw e
    }
  } catch (e) {
    await owned?.dispose()
    stop.signal.throwIfAborted()
    throw e
  }
}

interface ReadWeights {
  readonly weights: NativeWeights
  /** Bytes that were read for them. */
  readonly read: number
}

async function readWeights(source: Source, checked: CheckedLoad, stop: Stop): Promise<ReadWeights> {
  stop.signal.throwIfAborted()
  const { config } = source
  const load: NativeLoad = {
    config: toNativeConfig(config),
    device: checked.device,
    precision: checked.precision,
    threads: checked.threads,
    neededBytes: weightBytes(config, checked.precision === 'fp32' ? 4 : 2),
    ...source.weights,
  }
  let read = 0
  const { promise, cancel } = inCore(() => loadNative().loadWeights(load, (loaded, total, file) => {
    read = total
    if (total > 0) report(checked, stop, { phase: 'read', loaded, total, ...(file === '' ? {} : { file }) })
  }))
  stop.signal.addEventListener('abort', cancel)
  try {
    const weights = await promise
    if (!stop.signal.aborted) return { weights, read }
    await weights.dispose()
  } catch (e) {
    if (!stop.signal.aborted) throw withDevice(fromNative(e), checked.device)
  } finally {
    stop.signal.removeEventListener('abort', cancel)
  }
  throw stop.signal.reason
}

function withDevice(e: unknown, device: string): unknown {
  if (!isPolyLMError(e, 'DEVICE') || e['device'] !== undefined) return e
  return new PolyLMError('DEVICE', e.message, { device, ...(e.hint === undefined ? {} : { hint: e.hint }) })
}

// A callback that throws or rejects ends the load with its reason.
function report({ onProgress }: CheckedLoad, stop: Stop, progress: LoadProgress): void {
  if (onProgress !== undefined && !stop.signal.aborted) stop.callbacks.run(() => onProgress(progress))
}

function tell(info: ModelInfo, { logger }: CheckedLoad, { callbacks }: Stop): void {
  if (logger === undefined) return
  for (const warning of info.warnings) callbacks.run(() => logger('warn', warning, {}))
  const fields = { parameters: info.parameters, ...info.device }
  callbacks.run(() => logger('info', `loaded on ${info.device.name}`, fields))
}

async function openTokenizer(
  dir: string, { config }: Checkpoint, checked: CheckedLoad, signal: AbortSignal,
): Promise<LoadedTokenizer | null> {
  try {
    return new LoadedTokenizer(await loadTokenizerFiles(dir, {
      compat: checked.compat, legacy: checked.legacyTokenizer, modelVocabSize: config.vocabSize, signal,
    }))
  } catch (e) {
    if (e instanceof PolyLMError && e.code === 'TOKENIZER_MISSING') return null
    throw e
  }
}

async function roomForKv(
  config: ModelConfig, checked: CheckedLoad, contextSize: number, weights: NativeWeights,
): Promise<number> {
  const { blockTokens, kind, index, isa } = weights.device
  const { kvPerToken, workspace } = modelSizes(config, 2, checked, contextSize, isa)
  const placed = kind === 'cuda' ? `cuda:${index}` : kind
  const { free } = checked.kvMemory === undefined ? await freeMemory(placed, 0) : { free: undefined }
  const afterWorkspace = free === undefined ? undefined : Math.max(0, free - workspace)
  const tokens = kvTokens(checked, contextSize, kvPerToken, afterWorkspace)
  if (tokens >= blockTokens) return checked.kvMemory === undefined ? roundUp(tokens, blockTokens) : tokens
  if (checked.kvMemory === undefined) return blockTokens
  const required = blockTokens * kvPerToken
  throw new PolyLMError(
    'INVALID_OPTION',
    `kvMemory: found ${checked.kvMemory} bytes, one block of ${blockTokens} tokens takes ${required}`,
    { option: 'kvMemory', value: checked.kvMemory, reason: `less than ${required} bytes`, required },
  )
}

const roundUp = (value: number, step: number): number => Math.ceil(value / step) * step

// One step touches every buffer, starts the workers, and finds broken weights before the first user does.
async function warmUp(engine: Engine, signal: AbortSignal): Promise<void> {
  await startCall(engine, {
    kind: 2, prompt: [{ ids: Int32Array.of(0), control: false }], logitsPositions: Float64Array.of(0),
  }, { signal, returnOnAbort: false }).result
}

function finish(
  source: Source, checked: CheckedLoad, weights: NativeWeights, engine: Engine,
  tokenizer: LoadedTokenizer | null, contextSize: number,
): LoadedParts {
  const { config } = source
  const stopTokenIds = source.stopTokenIds(tokenizer)
  const before = engine.native.stats()
  const warnings = [...source.warnings, ...(tokenizer?.warnings ?? [])]
  const info = toInfo({ ...source, warnings }, weights, stopTokenIds, contextSize, before.kvTokensTotal)
  // Of special tokens, those that the model has.
  const prefixes = [tokenizer?.specialTokens.bos?.id, tokenizer?.specialTokens.eos?.id, config.bosTokenId]
  const core: Core = {
    engine,
    contextSize,
    maxSequences: checked.maxSequences,
    weightsFingerprint: info.weightsFingerprint,
    texts: tokenizer?.texts,
    prefixToken: prefixes.find(id => typeof id === 'number' && id < config.vocabSize) ?? stopTokenIds[0],
    prompts: {
      vocabSize: config.vocabSize,
      contextSize,
      hasTokenizer: tokenizer !== null,
      hasTokensBeyond: tokenizer !== null && tokenizer.vocabSize > config.vocabSize,
      bytesPerToken: tokenizer?.native.bytesPerToken,
      control: text => tokenizer?.controlId(text),
    },
    options: {
      vocabSize: config.vocabSize,
      stopTokenIds,
      compat: checked.compat,
      hasTokenizer: tokenizer !== null,
      encodeContinuation: text => inCore(() => engine.native.encodeText(text, false, true, false)).ids,
    },
  }
  return { core, info, generationConfig: source.generationConfig, tokenizer, before }
}

function toInfo(
  { config, warnings }: Source, weights: NativeWeights, stopTokenIds: readonly number[], contextSize: number,
  kvTotal: number,
): ModelInfo {
  const { kind, name, isa, reason, precision } = weights.device
  const unused = weights.unused.length === 0 ? [] : [
    `${weights.unused.length} tensors of the checkpoint are not part of the model: ` +
    `${weights.unused.slice(0, 5).map(name => quote(name)).join(', ')}${weights.unused.length > 5 ? ', ...' : ''}`,
  ]
  return {
    family: config.family,
    layers: config.layers,
    heads: config.heads,
    hiddenSize: config.hiddenSize,
    vocabSize: config.vocabSize,
    contextSize,
    kvTokens: kvTotal,
    dtype: precision,
    parameters: weights.parameters,
    stopTokenIds,
    weightsFingerprint: weights.fingerprint,
    device: { kind, name, ...(isa === '' ? {} : { isa }), ...(reason === '' ? {} : { reason }) },
    warnings: [...warnings, ...weights.warnings, ...unused].map(printableLines),
  }
}

// The union of what the checkpoint and its tokenizer name: PolyLM's config says 255999, its tokenizer 2.
/** The tokens that end an output of this checkpoint. `tokenizer` is the one beside it, or null. */
export function stopTokens(
  { config, generationConfig }: Checkpoint, tokenizer: Pick<LoadedTokenizer, 'specialTokens'> | null,
): number[] {
  const named = generationConfig?.['eos_token_id']
  const generation = typeof named === 'number' ? [named]
    : Array.isArray(named) ? named.filter(id => typeof id === 'number') : undefined
  const eos = tokenizer?.specialTokens.eos?.id
  const all = [...(generation ?? config.eosTokenIds), ...(eos === undefined ? [] : [eos])]
  return [...new Set(all)].filter(id => id >= 0 && id < config.vocabSize)
}

function toNativeConfig(config: ModelConfig): NativeConfig {
  const { family, layers, heads, hiddenSize, innerSize, contextSize, vocabSize, layerNormEpsilon } = config
  return {
    family, layers, heads, hiddenSize, innerSize, contextSize, vocabSize, layerNormEpsilon,
    geluTanh: config.activation === 'gelu_tanh',
    scaleAttention: config.scaleAttention,
    tieWordEmbeddings: config.tieWordEmbeddings,
  }
}

function toTable({ files, tensors, storages }: Checkpoint): NativeTable {
  return { files, tensors, storages }
}
