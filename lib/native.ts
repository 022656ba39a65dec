// native.ts: finds and loads the addon, once and lazily, and gives its functions types. Nothing else
// imports the .node file. Errors of the core arrive here as plain objects with a code and leave as
// PolyLMError. Trap: node-gyp-build is not imported but required by the first call: inside of an ESM bundle its own
// calls of require throw, and a bundle must end in NO_BINARY, not in that.
/// <reference path="./node-gyp-build.d.ts" />
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import os from 'node:os'
import path from 'node:path'
import { binaryPlaces, noBinary, type BinaryPlace } from './binary.js'
import { errorCodes, PolyLMError, type ErrorCode } from './errors.js'
import { packageRoot } from './here.js'

/** A part of a prompt as the core takes it. */
export type NativePart =
  | { readonly text: string; readonly parseSpecial: boolean }
  | { readonly ids: Int32Array; readonly control: boolean }

/** Decoding options as the core takes them: the rows of the option table plus the lists. */
export interface NativeParams {
  readonly [scalar: string]: unknown
  readonly earlyStopping: number
  readonly beamScoring: number
  readonly stop: readonly string[]
  readonly stopTokenIds: Int32Array
  /** Bias rules of one token. */
  readonly biasIds: Int32Array
  readonly biasAmounts: Float64Array
  /** Bias rules of several tokens. */
  readonly biasTokens: readonly Int32Array[]
  readonly biasValues: Float64Array
  readonly allowTokens: Int32Array
  readonly allowChoices: readonly Int32Array[]
}

/** What one request asks of the engine; `kind` 0 generates, 1 scores, 2 gives logits. */
export interface NativeRequest {
  readonly kind: 0 | 1 | 2
  readonly prompt: readonly NativePart[]
  readonly addSpecialTokens?: boolean
  readonly maxTokensGiven?: boolean
  readonly truncateLeft?: boolean
  readonly batch?: boolean
  readonly stream?: boolean
  readonly returnOnAbort?: boolean
  readonly queueTimeoutMs?: number
  readonly cacheSalt?: string
  /** Who takes turns with others, where no salt says it. */
  readonly caller?: string
  readonly params?: NativeParams
  readonly scoreFrom?: number
  readonly scoreTop?: number
  readonly logitsPositions?: Float64Array
}

/** One finished output; `logprobs` is packed as {@link unpackTokens} reads it. */
export interface NativeOutput {
  readonly text: string
  readonly tokens: Int32Array
  readonly score: number
  readonly finishReason: number
  readonly stoppedByToken: number
  readonly stoppedByString: number
  readonly logprobs: Float64Array
}

/** What a finished request brings. */
export interface NativeResult {
  readonly outputs: readonly NativeOutput[]
  readonly scored: Float64Array
  readonly greedy: Uint8Array
  readonly promptIds: Int32Array
  readonly logits: Float32Array
  readonly logitsRows: number
  /** promptTokens, completionTokens, cachedTokens, truncatedTokens. */
  readonly usage: readonly [number, number, number, number]
  /** queueMs, prefillMs, timeToFirstTokenMs, decodeMs. */
  readonly timings: readonly [number, number, number, number]
  readonly seed: number
}

/** What the engine says about itself. */
export interface NativeStats {
  readonly state: 'ready' | 'draining' | 'failed' | 'disposed'
  readonly failure: string
  readonly failureMessage: string
  readonly running: number
  readonly waiting: number
  readonly kvTokensUsed: number
  readonly kvTokensTotal: number
  readonly weightsBytes: number
  readonly kvBytes: number
  readonly workspaceBytes: number
  readonly requests: number
  readonly rejected: number
  readonly failed: number
  readonly aborted: number
  readonly promptTokens: number
  readonly cachedTokens: number
  readonly completionTokens: number
  readonly steps: number
  readonly busyMs: number
  /** How often the engine has woken the event loop. */
  readonly wakeUps: number
}

/** A running engine. */
export interface NativeModel {
  submit(request: NativeRequest): number
  cancel(id: number): void
  /** Throws what submit would throw about the options of `request.params`; else says what they do. */
  check(params: NativeParams): { processors: string[]; inert: string[] }
  /** Ids of a text, on this thread, with their ranges in it when asked for. Throws without a tokenizer. */
  encodeText(
    text: string, addSpecialTokens: boolean, parseSpecial: boolean, atStart: boolean, withOffsets?: boolean,
  ): { ids: Int32Array; offsets?: Uint32Array }
  /** The same for several texts, off this thread. */
  tokenizeTexts(
    texts: readonly string[], addSpecialTokens: boolean, parseSpecial: boolean, atStart: boolean, withOffsets?: boolean,
  ): Promise<Array<{ ids: Int32Array; offsets?: Uint32Array }>>
  /** Text of ids, special tokens included. Throws without a tokenizer. */
  decodeIds(ids: Int32Array): string
  /** Ids of a prompt, unchecked, on this thread. */
  encodePrompt(request: NativeRequest): Int32Array
  /** The same off this thread. */
  tokenize(request: NativeRequest): Promise<Int32Array>
  stats(): NativeStats
  drain(): void
  /** Ends every request, stops the thread and frees the memory off this thread. */
  dispose(): Promise<void>
}

/** A device as the core found it. */
export interface NativeDevice {
  readonly kind: string
  readonly name: string
  readonly isa: string
  readonly usable: boolean
  /** Whether 'auto' may take it. */
  readonly proven: boolean
  readonly reason: string
  readonly memoryBytes: number
  readonly freeBytes: number
}

/** Weights in memory, not yet run by an engine. */
export interface NativeWeights {
  readonly device: {
    readonly kind: string
    readonly name: string
    readonly isa: string
    /** Among the devices of its kind. */
    readonly index: number
    readonly reason: string
    readonly precision: 'bf16' | 'fp32'
    readonly blockTokens: number
  }
  readonly parameters: number
  readonly fingerprint: string
  readonly warnings: readonly string[]
  readonly unused: readonly string[]
  /** Sets up memory and threads and takes the weights over. Once. */
  start(
    tokenizer: object | null, options: NativeEngineOptions, onEvents: NativeEvents,
  ): Promise<NativeModel>
  /** Frees them. Only when no engine was started on them. */
  dispose(): Promise<void>
}

/** Where and what to load. */
export interface NativeLoad {
  readonly config: NativeConfig
  readonly device: string
  readonly precision: 'bf16' | 'fp32'
  readonly threads: number
  /** What the weights take where they are not stored narrower than computed: for the choice of a device. */
  readonly neededBytes: number
  readonly table?: NativeTable
  /** Instead of a table: weights from a random generator, for benchmarks. */
  readonly random?: { readonly seed: number; readonly stddev: number }
}

/** The shape of a model. */
export interface NativeConfig {
  readonly family: string
  readonly layers: number
  readonly heads: number
  readonly hiddenSize: number
  readonly innerSize: number
  readonly contextSize: number
  readonly vocabSize: number
  readonly layerNormEpsilon: number
  readonly geluTanh: boolean
  readonly scaleAttention: boolean
  readonly tieWordEmbeddings: boolean
}

/** Files, tensors and checksummed storages of a checkpoint. */
export interface NativeTable {
  readonly files: ReadonlyArray<{ path: string; size: number; mtimeNs: bigint; dev: bigint; ino: bigint }>
  readonly tensors: ReadonlyArray<{
    name: string; dtype: string; shape: readonly number[]; strides: readonly number[]
    storageId: number; file: number; offset: number
  }>
  readonly storages: ReadonlyArray<{ file: number; offset: number; bytes: number; crc32: number }>
}

/** Size of the engine. */
export interface NativeEngineOptions {
  readonly contextSize: number
  readonly maxSequences: number
  readonly kvBlocks: number
  readonly maxQueue: number
  readonly prefixCache: boolean
}

/** Called once per batch of events; the layout is described in events.ts. */
export type NativeEvents = (numbers: Float64Array, text: Uint8Array, objects: readonly unknown[]) => void

/** One row of the core's table of decoding options. */
export interface NativeParamRow {
  readonly name: string
  readonly type: 'int' | 'real' | 'bool'
  readonly min: number
  readonly max: number
  readonly default: number
}

/** What the addon exports, but for the tokenizer, whose functions lib/tokenizer gives their types. */
export interface Native {
  describe(): {
    readonly params: readonly NativeParamRow[]
    readonly limits: Readonly<Record<string, number>>
    readonly errorCodes: readonly string[]
    readonly compiler: string
    readonly cuda: boolean
  }
  devices(): Promise<NativeDevice[]>
  loadWeights(
    load: NativeLoad,
    onProgress: (loaded: number, total: number, file: string) => void,
  ): { promise: Promise<NativeWeights>; cancel(): void }
  /** Bytes per second that `threads` CPU workers (0: the default) read from `bytes` of memory (0: more than 1 GB). */
  probeBandwidth(threads: number, bytes: number): Promise<number>
  /** Floating point operations per second that they do in registers, as products of this precision; a median. */
  probeProducts(threads: number, dtype: 'bf16' | 'fp32', rounds: number): Promise<number>
}

let loaded: Native | undefined

/**
 * The addon, loaded at the first call; `Extra` names further exports of it.
 *
 * @throws PolyLMError NO_BINARY when there is no file for this platform, with what was looked for.
 */
export function loadNative<Extra = unknown>(): Native & Extra {
  loaded ??= open()
  return loaded as Native & Extra
}

type NodeGypBuild = typeof import('node-gyp-build').default

// Does nothing: tools that trace files (Next.js) find the binary by this path; how it is required they cannot follow.
function showTracers(): void {
  try {
    existsSync(path.join(packageRoot, 'prebuilds', `${os.platform()}-${os.arch()}`))
  } catch { /* Node's permission model */ }
}

function open(): Native {
  showTracers()
  try {
    const require = createRequire(path.join(packageRoot, 'package.json'))
    const addon = (require('node-gyp-build') as NodeGypBuild)(packageRoot) as Partial<Native> | null
    // A bundle may stand in a project with an addon of its own.
    if (typeof addon?.describe !== 'function') throw new Error('the addon that was found is not polylm\'s')
    return addon as Native
  } catch (cause) {
    throw noBinary(packageRoot, cause, messageOf(cause))
  }
}

/** The file that {@link loadNative} loads, and the folders that are searched for it. */
export function findBinary(): { readonly file?: string; readonly places: readonly BinaryPlace[] } {
  const places = binaryPlaces(packageRoot)
  try {
    const require = createRequire(path.join(packageRoot, 'package.json'))
    return { file: (require('node-gyp-build') as NodeGypBuild).path(packageRoot), places }
  } catch {
    return { places }
  }
}

// Errors of another realm (a vm context) are no instances of this one's Error.
const messageOf = (e: unknown): string => {
  const { message } = (typeof e === 'object' && e !== null ? e : {}) as { message?: unknown }
  return typeof message === 'string' ? message : String(e)
}

/** An error of the core as a PolyLMError; anything else comes back as it is. */
export function fromNative(e: unknown): unknown {
  if (typeof e !== 'object' || e === null || e instanceof PolyLMError) return e
  const { code, hint, ...data } = { ...e } as Record<string, unknown>
  if (typeof code !== 'string' || !(errorCodes as readonly string[]).includes(code)) return e
  const text = messageOf(e)
  return new PolyLMError(code as ErrorCode, text, {
    ...fieldsOf(code, text, hint, data),
    ...(typeof hint === 'string' ? { hint } : {}),
  })
}

// The core's fields are numbers and texts; what a code promises beyond them is made here.
function fieldsOf(code: string, text: string, hint: unknown, data: Record<string, unknown>): Record<string, unknown> {
  switch (code) {
    case 'INVALID_OPTION':
      return { ...optionOf(text), ...data }
    case 'INVALID_PROMPT':
      return { reason: text, ...data }
    case 'INSUFFICIENT_MEMORY': {
      const suggestions = String(data['suggestions'] ?? hint ?? '').split('\n').filter(line => line !== '')
      return { ...data, suggestions }
    }
    default:
      return data
  }
}

// The core's messages about options start with the option's public name and a colon.
function optionOf(text: string): { option: string; value: undefined; reason: string } {
  const [, option = 'options', reason = text] = /^([A-Za-z][A-Za-z0-9]*): (.*)$/s.exec(text) ?? []
  return { option, value: undefined, reason }
}

/** Runs a call into the core; its errors become PolyLMErrors. */
export function inCore<T>(call: () => T): T {
  try {
    return call()
  } catch (e) {
    throw fromNative(e)
  }
}

/** The same for a promise of the core. */
export async function fromCore<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (e) {
    throw fromNative(e)
  }
}
