// chat.ts: conversations to segments: text and control tokens, never one string, so that nothing a
// message says can become a control token. The templates are those of model-specific documentation:
// one round is what PolyLM's authors print, several rounds of `assistant` are this package's convention.
// Trap: PolyLM's markers (<|user|>) are plain text in its tokenizer, so ids cannot keep them apart
// from content; content that holds one is refused or escaped instead. Only what a user says now is ever refused:
// what the assistant said, and what a conversation already holds, is history and is escaped.
import { PolyLMError } from './errors.js'
import { readProperty, show } from './option-reader.js'
import { ignore, isArray, reading } from './untrusted.js'

/** One contribution to a conversation. */
export interface Message {
  readonly role: 'system' | 'user' | 'assistant'
  readonly content: string
}

/** A piece of a rendered conversation: text, or a control token by text or id. */
export type TemplatePart = string | { readonly control: string | number }

/**
 * How a conversation is written for the model: `assistant` as PolyLM-Chat, `multialpaca` as
 * PolyLM-MultiAlpaca, `none` joins the contents and adds nothing; a function returns the parts itself, at most
 * 16,384 of them. It must be synchronous; what it throws ends the call.
 */
export type Template =
  | 'assistant' | 'multialpaca' | 'none'
  | ((messages: readonly Message[]) => readonly TemplatePart[])

/** A rendered piece: text, or the id of a control token. */
export type Segment = string | { readonly control: number }

const markers = { system: '<|system|>', user: '<|user|>', assistant: '<|assistant|>' } as const
const markerList: readonly string[] = Object.values(markers)
const maxMessages = 512
const maxParts = 16_384

function invalid(reason: string, message: string, index?: number, hint?: string): PolyLMError {
  return new PolyLMError('INVALID_PROMPT', message, {
    reason,
    ...(index === undefined ? {} : { index }),
    ...(hint === undefined ? {} : { hint }),
  })
}

/** A copy of the messages with every property read once and checked. */
export function readMessages(source: unknown): Message[] {
  return reading('INVALID_PROMPT', 'messages', () => copyMessages(source))
}

function copyMessages(source: unknown): Message[] {
  const length = typeof source === 'object' && source !== null
    ? (source as { length?: unknown }).length
    : undefined
  if (typeof length !== 'number' || !Number.isSafeInteger(length) || length < 0) {
    throw invalid('messages', `messages is ${show(source)}, expected an array of { role, content }`)
  }
  if (length > maxMessages) {
    throw invalid('messages', `found ${length} messages, expected at most ${maxMessages}`)
  }
  const messages: Message[] = []
  for (let i = 0; i < length; i++) messages.push(readMessage((source as ArrayLike<unknown>)[i], i))
  return messages
}

function readMessage(source: unknown, index: number): Message {
  if (typeof source !== 'object' || source === null) {
    throw invalid('messages', `message ${index} is ${show(source)}, expected { role, content }`, index)
  }
  const role = readProperty(source, 'role')
  const content = readProperty(source, 'content')
  if (role !== 'system' && role !== 'user' && role !== 'assistant') {
    throw invalid('role', `message ${index} has role ${show(role)}, expected system, user or assistant`, index)
  }
  if (typeof content !== 'string') {
    throw invalid('content', `the content of message ${index} is ${show(content)}, expected text`, index)
  }
  return { role, content }
}

/** The template option as given, checked. */
export function readTemplate(value: unknown): Template {
  if (value === undefined) return 'assistant'
  if (value === 'assistant' || value === 'multialpaca' || value === 'none') return value
  if (typeof value === 'function') return value as Template
  throw new PolyLMError(
    'INVALID_OPTION',
    `template: found ${show(value)}, expected 'assistant', 'multialpaca', 'none' or a function`,
    { option: 'template', value, reason: "expected 'assistant', 'multialpaca', 'none' or a function" },
  )
}

/** How the content of messages is held against the markers of a template. */
export interface ContentRules {
  /** What happens to a user's or system message that holds a marker. */
  readonly controlText: 'reject' | 'escape'
  /** Messages before this one were accepted earlier: they are escaped, never refused. @default 0 */
  readonly judgedFrom?: number | undefined
  readonly control: (text: string) => number | undefined
}

/**
 * Renders a conversation that asks for an answer.
 *
 * @throws PolyLMError INVALID_PROMPT with `index` and `reason`; what a template function throws.
 */
export function renderMessages(
  source: unknown,
  template: unknown,
  controlText: 'reject' | 'escape',
  control: (text: string) => number | undefined,
): Segment[] {
  return renderConversation(readMessages(source), readTemplate(template), { controlText, control })
}

/** The same of messages and a template that were read before. */
export function renderConversation(messages: readonly Message[], template: Template, rules: ContentRules): Segment[] {
  if (messages.length === 0) throw invalid('empty', 'the conversation has no messages')
  if (typeof template === 'function') return custom(template, messages, rules.control)
  if (template === 'none') return plain(messages)
  checkRounds(messages, template)
  return template === 'multialpaca' ? multialpaca(messages) : assistant(messages, rules)
}

/** Renders messages as they stand, without asking for an answer; they were checked before. */
export function renderRounds(
  messages: readonly Message[], template: Template, control: (text: string) => number | undefined,
): Segment[] {
  if (typeof template === 'function') return custom(template, messages, control)
  if (template === 'none') return plain(messages)
  if (template === 'multialpaca') return multialpaca(messages)
  return assistantRounds(messages, { controlText: 'escape', control })
}

function plain(messages: readonly Message[]): Segment[] {
  refuseSystem(messages, 'none')
  return messages.map(({ content }) => content)
}

function refuseSystem(messages: readonly Message[], template: string): void {
  const index = messages.findIndex(({ role }) => role === 'system')
  if (index < 0) return
  throw invalid(
    'system',
    `message ${index} is a system message, for which the template '${template}' has no place`,
    index, 'put the instruction into the first user message, or use a template function',
  )
}

// user, assistant, user, ...: the model was shown nothing else, and answers the last user message.
function checkRounds(messages: readonly Message[], template: string): void {
  refuseSystem(messages, template)
  messages.forEach(({ role }, index) => {
    const expected = index % 2 === 0 ? 'user' : 'assistant'
    if (role === expected) return
    throw invalid('order', `message ${index} is from ${role}, expected ${expected}: the template ` +
      `'${template}' takes user and assistant in turn`, index)
  })
  if (messages.length % 2 === 0) {
    throw invalid('order', 'the last message is from assistant, expected user', messages.length - 1)
  }
}

// {query}\n\n{response}\n for each round, as the authors' demonstration program does: the query is
// stripped and its runs of newlines become one.
function multialpaca(messages: readonly Message[]): Segment[] {
  return messages.map(({ role, content }) => (
    role === 'user' ? `${content.trim().replace(/\n+/g, '\n')}\n\n` : `${content}\n`
  ))
}

function assistant(messages: readonly Message[], rules: ContentRules): Segment[] {
  return [...assistantRounds(messages, rules), ...mark('assistant', rules.control)]
}

function assistantRounds(messages: readonly Message[], rules: ContentRules): Segment[] {
  return messages.flatMap((message, index) => [
    ...mark(message.role === 'user' ? 'user' : 'assistant', rules.control),
    withoutMarkers(message, index, rules),
    '\n',
  ])
}

function mark(role: 'user' | 'assistant', control: (text: string) => number | undefined): Segment[] {
  const id = control(markers[role])
  return [id === undefined ? markers[role] : { control: id }, '\n']
}

function withoutMarkers({ role, content }: Message, index: number, rules: ContentRules): string {
  const found = markerIn(content) ?? markerIn(folded(content))
  if (found === undefined) return content
  const judged = role !== 'assistant' && index >= (rules.judgedFrom ?? 0)
  if (judged && rules.controlText === 'reject') {
    throw invalid(
      'control text',
      `the content of message ${index} contains ${found}, which marks a speaker in this template`,
      index, "remove it, or pass controlText: 'escape'",
    )
  }
  const text = escaped(content)
  return markerIn(folded(text)) === undefined ? text : escaped(folded(text))
}

const markerIn = (text: string): string | undefined => markerList.find(marker => text.includes(marker))

function escaped(content: string): string {
  let text = content
  for (const marker of markerList) text = text.replaceAll(marker, `< ${marker.slice(1)}`)
  return text
}

// What the tokenizer's normaliser may make of a text: full-width letters become plain ones, and controls between
// them vanish, so such a text can become a marker. (Where markers are tokens of their own the core prevents it.)
function folded(text: string): string {
  if (/^[\t\n\x20-\x7e]*$/.test(text)) return text
  return text.normalize('NFKC').replace(/(?![\t\n])[\p{Cc}\p{Cf}]/gu, '')
}

function custom(
  template: (messages: readonly Message[]) => readonly TemplatePart[],
  messages: readonly Message[],
  control: (text: string) => number | undefined,
): Segment[] {
  const returned: unknown = template(messages)
  return reading('INVALID_PROMPT', 'the parts of the template', () => {
    if (!isArray(returned)) throw notParts(returned)
    if (returned.length > maxParts) {
      throw invalid('template', `the template function returned ${returned.length} parts, expected at most ${maxParts}`)
    }
    return Array.from({ length: returned.length }, (_, index) => readPart(returned[index], index, control))
  })
}

function notParts(returned: unknown): PolyLMError {
  const isObject = typeof returned === 'object' && returned !== null
  if (!isObject || typeof readProperty(returned, 'then') !== 'function') {
    return invalid('template', `the template function returned ${show(returned)}, expected an array of parts`)
  }
  ignore(returned)
  return invalid('template', 'the template function returned a promise, expected an array of parts', undefined,
    'a template must be synchronous: fetch what it needs before the call')
}

function readPart(part: unknown, index: number, control: (text: string) => number | undefined): Segment {
  if (typeof part === 'string') return part
  const value = typeof part === 'object' && part !== null ? readProperty(part, 'control') : undefined
  const id = typeof value === 'string' ? control(value) : value
  if (typeof id === 'number' && Number.isSafeInteger(id) && id >= 0 && id <= 0x7fff_ffff) return { control: id }
  throw invalid(
    'template',
    typeof value === 'string'
      ? `part ${index} of the template names the control token ${show(value)}, which the tokenizer does not have`
      : `part ${index} of the template is ${show(part)}, expected text or { control }`,
    index,
  )
}
