// core.ts: a loaded model as the functions behind its methods see it: the engine and what checking
// prompts and options needs. Not here: the public class (model.ts), loading (load.ts).
import type { Engine } from './call.js'
import { isPolyLMError, PolyLMError } from './errors.js'
import {
  checkChoices, checkGenerate, maxUnitsHere, type CheckedGenerate, type OptionContext,
} from './generate-options.js'
import { fromCore, inCore, type NativePart, type NativeRequest } from './native.js'
import type { OptionBag } from './option-reader.js'
import type { PromptContext } from './prompt.js'
import { promptParts } from './prompt.js'
import { startCall } from './call.js'
import { generateResult, type GenerateResult } from './result.js'
import { openStream, type GenerateStream } from './stream.js'
import type { TokenTexts } from './tokenizer/token-texts.js'

/** The model behind the public methods. */
export interface Core {
  readonly engine: Engine
  readonly prompts: PromptContext
  readonly options: OptionContext
  readonly contextSize: number
  readonly maxSequences: number
  /** Of the model's info; session files are bound to it. */
  readonly weightsFingerprint: string
  /** Stands before an empty context when scoring; undefined when the model names none. */
  readonly prefixToken: number | undefined
  /** Texts of single tokens, when there is a tokenizer. */
  readonly texts: TokenTexts | undefined
}

/** A checked generate call, ready to be submitted. */
export interface PreparedGenerate {
  readonly checked: CheckedGenerate
  readonly request: NativeRequest
}

/** How text of a prompt is encoded by {@link encodeText}. */
export interface TextRules {
  readonly addSpecialTokens: boolean
  readonly parseSpecial: boolean
  /** False: the text goes on where something else ended. */
  readonly atStart: boolean
}

/** Ids of a text, on this thread. */
export function encodeText(core: Core, text: string, rules: TextRules): Int32Array {
  const { addSpecialTokens, parseSpecial, atStart } = rules
  return inCore(() => core.engine.native.encodeText(text, addSpecialTokens, parseSpecial, atStart)).ids
}

/** An encoded text; offsets where they were asked for. */
export interface EncodedText {
  readonly ids: Int32Array
  readonly offsets?: Uint32Array | undefined
}

/** Ids of texts; long ones are encoded off this thread. */
export async function encodeTexts(
  core: Core, texts: readonly string[], { addSpecialTokens, parseSpecial, atStart }: TextRules, offsets = false,
): Promise<EncodedText[]> {
  const { native } = core.engine
  if (texts.reduce((sum, text) => sum + text.length, 0) <= maxUnitsHere) {
    return inCore(() => texts.map(text => native.encodeText(text, addSpecialTokens, parseSpecial, atStart, offsets)))
  }
  return await fromCore(() => native.tokenizeTexts(texts, addSpecialTokens, parseSpecial, atStart, offsets))
}

/** Text of ids, special tokens included; '' without a tokenizer. */
export const decodeIds = (core: Core, ids: Int32Array): string =>
  (core.prompts.hasTokenizer ? inCore(() => core.engine.native.decodeIds(ids)) : '')

// The choices of `allow` that were too long to be encoded where the options were checked.
async function withChoices(
  core: Core, request: NativeRequest, { longChoices, given }: CheckedGenerate,
): Promise<NativeRequest> {
  const { params } = request
  if (longChoices === undefined || params === undefined) return request
  const texts = longChoices.filter(choice => typeof choice === 'string')
  const encoded = await encodeTexts(core, texts, { addSpecialTokens: false, parseSpecial: true, atStart: false })
  let next = 0
  const ids = longChoices.map(choice => (
    typeof choice === 'string' ? encoded[next++]?.ids ?? new Int32Array(0) : choice
  ))
  return { ...request, params: { ...params, allowChoices: checkChoices(ids, given['allow']) } }
}

/** Checks prompt and options of a generate call. */
export function prepareGenerate(
  core: Core, prompt: unknown, options: unknown, what: string,
): PreparedGenerate {
  const checked = checkGenerate(options, core.options, what)
  const parts = promptParts(prompt, core.prompts, checked.rules)
  return { checked, request: generateRequest(parts, checked) }
}

/** The request of a checked call. */
export function generateRequest(parts: readonly NativePart[], checked: CheckedGenerate): NativeRequest {
  return {
    kind: 0,
    prompt: parts,
    addSpecialTokens: checked.addSpecialTokens,
    maxTokensGiven: checked.maxTokensGiven,
    truncateLeft: checked.truncateLeft,
    returnOnAbort: checked.returnOnAbort,
    queueTimeoutMs: checked.queueTimeoutMs,
    batch: checked.priority === 'batch',
    cacheSalt: checked.cacheSalt,
    caller: checked.caller,
    params: checked.params,
  }
}

const resultOf = ({ texts }: Core, checked: CheckedGenerate) =>
  (native: Parameters<typeof generateResult>[0]): GenerateResult =>
    generateResult(native, checked.stop, checked.given['logprobs'] !== undefined, texts)

/** Runs a prepared generate call. It is submitted before this returns, but for long choices. */
export async function runGenerate(core: Core, { checked, request }: PreparedGenerate): Promise<GenerateResult> {
  try {
    const ready = checked.longChoices === undefined ? request : await withChoices(core, request, checked)
    const call = startCall(core.engine, ready, checked)
    return resultOf(core, checked)(await call.result)
  } catch (e) {
    throw withValue(e, checked.given)
  }
}

/** Starts a prepared call as a stream. */
export async function runStream(core: Core, { checked, request }: PreparedGenerate): Promise<GenerateStream> {
  try {
    const ready = checked.longChoices === undefined ? request : await withChoices(core, request, checked)
    return await openStream(core.engine, ready, checked, resultOf(core, checked))
  } catch (e) {
    throw withValue(e, checked.given)
  }
}

/** An INVALID_OPTION of the core, which names the option alone, with the value that was given. */
export function withValue(e: unknown, given: OptionBag): unknown {
  if (!isPolyLMError(e, 'INVALID_OPTION') || e.value !== undefined) return e
  return new PolyLMError('INVALID_OPTION', e.message, {
    option: e.option, value: given[e.option], reason: e.reason,
    ...(e.hint === undefined ? {} : { hint: e.hint }),
  })
}
