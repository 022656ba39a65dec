// session.ts: a conversation: the messages so far, and each turn as a generate call over all of them.
// With template 'none' there are no messages but one growing text, kept as tokens where they are known.
// Trap: a turn that fails or is aborted leaves no trace; state changes only after the answer is there.
import { linkedController } from './abort.js'
import { settler } from './call.js'
import { readMessages, readTemplate, renderRounds, type Message, type Template } from './chat.js'
import { generateRequest, runGenerate, runStream, type Core } from './core.js'
import { isPolyLMError, PolyLMError } from './errors.js'
import { checkGenerate, type CheckedGenerate } from './generate-options.js'
import type { GenerateOptions } from './options.js'
import { fromCore, inCore, type NativePart } from './native.js'
import { invalidOption, readBag, readChoice, type OptionBag } from './option-reader.js'
import { invalidPrompt, joinText, promptParts, type Prompt, type PromptRules } from './prompt.js'
import type { GenerateOutput, GenerateResult } from './result.js'
import type { GenerateStream } from './stream.js'

/** Options of `createSession`. */
export interface SessionOptions {
  /** How the conversation is written for the model. @default 'assistant' */
  readonly template?: Template | undefined
  /** A system message at the start; only for template functions, the others have no place for it. @default none */
  readonly system?: string | undefined
  /** Messages that were exchanged before. @default none */
  readonly history?: readonly Message[] | undefined
  /**
   * When the conversation no longer fits: throw `CONTEXT_OVERFLOW`, or forget the oldest round and try
   * again (with template 'none': always throw).
   * @default 'error'
   */
  readonly onOverflow?: 'error' | 'dropOldestTurns' | undefined
}

/** A conversation with a model. One call at a time; the next one waits for its turn. */
export interface Session {
  /** Adds a message and generates the answer. Options are those of `generate`, without `onOverflow`. */
  send(message: Prompt, options?: GenerateOptions): Promise<GenerateResult>
  /** The same as a stream; it resolves when the calls before it have ended. */
  stream(message: Prompt, options?: GenerateOptions): Promise<GenerateStream>
  /** The messages so far; with template 'none' each turn is a user and an assistant message. */
  readonly history: readonly Message[]
  /**
   * Token ids of the conversation so far, encoded when asked for. Empty before the first message.
   * A template function is asked to render it.
   */
  readonly tokens: Int32Array
  /** How many those are. */
  readonly contextUsed: number
  /** Forgets the conversation; running and waiting calls are aborted with DISPOSED. Idempotent. */
  dispose(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

const sessionNames: ReadonlySet<string> = new Set(['template', 'system', 'history', 'onOverflow'])
const laterNames: ReadonlySet<string> = new Set(['cacheSalt'])

interface State {
  readonly messages: readonly Message[]
  /** Template 'none': the text so far, in parts. */
  readonly parts: readonly NativePart[]
}

interface Turn {
  readonly parts: readonly NativePart[]
  after(output: GenerateOutput | undefined): State
}

/** Makes a session. @throws PolyLMError INVALID_OPTION or INVALID_PROMPT. */
export function createSession(core: Core, options: unknown, alive: () => void): Session {
  return new Conversation(core, readBag(options, sessionNames, 'createSession', laterNames), alive)
}

class Conversation implements Session {
  readonly #core: Core
  readonly #alive: () => void
  readonly #template: Template
  readonly #system: readonly Message[]
  readonly #drops: boolean
  readonly #end = new AbortController()
  #state: State
  #last: Promise<unknown> = Promise.resolve()

  constructor(core: Core, bag: OptionBag, alive: () => void) {
    this.#core = core
    this.#alive = alive
    this.#template = readTemplate(bag['template'])
    this.#system = readSystem(bag['system'], this.#template)
    this.#drops = readChoice(bag, 'onOverflow', ['error', 'dropOldestTurns']) === 'dropOldestTurns'
    const messages = bag['history'] === undefined ? [] : readMessages(bag['history'])
    const parts = this.#template === 'none' && messages.length > 0
      ? promptParts({ messages, template: 'none' }, core.prompts, defaultRules) : []
    if (this.#template !== 'none' && messages.length > 0) this.#checkHistory(messages)
    this.#state = { messages, parts }
  }

  // A history that the template cannot render is refused now, not at the first turn.
  #checkHistory(messages: readonly Message[]): void {
    if (messages.at(-1)?.role === 'user') {
      throw invalidPrompt('order', 'the last message of history is from user, expected assistant')
    }
    this.#render([...messages, { role: 'user', content: '' }], defaultRules)
  }

  get history(): readonly Message[] {
    return [...this.#system, ...this.#state.messages]
  }

  get tokens(): Int32Array {
    this.#open()
    const { messages, parts } = this.#state
    if (this.#template !== 'none' && messages.length === 0) return new Int32Array(0)
    const given = this.#template === 'none' ? parts : joinText(renderRounds(
      this.history, this.#template, this.#core.prompts.control), this.#core.prompts)
    if (given.length === 0) return new Int32Array(0)
    return inCore(() => this.#core.engine.native.encodePrompt({ kind: 1, prompt: given }))
  }

  get contextUsed(): number {
    return this.tokens.length
  }

  async send(message: Prompt, options?: GenerateOptions): Promise<GenerateResult> {
    const given = this.#check(options)
    return await this.#inTurn(given, async checked => {
      const { turn, value } = await this.#fit(message, checked.rules, async parts =>
        await runGenerate(this.#core, { checked, request: generateRequest(parts, checked) }))
      this.#commit(turn, value, checked)
      return value
    })
  }

  async stream(message: Prompt, options?: GenerateOptions): Promise<GenerateStream> {
    const given = this.#check(options)
    const opened = settler<GenerateStream>()
    this.#inTurn(given, async checked => {
      const { turn, value } = await this.#fit(message, checked.rules, async parts =>
        await runStream(this.#core, { checked, request: generateRequest(parts, checked) }))
      opened.resolve(value)
      this.#commit(turn, await value.result, checked)
    }).catch((e: unknown) => { opened.reject(e) })
    return await opened.promise
  }

  // A consumer that left its stream early aborted the turn, which then counts only with onAbort 'return'.
  #commit(turn: Turn, result: GenerateResult, { returnOnAbort }: CheckedGenerate): void {
    const output = result.outputs[0]
    const aborted = output?.finishReason === 'abort' && !returnOnAbort
    if (!aborted && !this.#end.signal.aborted) this.#state = turn.after(output)
  }

  async dispose(): Promise<void> {
    this.#end.abort(disposed())
    this.#state = { messages: [], parts: [] }
    await this.#last.catch(() => { /* its caller was told */ })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  #open(): void {
    this.#alive()
    this.#end.signal.throwIfAborted()
  }

  #check(options: unknown): CheckedGenerate {
    this.#open()
    const checked = checkGenerate(options, this.#core.options, 'send')
    if (checked.truncateLeft) {
      throw invalidOption(
        'onOverflow', 'truncateLeft', "a session takes onOverflow: 'dropOldestTurns' when it is created")
    }
    return checked
  }

  // Runs `work` after the calls before it, with a signal that the end of the session aborts too.
  async #inTurn<T>(checked: CheckedGenerate, work: (checked: CheckedGenerate) => Promise<T>): Promise<T> {
    const mine = this.#last.catch(() => { /* its caller was told */ }).then(async () => {
      this.#open()
      const stop = linkedController(checked.signal, this.#end.signal)
      try {
        return await work({ ...checked, signal: stop.signal })
      } finally {
        stop.release()
      }
    })
    this.#last = mine
    return await mine
  }

  // Runs a turn; while it overflows and may, without the oldest round.
  async #fit<T>(
    message: Prompt, rules: PromptRules, run: (parts: readonly NativePart[]) => Promise<T>,
  ): Promise<{ turn: Turn; value: T }> {
    for (let { messages } = this.#state; ; messages = withoutOldest(messages)) {
      const turn = await this.#turn(message, messages, rules)
      try {
        return { turn, value: await run(turn.parts) }
      } catch (e) {
        const canDrop = this.#drops && this.#template !== 'none' && messages.length > 0
        if (!canDrop || !isPolyLMError(e, 'CONTEXT_OVERFLOW')) throw e
      }
    }
  }

  async #turn(message: unknown, messages: readonly Message[], rules: PromptRules): Promise<Turn> {
    if (this.#template === 'none') return await this.#plainTurn(message, rules)
    if (typeof message !== 'string') {
      throw invalidPrompt('type', 'a message of a conversation is text; token ids need template \'none\'')
    }
    const asked: readonly Message[] = [...messages, { role: 'user', content: message }]
    return {
      parts: this.#render(asked, rules),
      after: output => ({ messages: [...asked, { role: 'assistant', content: output?.text ?? '' }], parts: [] }),
    }
  }

  async #plainTurn(message: unknown, rules: PromptRules): Promise<Turn> {
    const more = promptParts(message, this.#core.prompts, rules)
    const parts = [...this.#state.parts, ...more]
    const text = typeof message === 'string' ? message : await this.#textOf(more)
    const { messages } = this.#state
    return {
      parts,
      after: output => ({
        messages: [...messages, { role: 'user', content: text }, { role: 'assistant', content: output?.text ?? '' }],
        parts: [...parts, ...answerParts(output)],
      }),
    }
  }

  async #textOf(parts: readonly NativePart[]): Promise<string> {
    if (!this.#core.prompts.hasTokenizer) return ''
    const { native } = this.#core.engine
    return native.decodeIds(await fromCore(() => native.tokenize({ kind: 1, prompt: parts, addSpecialTokens: false })))
  }

  #render(messages: readonly Message[], rules: PromptRules): NativePart[] {
    const conversation = { messages: [...this.#system, ...messages], template: this.#template }
    return promptParts(conversation, this.#core.prompts, rules)
  }
}

const defaultRules: PromptRules = { parseSpecial: true, controlText: 'escape' }

const disposed = (): PolyLMError => new PolyLMError('DISPOSED', 'the session was disposed')

function readSystem(value: unknown, template: Template): readonly Message[] {
  if (value === undefined) return []
  if (typeof value !== 'string') throw invalidOption('system', value, 'expected text')
  if (typeof template === 'function') return [{ role: 'system', content: value }]
  throw invalidOption('system', value, `the template '${template}' has no place for a system message`,
    'put the instruction into the first message, or use a template function')
}

function withoutOldest(messages: readonly Message[]): readonly Message[] {
  const second = messages.findIndex(({ role }, i) => i > 0 && role === 'user')
  return second < 0 ? [] : messages.slice(second)
}

// The answer as it goes on: its tokens without the stop token; as text when a stop string cut it.
function answerParts(output: GenerateOutput | undefined): NativePart[] {
  if (output === undefined) return []
  if (typeof output.stoppedBy === 'string') return [{ text: output.text, parseSpecial: false }]
  const ids = typeof output.stoppedBy === 'number' ? output.tokens.slice(0, -1) : output.tokens
  return ids.length === 0 ? [] : [{ ids, control: false }]
}
