// prompt.ts: what a caller may give as a prompt, and its way into the parts that the core takes. Text
// of prompts and text of messages part here: only the former may contain special tokens.
import { renderMessages, type Message, type Segment, type Template } from './chat.js'
import { PolyLMError } from './errors.js'
import type { NativePart } from './native.js'
import { readIds, readProperty, show } from './option-reader.js'

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
  readonly control: ControlLookup
}

/** The choices of {@link PromptOptions} that matter here, defaults applied. */
export interface PromptRules {
  readonly parseSpecial: boolean
  readonly controlText: 'reject' | 'escape'
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

// A token holds a few bytes; text that is this much longer cannot fit and is refused before it is copied.
const bytesPerToken = 64

/** The parts of a prompt, checked. */
export function promptParts(prompt: unknown, context: PromptContext, rules: PromptRules): NativePart[] {
  if (typeof prompt === 'string') return [textPart(prompt, context, rules.parseSpecial)]
  if (typeof prompt !== 'object' || prompt === null) throw wrongPrompt(prompt)
  const tokens = readProperty(prompt, 'tokens')
  const messages = readProperty(prompt, 'messages')
  if (tokens !== undefined && messages !== undefined) {
    throw invalidPrompt('ambiguous', 'the prompt has both tokens and messages, expected one of them')
  }
  if (tokens !== undefined) return [{ ids: promptIds(tokens, context.vocabSize), control: false }]
  if (messages === undefined) throw wrongPrompt(prompt)
  const segments = renderMessages(messages, readProperty(prompt, 'template'), rules.controlText, context.control)
  return joinText(segments, context)
}

/** Token ids of a prompt, copied and checked. */
export function promptIds(tokens: unknown, vocabSize: number): Int32Array {
  const ids = readIds(tokens, vocabSize, reason => invalidPrompt(
    reason.startsWith('token out of range') ? 'token out of range' : 'tokens',
    `prompt tokens: ${reason}`,
  ))
  if (ids.length === 0) throw invalidPrompt('empty', 'the prompt has no tokens, expected at least one')
  return ids
}

function wrongPrompt(prompt: unknown): PolyLMError {
  return invalidPrompt('type', `the prompt is ${show(prompt)}, expected text, { tokens } or { messages }`)
}

function textPart(text: string, context: PromptContext, parseSpecial: boolean): NativePart {
  if (!context.hasTokenizer) throw tokenizerMissing()
  const limit = bytesPerToken * context.contextSize
  if (text.length > limit) {
    throw invalidPrompt(
      'too long',
      `the prompt has ${text.length} characters; a context of ${context.contextSize} tokens takes at most ${limit}`,
    )
  }
  return { text, parseSpecial }
}

/**
 * Rendered segments as parts. Neighbouring texts become one, so that a template made of plain text is
 * encoded as one text, exactly as somebody would who wrote it by hand.
 */
export function joinText(segments: readonly Segment[], context: PromptContext): NativePart[] {
  const joined: Segment[] = []
  for (const segment of segments) {
    const last = joined.at(-1)
    if (typeof last === 'string' && typeof segment === 'string') joined[joined.length - 1] = last + segment
    else joined.push(segment)
  }
  return joined.filter(segment => segment !== '').map(segment => (
    typeof segment === 'string'
      ? textPart(segment, context, false)
      : { ids: Int32Array.of(segment.control), control: true }
  ))
}
