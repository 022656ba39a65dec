// result.ts: what generate() gives, made of what the core reports.
import { unpackTokens, type TokenLogprob } from './events.js'
import type { NativeOutput, NativeResult } from './native.js'
import { resultClass } from './plain.js'
import type { TokenTexts } from './tokenizer/token-texts.js'

/** Why an output ended. */
export type FinishReason = 'stop' | 'length' | 'abort'

/** One output of {@link GenerateResult}. */
export interface GenerateOutput {
  /** decode(prompt + output) without decode(prompt): prompt + text reads correctly. */
  readonly text: string
  /** The new tokens; the one that stopped it, if any, is the last. */
  readonly tokens: Int32Array
  /** With beams: the score that ranked it. */
  readonly score?: number | undefined
  readonly finishReason: FinishReason
  /** The stop token, the stop string, or null. */
  readonly stoppedBy: number | string | null
  /** One entry per token when `logprobs` was given, else null. */
  readonly logprobs: readonly TokenLogprob[] | null
}

/** Counts of tokens. */
export interface Usage {
  readonly promptTokens: number
  /** Over all returned outputs, stop tokens included. */
  readonly completionTokens: number
  /** Prompt tokens that did not have to be computed. */
  readonly cachedTokens: number
  /** Prompt tokens that `onOverflow: 'truncateLeft'` dropped. */
  readonly truncatedTokens: number
}

/** Where the time went, in milliseconds. */
export interface Timings {
  readonly queueMs: number
  readonly prefillMs: number
  readonly timeToFirstTokenMs: number
  readonly decodeMs: number
  /** Tokens after the first of each output, per second of `decodeMs`; 0 when there are none. */
  readonly tokensPerSecond: number
}

/** What {@link GenerateResult.toJSON} gives: the same with plain arrays. */
export interface GenerateResultJson {
  readonly text: string
  readonly outputs: ReadonlyArray<Omit<GenerateOutput, 'tokens'> & { readonly tokens: readonly number[] }>
  readonly usage: Usage
  readonly timings: Timings
  readonly seed: number
}

/** What `generate` gives. `structuredClone` and `postMessage` copy all of it; the copy has no `toJSON`. */
export interface GenerateResult {
  /** Text of the first output. */
  readonly text: string
  /** Best first. */
  readonly outputs: readonly GenerateOutput[]
  readonly usage: Usage
  readonly timings: Timings
  /** The seed that was used; with it the call can be repeated. */
  readonly seed: number
  /** With plain arrays in place of typed ones; `JSON.stringify` calls it. */
  toJSON(): GenerateResultJson
}

const reasons = ['stop', 'length', 'abort'] as const

const Output = resultClass<GenerateOutput>('GenerateOutput')
const Whole = resultClass<GenerateResult>('GenerateResult')

/**
 * Builds the result of a generate request; `stop` are its stop strings, `wantsLogprobs` its option, `texts` those of
 * the model's tokens.
 */
export function generateResult(
  native: NativeResult, stop: readonly string[], wantsLogprobs: boolean, texts: TokenTexts | undefined,
): GenerateResult {
  const outputs = native.outputs.map(output => toOutput(output, stop, wantsLogprobs, texts))
  const usage = toUsage(native)
  const timings = toTimings(native, usage.completionTokens - outputs.filter(o => o.tokens.length > 0).length)
  const text = outputs[0]?.text ?? ''
  return new Whole({ text, outputs, usage, timings, seed: native.seed })
}

function toOutput(
  native: NativeOutput, stop: readonly string[], wantsLogprobs: boolean, texts: TokenTexts | undefined,
): GenerateOutput {
  const { text, tokens, score } = native
  return new Output({
    text,
    tokens,
    ...(Number.isNaN(score) ? {} : { score }),
    finishReason: reasons[native.finishReason] ?? 'length',
    stoppedBy: native.stoppedByToken >= 0 ? native.stoppedByToken : stop[native.stoppedByString] ?? null,
    logprobs: wantsLogprobs ? unpackTokens(native.logprobs, texts) : null,
  })
}

/** The token counts of a request. */
export function toUsage(native: NativeResult): Usage {
  const [promptTokens, completionTokens, cachedTokens, truncatedTokens] = native.usage
  return { promptTokens, completionTokens, cachedTokens, truncatedTokens }
}

function toTimings(native: NativeResult, laterTokens: number): Timings {
  const [queueMs, prefillMs, timeToFirstTokenMs, decodeMs] = native.timings
  const tokensPerSecond = decodeMs > 0 ? (Math.max(0, laterTokens) * 1000) / decodeMs : 0
  return { queueMs, prefillMs, timeToFirstTokenMs, decodeMs, tokensPerSecond }
}
