// index.ts: everything that the package exports.
import path from 'node:path'
import { packageRoot } from './here.js'

/** The directory of the demonstration model that comes with the package. */
export const demoModel: string = path.join(packageRoot, 'demo', 'model')

export { errorCodes, isPolyLMError, PolyLMError } from './errors.js'
export type { ErrorCode, ErrorData, ErrorJson, PolyLMErrorOf } from './errors.js'
export type { ErrorFields, FileFields, QueueFields, UnsupportedFields } from './error-fields.js'
export { fromHuggingFace } from './hugging-face.js'
export type { FromHuggingFaceContext, FromHuggingFaceResult } from './hugging-face.js'
export { Model } from './model.js'
export type { DeviceInfo, Explanation, ModelInfo, ModelStatic, ModelStats } from './model.js'
export { Tokenizer } from './tokenizer/tokenizer.js'
export type {
  DecodeOptions, EncodeOptions, Encoding, SpecialToken, SpecialTokens, StreamDecoder, StreamDecoderOptions,
  TokenizerLoadOptions,
} from './tokenizer/tokenizer.js'
export type { GenerationConfig, GenerationValue } from './checkpoint/types.js'
export type { Message, Template, TemplatePart } from './chat.js'
export type { TokenLogprob, TopLogprob } from './events.js'
export type { GenerateInput, GenerateManyItem } from './generate-each.js'
export type { MemoryEstimate } from './memory.js'
export type {
  Compat, DisposeOptions, EstimateOptions, GenerateOptions, LoadOptions, LoadProgress, Logger, LogitsOptions,
  LoglikelihoodItem, LoglikelihoodOptions, PromptOptions, ScoreOptions,
} from './options.js'
export type { Prompt } from './prompt.js'
export type {
  FinishReason, GenerateOutput, GenerateResult, GenerateResultJson, Timings, Usage,
} from './result.js'
export type { LogitsResult, LoglikelihoodResult, ScoreResult } from './scoring.js'
export type {
  AppendOptions, RestoreOptions, RewindTarget, Session, SessionLogitsOptions, SessionOptions,
} from './session-types.js'
export type { FinishEvent, GenerateStream, PrefillEvent, StreamEvent, TextEvent } from './stream.js'
