// prompt.ts: what a caller may give as a prompt, and its way into the parts that the core takes. Text
// of prompts and text of messages part here: only the former may contain special tokens. Everything is measured
// before it is worked on: what can never fit is refused by its length, on this thread, which encodes nothing.
import { readMessages, readTemplate, renderConversation, type Message, type Segment, type Template } from './chat.js'
import { PolyLMError } from './errors.js'
import type { NativePart } from './native.js'
import { countIds, maxIds, readIds, readProperty, show } from './option-reader.js'

/**
 * Text, token ids (used verbatim) or a conversation. A conversation's template is `assistant` unless
 * given.
 */
export type Prompt =
  | string
  | { readonly tokens: ArrayLike<number> }
  | { readonly messages: readonly Message[]; readonly template?: Template | undefined }

/** The token ids of a special token's text, or undefined. */
export type ControlLookup = (text: string) => number | undefined

/** What reading a prompt needs to know of the model. */
export interface PromptContext {
  readonly vocabSize: number
  readonly contextSize: number
  readonly hasTokenizer: boolean
  /** The tokenizer has added tokens with ids that the model does not have. */
  readonly hasTokensBeyond?: boolean | undefined
  /** Bytes of text that one token can stand for. @default 64 */
  readonly bytesPerToken?: number | undefined
  readonly control: ControlLookup
}

/** The choices of {@link PromptOptions} that matter here, defaults applied. */
export interface PromptRules {
  readonly parseSpecial: boolean
  readonly controlText: 'reject' | 'escape'
  /** Of a generate call; 0 where nothing is generated. */
  readonly maxTokens?: number | undefined
  /** What is too long is cut, so that it may be longer than the context. */
  readonly truncateLeft?: boolean | undefined
}

/** A prompt that cannot be used; `index` is the message or token it is about. */
export function invalidPrompt(reason: string, message: string, data: Record<string, unknown> = {}): PolyLMError {
  return new PolyLMError('INVALID_PROMPT', message, { reason, ...data })
}

/** Text cannot be turned into tokens without tokenizer files. */
export function tokenizerMissing(): PolyLMError {
  return new PolyLMError(
    'TOKENIZER_MISSING',
    'the prompt is text, but the model directory has no tokenizer.model',
    { hint: 'add the tokenizer files to the directory, or give token ids: { tokens: [...] }' },
  )
}

// Longest text of a prompt that is cut to the context, per token of it, as in the core.
const cutBytesPerToken = 64

/** Longest text, in UTF-16 units, whose tokens may fit the context, or are worth being cut to it. */
export function maxTextOf({ contextSize, bytesPerToken = 64 }: PromptContext, truncateLeft = false): number {
  // A scored text may be one token longer than the context, and an encoder may drop a lone mark of a space.
  const fitting = bytesPerToken * (contextSize + 2)
  return truncateLeft ? Math.max(fitting, cutBytesPerToken * contextSize) : fitting
}

/** Refuses a text of so many UTF-16 units, which has as many bytes at least, when it can never fit. */
export function checkTextLength(units: number, context: PromptContext, rules: Partial<PromptRules>): void {
  const most = maxTextOf(context, rules.truncateLeft)
  if (units <= most) return
  if (rules.truncateLeft === true) {
    throw invalidPrompt('too long', `the prompt has ${units} characters of text, at most ${most} are cut to a ` +
      `context of ${context.contextSize} tokens`, { hint: 'pass the end of the text alone' })
  }
  const atLeast = Math.ceil(units / (context.bytesPerToken ?? 64))
  throw overflow(atLeast, context, rules, `${units} characters of text, at least `)
}

function overflow(
  tokens: number, { contextSize }: PromptContext, { maxTokens = 0 }: Partial<PromptRules>, measured = '',
): PolyLMError {
  const text = `the prompt has ${measured}${tokens} tokens; contextSize is ${contextSize}`
  return new PolyLMError('CONTEXT_OVERFLOW', text, {
    promptTokens: tokens, maxTokens, contextSize, hint: "shorten the prompt, or set onOverflow to 'truncateLeft'",
  })
}

/** The parts of a prompt, checked. */
export function promptParts(prompt: unknown, context: PromptContext, rules: PromptRules): NativePart[] {
  if (typeof prompt === 'string') return [textPart(prompt, context, rules)]
  if (typeof prompt !== 'object' || prompt === null) throw wrongPrompt(prompt)
  const tokens = readProperty(prompt, 'tokens')
  const messages = readProperty(prompt, 'messages')
  if (tokens !== undefined && messages !== undefined) {
    throw invalidPrompt('ambiguous', 'the prompt has both tokens and messages, expected one of them')
  }
  if (tokens !== undefined) return [{ ids: promptIds(tokens, context, rules), control: false }]
  if (messages === undefined) throw wrongPrompt(prompt)
  return messageParts(readMessages(messages), readTemplate(readProperty(prompt, 'template')), context, rules)
}

/** The parts of a conversation; messages before `judgedFrom` were accepted earlier and are not refused. */
export function messageParts(
  messages: readonly Message[], template: Template, context: PromptContext, rules: PromptRules, judgedFrom = 0,
): NativePart[] {
  // A function may leave messages out; what it returns is measured instead.
  if (typeof template !== 'function') checkTextLength(lengthOf(messages), context, rules)
  const { control } = context
  const content = { controlText: rules.controlText, judgedFrom, control }
  return joinText(renderConversation(messages, template, content), context, rules)
}

/** UTF-16 units of all contents. */
export const lengthOf = (messages: readonly Message[]): number =>
  messages.reduce((sum, { content }) => sum + content.length, 0)

/** Token ids of a prompt, copied and checked. */
export function promptIds(
  tokens: unknown, context: PromptContext, rules: Partial<PromptRules> = {},
): Int32Array {
  const length = countIds(tokens, invalidIds)
  if (length === 0) throw invalidPrompt('empty', 'the prompt has no tokens, expected at least one')
  if (length > context.contextSize + 1 && rules.truncateLeft !== true) throw overflow(length, context, rules)
  return readIds(tokens, context.vocabSize, invalidIds, Math.max(maxIds, context.contextSize + 1))
}

/** What is wrong with the token ids of a prompt. */
export function invalidIds(reason: string): PolyLMError {
  const kind = reason.startsWith('token out of range') ? 'token out of range' : 'tokens'
  return invalidPrompt(kind, `prompt tokens: ${reason}`)
}

function wrongPrompt(prompt: unknown): PolyLMError {
  return invalidPrompt('type', `the prompt is ${show(prompt)}, expected text, { tokens } or { messages }`)
}

function textPart(text: string, context: PromptContext, rules: PromptRules): NativePart {
  if (!context.hasTokenizer) throw tokenizerMissing()
  checkTextLength(text.length, context, rules)
  return { text, parseSpecial: rules.parseSpecial }
}

/**
 * Rendered segments as parts. Neighbouring texts become one, so that a template made of plain text is
 * encoded as one text, exactly as somebody would who wrote it by hand.
 */
export function joinText(
  segments: readonly Segment[], context: PromptContext, rules: Partial<PromptRules> = {},
): NativePart[] {
  const text = segments.reduce((sum, segment) => sum + (typeof segment === 'string' ? segment.length : 0), 0)
  if (text > 0 && !context.hasTokenizer) throw tokenizerMissing()
  checkTextLength(text, context, rules)
  const joined: Segment[] = []
  for (const segment of segments) {
    const last = joined.at(-1)
    if (typeof last === 'string' && typeof segment === 'string') joined[joined.length - 1] = last + segment
    else joined.push(segment)
  }
  return joined.filter(segment => segment !== '').map(segment => (
    typeof segment === 'string'
      ? { text: segment, parseSpecial: false }
      : { ids: Int32Array.of(segment.control), control: true }
  ))
}
