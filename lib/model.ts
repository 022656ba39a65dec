// model.ts: the public Model: what a loaded model can do. Each method checks what it was given and hands
// over; loading is in load.ts. No asynchronous method throws synchronously.
import { withoutPlaces } from './binary.js'
import type { GenerationConfig } from './checkpoint/types.js'
import type { Core } from './core.js'
import { encodeText, prepareGenerate, runGenerate, runStream, withValue } from './core.js'
import { PolyLMError, type ErrorCode } from './errors.js'
import { generateEach, type GenerateInput, type GenerateManyItem } from './generate-each.js'
import { checkChoices, checkGenerate, type CheckedGenerate } from './generate-options.js'
import { notInHuggingFace, toHuggingFace } from './hugging-face.js'
import { checkEstimate, checkLoad, contextOf } from './load-options.js'
import { loadModel } from './load.js'
import { estimateMemory, nativeDevices, type MemoryEstimate } from './memory.js'
import { openCheckpoint } from './checkpoint/open.js'
import { inCore, type NativeStats } from './native.js'
import type {
  DisposeOptions, EstimateOptions, GenerateOptions, LoadOptions, LogitsOptions, LoglikelihoodItem,
  LoglikelihoodOptions, ScoreOptions,
} from './options.js'
import { readBag, readNumber, checkDir } from './option-reader.js'
import { promptParts, type Prompt } from './prompt.js'
import type { GenerateResult } from './result.js'
import {
  logits, loglikelihood, score, type LogitsResult, type LoglikelihoodResult, type ScoreResult,
} from './scoring.js'
import { createSession, restoreSession } from './session.js'
import type { RestoreOptions, Session, SessionOptions } from './session-types.js'
import type { GenerateStream } from './stream.js'
import type { Tokenizer } from './tokenizer/tokenizer.js'

/** What a model is and where it runs. */
export interface ModelInfo {
  readonly family: string
  readonly layers: number
  readonly heads: number
  readonly hiddenSize: number
  readonly vocabSize: number
  /** Tokens of prompt and output together. */
  readonly contextSize: number
  /** Tokens that the KV cache holds. */
  readonly kvTokens: number
  readonly dtype: 'bf16' | 'fp32'
  readonly parameters: number
  /** Tokens that end an output unless `stopTokenIds` says otherwise. */
  readonly stopTokenIds: readonly number[]
  /** The same for every file format and layout of the same weights. Not cryptographic. */
  readonly weightsFingerprint: string
  readonly device: {
    readonly kind: string
    readonly name: string
    /** The instruction set in use. */
    readonly isa?: string | undefined
    /** Why not a better device or instruction set. */
    readonly reason?: string | undefined
  }
  readonly warnings: readonly string[]
}

/** What a model is doing. Counters only grow. */
export interface ModelStats {
  readonly state: 'ready' | 'draining' | 'failed' | 'disposed'
  /** What the model failed with. */
  readonly failure?: { readonly code: ErrorCode; readonly message: string } | undefined
  readonly running: number
  readonly waiting: number
  readonly kv: { readonly usedTokens: number; readonly totalTokens: number }
  /** Bytes. */
  readonly memory: {
    readonly weights: number; readonly kv: number; readonly workspace: number; readonly total: number
  }
  readonly counters: {
    readonly requests: number; readonly rejected: number; readonly failed: number; readonly aborted: number
    readonly promptTokens: number; readonly cachedTokens: number; readonly completionTokens: number
    readonly steps: number; readonly busyMs: number
  }
}

/** A device of this machine. */
export interface DeviceInfo {
  readonly kind: string
  readonly name: string
  readonly isa?: string | undefined
  readonly usable: boolean
  /** Why not, or what is missing for a better choice. */
  readonly reason?: string | undefined
  readonly memory: number
  readonly free: number
}

/** What `explain` says about options. */
export interface Explanation {
  /** What is applied to the scores of each step, in order. */
  readonly processors: readonly string[]
  /** Given options that have no effect. */
  readonly inert: readonly string[]
  readonly stopTokenIds: readonly number[]
  /** Keyword arguments that make transformers' generate() do the same, but for `notInHuggingFace`. */
  readonly huggingFace: Readonly<Record<string, unknown>>
  /** Given options that have no counterpart there. */
  readonly notInHuggingFace: readonly string[]
}

/**
 * A loaded model. Any number of calls may run at the same time; they share steps. Every method rejects
 * with `DISPOSED` after {@link Model.dispose}, with `DRAINING` while it drains, and with the failure of the
 * engine after one (`fatal`).
 */
export interface Model {
  readonly info: ModelInfo
  /** The checkpoint's generation_config.json, or null. It is not applied; see {@link fromHuggingFace}. */
  readonly generationConfig: GenerationConfig | null
  /** @throws PolyLMError TOKENIZER_MISSING when the directory has no tokenizer. */
  readonly tokenizer: Tokenizer
  /**
   * Continues a prompt.
   *
   * @throws PolyLMError INVALID_OPTION, INVALID_PROMPT, CONTEXT_OVERFLOW, INSUFFICIENT_MEMORY, QUEUE_FULL,
   * QUEUE_TIMEOUT, TOKENIZER_MISSING, NUMERIC; the signal's reason when aborted.
   * @example const { text } = await model.generate('Hello', { maxTokens: 40 })
   */
  generate(prompt: Prompt, options?: GenerateOptions): Promise<GenerateResult>
  /**
   * Continues many prompts, pulled as capacity frees; answers in the order of completion. Calls made
   * beside it go first. Leaving the loop cancels what runs.
   *
   * @throws PolyLMError (from the iteration) INVALID_OPTION in the common options; what one prompt throws is
   * its answer.
   */
  generateEach(
    inputs: Iterable<Prompt | GenerateInput> | AsyncIterable<Prompt | GenerateInput>,
    options?: GenerateOptions,
  ): AsyncGenerator<GenerateManyItem, void, undefined>
  /** The same as generate, as it is made. Resolves once the engine has admitted it; rejects as generate does. */
  stream(prompt: Prompt, options?: GenerateOptions): Promise<GenerateStream>
  /** Raw scores of the vocabulary after chosen tokens of a prompt. */
  logits(prompt: Prompt, options?: LogitsOptions): Promise<LogitsResult>
  /**
   * How probable continuations are after their contexts, by lm-evaluation-harness's rules: text is encoded
   * jointly, trailing white space of the context belongs to the continuation, token ids are concatenated.
   */
  loglikelihood(
    items: Iterable<LoglikelihoodItem>, options?: LoglikelihoodOptions,
  ): Promise<LoglikelihoodResult[]>
  /** How probable a text of up to 16 Mi characters or token ids is; what the context does not hold goes in windows. */
  score(prompt: Prompt, options?: ScoreOptions): Promise<ScoreResult>
  /**
   * What options do, without running anything. Synchronous: a prompt that is text is encoded on this thread.
   *
   * @throws PolyLMError INVALID_OPTION as generate would.
   */
  explain(options: GenerateOptions, prompt?: Prompt): Explanation
  /** @throws PolyLMError INVALID_OPTION, INVALID_PROMPT, DISPOSED. */
  createSession(options?: SessionOptions): Session
  /**
   * A session from a file that `session.save` wrote with the same weights.
   *
   * @throws PolyLMError SESSION_FILE with `reason`: `damaged`, `other-weights` or `version`; FILE_NOT_FOUND,
   * FILE_IO; INVALID_OPTION when the session had a template function and none is given.
   */
  restoreSession(path: string, options?: RestoreOptions): Promise<Session>
  /** Never throws. */
  stats(): ModelStats
  /** Ends running calls (after `drainMs`), frees all memory. Idempotent. */
  dispose(options?: DisposeOptions): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** The functions of {@link Model} that need no model. */
export interface ModelStatic {
  /**
   * Loads a model directory in Hugging Face layout.
   *
   * @throws PolyLMError INVALID_OPTION, NO_BINARY, DEVICE, INSUFFICIENT_MEMORY, UNSUPPORTED_MODEL, the
   * codes about files; the signal's reason when aborted.
   * @example
   * const model = await Model.load('./polylm-1.7b')
   * try { console.log((await model.generate('Hello')).text) } finally { await model.dispose() }
   */
  load(dir: string, options?: LoadOptions): Promise<Model>
  /** How much memory a model takes, from the headers of its files alone. */
  estimate(dir: string, options?: EstimateOptions): Promise<MemoryEstimate>
  /** What this machine has. Never rejects; says why a device is unusable. */
  devices(): Promise<DeviceInfo[]>
}

/** What load.ts makes a model of. */
export interface LoadedParts {
  readonly core: Core
  readonly info: ModelInfo
  readonly generationConfig: GenerationConfig | null
  readonly tokenizer: Tokenizer | null
  /** Work of the warm-up, which is not the user's. */
  readonly before: NativeStats
}

// A model that was forgotten without dispose(): its memory goes back and the process is told.
const forgotten = new FinalizationRegistry<Core>(core => {
  process.emitWarning('a model was garbage collected without dispose()', {
    code: 'POLYLM_NOT_DISPOSED', detail: 'call await model.dispose(), or use `await using`',
  })
  core.engine.native.dispose().catch(() => { /* nobody is left to be told */ })
})

class LoadedModel implements Model {
  readonly info: ModelInfo
  readonly generationConfig: GenerationConfig | null
  readonly #core: Core
  readonly #tokenizer: Tokenizer | null
  readonly #before: NativeStats
  #disposal: Promise<void> | undefined

  constructor({ core, info, generationConfig, tokenizer, before }: LoadedParts) {
    this.#core = core
    this.info = info
    this.generationConfig = generationConfig
    this.#tokenizer = tokenizer
    this.#before = before
    forgotten.register(this, core, this)
  }

  get tokenizer(): Tokenizer {
    if (this.#tokenizer !== null) return this.#tokenizer
    throw new PolyLMError('TOKENIZER_MISSING', 'the model directory has no tokenizer.model', {
      hint: 'add the tokenizer files to the directory, or use token ids',
    })
  }

  async generate(prompt: Prompt, options?: GenerateOptions): Promise<GenerateResult> {
    return await runGenerate(this.#open(), prepareGenerate(this.#core, prompt, options, 'generate'))
  }

  async * generateEach(
    inputs: Iterable<Prompt | GenerateInput> | AsyncIterable<Prompt | GenerateInput>, options?: GenerateOptions,
  ): AsyncGenerator<GenerateManyItem, void, undefined> {
    yield * generateEach(this.#open(), inputs, options)
  }

  async stream(prompt: Prompt, options?: GenerateOptions): Promise<GenerateStream> {
    return await runStream(this.#open(), prepareGenerate(this.#core, prompt, options, 'stream'))
  }

  async logits(prompt: Prompt, options?: LogitsOptions): Promise<LogitsResult> {
    return await logits(this.#open(), prompt, options)
  }

  async loglikelihood(
    items: Iterable<LoglikelihoodItem>, options?: LoglikelihoodOptions,
  ): Promise<LoglikelihoodResult[]> {
    return await loglikelihood(this.#open(), items, options)
  }

  async score(prompt: Prompt, options?: ScoreOptions): Promise<ScoreResult> {
    return await score(this.#open(), prompt, options)
  }

  explain(options: GenerateOptions, prompt?: Prompt): Explanation {
    const core = this.#open()
    const checked = checkGenerate(options, core.options, 'explain')
    const { processors, inert } = inspect(core, checked)
    const stopTokenIds = Array.from(checked.params.stopTokenIds)
    const maxTokens = Number(checked.params['maxTokens'])
    const room = prompt === undefined ? maxTokens : core.contextSize - promptLength(core, prompt, checked)
    const limited = checked.maxTokensGiven ? maxTokens : Math.max(1, Math.min(maxTokens, room))
    const decided = { ...checked.given, temperature: checked.params['temperature'] }
    return {
      processors,
      inert: inert.filter(name => checked.given[name] !== undefined),
      stopTokenIds,
      huggingFace: toHuggingFace(decided, stopTokenIds, limited),
      notInHuggingFace: notInHuggingFace(decided),
    }
  }

  createSession(options?: SessionOptions): Session {
    return createSession(this.#open(), options, () => { this.#open() })
  }

  async restoreSession(path: string, options?: RestoreOptions): Promise<Session> {
    return await restoreSession(this.#open(), path, options, () => { this.#open() })
  }

  stats(): ModelStats {
    return toStats(this.#core.engine.native.stats(), this.#before, this.#disposal !== undefined)
  }

  async dispose(options?: DisposeOptions): Promise<void> {
    const bag = readBag(options, new Set(['drainMs']), 'dispose')
    const drainMs = readNumber(bag, 'drainMs', { min: 0, max: 2_147_483_647, integer: true }) ?? 0
    this.#disposal ??= this.#end(drainMs)
    await this.#disposal
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  async #end(drainMs: number): Promise<void> {
    forgotten.unregister(this)
    const { native, router } = this.#core.engine
    if (drainMs > 0) {
      native.drain()
      const until = performance.now() + drainMs
      while (router.pending > 0 && performance.now() < until) await new Promise(resolve => setTimeout(resolve, 5))
    }
    await native.dispose()
  }

  #open(): Core {
    // A draining engine refuses by itself, with DRAINING.
    if (this.#disposal === undefined || this.#core.engine.native.stats().state === 'draining') return this.#core
    throw new PolyLMError('DISPOSED', 'the model was disposed')
  }
}

function inspect(core: Core, checked: CheckedGenerate): { processors: string[]; inert: string[] } {
  try {
    const { params, longChoices, given } = checked
    if (longChoices === undefined) return inCore(() => core.engine.native.check(params))
    const choices = longChoices.map(choice => (
      typeof choice === 'string' ? core.options.encodeContinuation(choice) : choice
    ))
    return inCore(() => core.engine.native.check({ ...params, allowChoices: checkChoices(choices, given['allow']) }))
  } catch (e) {
    throw withValue(e, checked.given)
  }
}

function promptLength(core: Core, prompt: unknown, checked: CheckedGenerate): number {
  const parts = promptParts(prompt, core.prompts, checked.rules)
  if (parts.length === 1 && parts[0] !== undefined && 'text' in parts[0]) {
    return encodeText(core, parts[0].text, {
      addSpecialTokens: checked.addSpecialTokens, parseSpecial: parts[0].parseSpecial, atStart: true,
    }).length
  }
  const request = { kind: 1, prompt: parts, addSpecialTokens: checked.addSpecialTokens } as const
  return inCore(() => core.engine.native.encodePrompt(request)).length
}

function toStats(now: NativeStats, before: NativeStats, disposed: boolean): ModelStats {
  const { weightsBytes: weights, kvBytes: kv, workspaceBytes: workspace } = now
  const state = disposed && now.state !== 'draining' ? 'disposed' : now.state
  return {
    state,
    ...(now.failure === '' ? {} : { failure: { code: now.failure as ErrorCode, message: now.failureMessage } }),
    running: now.running,
    waiting: now.waiting,
    kv: { usedTokens: now.kvTokensUsed, totalTokens: now.kvTokensTotal },
    memory: { weights, kv, workspace, total: weights + kv + workspace },
    counters: {
      requests: now.requests - before.requests,
      rejected: now.rejected - before.rejected,
      failed: now.failed - before.failed,
      aborted: now.aborted - before.aborted,
      promptTokens: now.promptTokens - before.promptTokens,
      cachedTokens: now.cachedTokens - before.cachedTokens,
      completionTokens: now.completionTokens - before.completionTokens,
      steps: now.steps - before.steps,
      busyMs: now.busyMs - before.busyMs,
    },
  }
}

/** A model from the parts that load.ts made. */
export function makeModel(parts: LoadedParts): Model {
  return new LoadedModel(parts)
}

/** Loads models and answers questions about them. See {@link ModelStatic}. */
export const Model: ModelStatic = {
  async load(dir, options) {
    const checked = checkLoad(options)
    return makeModel(await loadModel(checkDir(dir), checked))
  },

  async estimate(dir, options) {
    const checked = checkEstimate(options)
    const checkpoint = await openCheckpoint(checkDir(dir))
    return await estimateMemory(checkpoint, checked, contextOf(checked, checkpoint.config.contextSize))
  },

  async devices() {
    try {
      return (await nativeDevices()).map(({ kind, name, isa, usable, reason, memoryBytes, freeBytes }) => ({
        kind, name, usable, memory: memoryBytes, free: freeBytes,
        ...(isa === '' ? {} : { isa }),
        ...(reason === '' ? {} : { reason }),
      }))
    } catch (e) {
      const reason = withoutPlaces(e instanceof Error ? e.message : String(e))
      return [{ kind: 'cpu', name: 'cpu', usable: false, reason, memory: 0, free: 0 }]
    }
  },
}
