// core.ts: a loaded model as the functions behind its methods see it: the engine and what checking
// prompts and options needs. Not here: the public class (model.ts), loading (load.ts).
import type { Engine } from './call.js'
import { isPolyLMError, PolyLMError } from './errors.js'
import { checkGenerate, type CheckedGenerate, type OptionContext } from './generate-options.js'
import { inCore, type NativePart, type NativeRequest } from './native.js'
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
    cacheSalt: checked.cacheSalt,
    params: checked.params,
  }
}

const resultOf = ({ texts }: Core, checked: CheckedGenerate) =>
  (native: Parameters<typeof generateResult>[0]): GenerateResult =>
    generateResult(native, checked.stop, checked.given['logprobs'] !== undefined, texts)

/** Runs a prepared generate call. */
export async function runGenerate(
  core: Core, { checked, request }: PreparedGenerate, batch = false,
): Promise<GenerateResult> {
  try {
    const call = startCall(core.engine, batch ? { ...request, batch } : request, checked)
    return resultOf(core, checked)(await call.result)
  } catch (e) {
    throw withValue(e, checked.given)
  }
}

/** Starts a prepared call as a stream. */
export async function runStream(core: Core, { checked, request }: PreparedGenerate): Promise<GenerateStream> {
  try {
    return await openStream(core.engine, request, checked, resultOf(core, checked))
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
