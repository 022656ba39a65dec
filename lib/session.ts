// session.ts: a conversation: the messages so far, and each turn as a generate call over all of them.
// With template 'none' there are no messages but one growing text, kept as tokens where they are known.
// A session is this state and nothing else: the engine's prefix cache has its KV, or computes it again.
// Trap: a turn that fails or is aborted leaves no trace; state changes only after the answer is there.
import { linkedController } from './abort.js'
import { settler, startCall } from './call.js'
import { readMessages, readTemplate, renderRounds, type Message, type Template } from './chat.js'
import { generateRequest, runGenerate, runStream, type Core } from './core.js'
import { isPolyLMError, PolyLMError } from './errors.js'
import { checkGenerate, readRules, type CheckedGenerate } from './generate-options.js'
import type { GenerateOptions } from './options.js'
import { fromCore, inCore, type NativePart } from './native.js'
import {
  invalidOption, readBag, readChoice, readNumber, readProperty, readSalt, readSignal, show, type OptionBag,
} from './option-reader.js'
import { invalidPrompt, joinText, promptParts, type Prompt, type PromptRules } from './prompt.js'
import type { GenerateOutput, GenerateResult } from './result.js'
import { checkPath, encodeSession, readSession, writeWhole } from './session-file.js'
import {
  entryOf, joinedEntries, messagesOf, partsOf, turnsOf, withoutOldest, withoutTokens, withoutTurns,
  type Entry, type State,
} from './session-state.js'
import type {
  AppendOptions, RewindTarget, Session, SessionLogitsOptions,
} from './session-types.js'
import type { GenerateStream } from './stream.js'

const sessionNames: ReadonlySet<string> = new Set(['template', 'system', 'history', 'onOverflow', 'cacheSalt'])
const restoreNames: ReadonlySet<string> = new Set(['template', 'onOverflow', 'cacheSalt'])
const appendNames: ReadonlySet<string> = new Set(['parseSpecial', 'controlText'])
const logitsNames: ReadonlySet<string> = new Set(['controlText', 'signal'])
const overflows = ['error', 'dropOldestTurns'] as const

/** What stays the same for a session and its forks. */
interface Settings {
  readonly template: Template
  readonly system: readonly Message[]
  readonly onOverflow: (typeof overflows)[number]
  readonly cacheSalt: string
}

interface Turn {
  readonly parts: readonly NativePart[]
  after(output: GenerateOutput | undefined): State
}

/** Makes a session. @throws PolyLMError INVALID_OPTION or INVALID_PROMPT. */
export function createSession(core: Core, options: unknown, alive: () => void): Session {
  const bag = readBag(options, sessionNames, 'createSession')
  const template = readTemplate(bag['template'])
  const system = readSystem(bag['system'], template)
  const settings = { template, system, onOverflow: readOverflow(bag) ?? 'error', cacheSalt: readSalt(bag) ?? '' }
  const messages = bag['history'] === undefined ? [] : readMessages(bag['history'])
  checkHistory(core, settings, messages)
  const state = template === 'none' ? joinedEntries(messages)
    : messages.map(({ role, content }) => entryOf(role, content))
  return new Conversation(core, alive, settings, state)
}

/** Makes the session that a file holds. */
export async function restoreSession(
  core: Core, file: unknown, options: unknown, alive: () => void,
): Promise<Session> {
  const bag = readBag(options, restoreNames, 'restoreSession')
  const given = bag['template'] === undefined ? undefined : readTemplate(bag['template'])
  const onOverflow = readOverflow(bag)
  const cacheSalt = readSalt(bag) ?? ''
  const saved = await readSession(checkPath(file), core.weightsFingerprint, core.prompts.vocabSize)
  alive()
  const template = savedTemplate(saved.template, given)
  const system: Message[] = saved.system === null ? [] : [{ role: 'system', content: saved.system }]
  const settings = { template, system, onOverflow: onOverflow ?? saved.onOverflow, cacheSalt }
  return new Conversation(core, alive, settings, saved.state)
}

function savedTemplate(saved: string | null, given: Template | undefined): Template {
  if (saved === null) {
    if (typeof given === 'function') return given
    throw invalidOption('template', given, 'the session was saved with a template function, which a file cannot hold',
      'pass the function to restoreSession')
  }
  if (given === undefined || given === saved) return saved as Template
  throw invalidOption('template', given, `the session was saved with the template '${saved}'`)
}

class Conversation implements Session {
  readonly #core: Core
  readonly #alive: () => void
  readonly #settings: Settings
  readonly #end = new AbortController()
  #state: State
  #last: Promise<unknown> = Promise.resolve()
  #pending = 0

  constructor(core: Core, alive: () => void, settings: Settings, state: State) {
    this.#core = core
    this.#alive = alive
    this.#settings = settings
    this.#state = state
  }

  get history(): readonly Message[] {
    return [...this.#settings.system, ...messagesOf(this.#state)]
  }

  get tokens(): Int32Array {
    this.#open()
    const given = this.#partsSoFar()
    if (given.length === 0) return new Int32Array(0)
    return inCore(() => this.#core.engine.native.encodePrompt({ kind: 1, prompt: given }))
  }

  get contextUsed(): number {
    return this.tokens.length
  }

  async send(message: Prompt, options?: GenerateOptions): Promise<GenerateResult> {
    const given = this.#check(options)
    return await this.#inTurn(given.signal, async signal => {
      const checked = { ...given, signal }
      const { turn, value } = await this.#fit(message, checked.rules, async parts =>
        await runGenerate(this.#core, { checked, request: generateRequest(parts, checked) }))
      this.#commit(turn, value, checked)
      return value
    })
  }

  async stream(message: Prompt, options?: GenerateOptions): Promise<GenerateStream> {
    const given = this.#check(options)
    const opened = settler<GenerateStream>()
    this.#inTurn(given.signal, async signal => {
      const checked = { ...given, signal }
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

  fork(): Session {
    this.#open()
    return new Conversation(this.#core, this.#alive, this.#settings, this.#state)
  }

  async rewind(target: RewindTarget): Promise<void> {
    this.#open()
    const back = this.#readTarget(target)
    if (this.#pending === 0) this.#state = back()
    else await this.#inTurn(undefined, () => { this.#state = back() })
  }

  async append(prompt: Prompt, options?: AppendOptions): Promise<void> {
    this.#open()
    const rules = readRules(readBag(options, appendNames, 'append'))
    await this.#inTurn(undefined, async signal => {
      const state = [...this.#state, ...await this.#newEntries(prompt, rules)]
      signal.throwIfAborted()
      this.#state = state
    })
  }

  async logits(options?: SessionLogitsOptions): Promise<Float32Array> {
    this.#open()
    const bag = readBag(options, logitsNames, 'logits')
    const rules = readRules(bag)
    const { cacheSalt } = this.#settings
    return await this.#inTurn(readSignal(bag), async signal => {
      const prompt = this.#partsToContinue(rules)
      if (prompt.length === 0) throw invalidPrompt('empty', 'the conversation is empty, expected something to continue')
      const request = { kind: 2, prompt, logitsPositions: Float64Array.of(-1), cacheSalt } as const
      return (await startCall(this.#core.engine, request, { signal, returnOnAbort: false }).result).logits
    })
  }

  async save(path: string): Promise<void> {
    this.#open()
    const file = checkPath(path)
    const { template, system, onOverflow } = this.#settings
    await this.#inTurn(undefined, async () => {
      const name = typeof template === 'function' ? null : template
      const session = { template: name, system: system[0]?.content ?? null, onOverflow, state: this.#state }
      await writeWhole(file, encodeSession(session, this.#core.weightsFingerprint))
    })
  }

  async dispose(): Promise<void> {
    this.#end.abort(disposed())
    this.#state = []
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
    const given = checkGenerate(options, this.#core.options, 'send')
    const { cacheSalt } = this.#settings
    const checked = given.given['cacheSalt'] === undefined ? { ...given, cacheSalt } : given
    if (checked.truncateLeft) {
      throw invalidOption(
        'onOverflow', 'truncateLeft', "a session takes onOverflow: 'dropOldestTurns' when it is created")
    }
    return checked
  }

  // Runs `work` after the calls before it, with a signal that the end of the session aborts too.
  async #inTurn<T>(own: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T> | T): Promise<T> {
    this.#pending++
    const mine = this.#last.catch(() => { /* its caller was told */ }).then(async () => {
      this.#open()
      const stop = linkedController(own, this.#end.signal)
      try {
        return await work(stop.signal)
      } catch (e) {
        throw isPolyLMError(e, 'CONTEXT_OVERFLOW') ? overflowOf(e, this.#settings.onOverflow) : e
      } finally {
        stop.release()
      }
    }).finally(() => { this.#pending-- })
    this.#last = mine
    return await mine
  }

  // Runs a turn; while it overflows and may, without the oldest round.
  async #fit<T>(
    message: Prompt, rules: PromptRules, run: (parts: readonly NativePart[]) => Promise<T>,
  ): Promise<{ turn: Turn; value: T }> {
    const { template, onOverflow } = this.#settings
    for (let state = this.#state; ; state = withoutOldest(state)) {
      const turn = await this.#turn(message, state, rules)
      try {
        return { turn, value: await run(turn.parts) }
      } catch (e) {
        const canDrop = onOverflow === 'dropOldestTurns' && template !== 'none' && state.length > 0
        if (!canDrop || !isPolyLMError(e, 'CONTEXT_OVERFLOW')) throw e
      }
    }
  }

  async #turn(message: unknown, state: State, rules: PromptRules): Promise<Turn> {
    const { template } = this.#settings
    if (template === 'none') return await this.#plainTurn(message, rules)
    const asked = [...state, entryOf('user', textOfMessage(message))]
    return {
      parts: this.#render(messagesOf(asked), rules),
      after: output => [...asked, entryOf('assistant', output?.text ?? '')],
    }
  }

  async #plainTurn(message: unknown, rules: PromptRules): Promise<Turn> {
    const asked = [...this.#state, await this.#plainEntry(message, rules)]
    return {
      parts: partsOf(asked),
      after: output => [...asked, entryOf('assistant', output?.text ?? '', answerParts(output))],
    }
  }

  async #plainEntry(message: unknown, rules: PromptRules): Promise<Entry> {
    const parts = promptParts(message, this.#core.prompts, rules)
    return entryOf('user', typeof message === 'string' ? message : await this.#textOf(parts), parts)
  }

  // What append adds, checked to be something that the template can render.
  async #newEntries(prompt: unknown, rules: PromptRules): Promise<Entry[]> {
    const { template } = this.#settings
    const given = messagesIn(prompt)
    if (template === 'none') {
      if (given === undefined) return [await this.#plainEntry(prompt, rules)]
      promptParts({ messages: given, template }, this.#core.prompts, rules)
      return joinedEntries(given)
    }
    const more = given ?? [{ role: 'user', content: textOfMessage(prompt) }]
    const all = [...messagesOf(this.#state), ...more]
    const asks = typeof template === 'function' || all.at(-1)?.role === 'user'
    this.#render(asks ? all : [...all, { role: 'user', content: '' }], rules)
    return more.map(({ role, content }) => entryOf(role, content))
  }

  async #textOf(parts: readonly NativePart[]): Promise<string> {
    if (!this.#core.prompts.hasTokenizer) return ''
    const { native } = this.#core.engine
    return native.decodeIds(await fromCore(() => native.tokenize({ kind: 1, prompt: parts, addSpecialTokens: false })))
  }

  // What `tokens` are the tokens of.
  #partsSoFar(): NativePart[] {
    const { template } = this.#settings
    const { prompts } = this.#core
    if (template === 'none') return partsOf(this.#state)
    if (this.#state.length === 0) return []
    return joinText(renderRounds(this.history, template, prompts.control), prompts)
  }

  // The same with the beginning of an answer to the last message.
  #partsToContinue(rules: PromptRules): NativePart[] {
    const last = this.#state.at(-1)
    if (this.#settings.template === 'none' || last?.message.role !== 'user') return this.#partsSoFar()
    return this.#render(messagesOf(this.#state), rules)
  }

  // Checks the target now; the function does it when its time has come.
  #readTarget(target: unknown): () => State {
    const bag = readBag(target, new Set(['turns', 'tokens']), 'rewind')
    const range = { min: 0, max: Number.MAX_SAFE_INTEGER, integer: true }
    const turns = readNumber(bag, 'turns', range)
    const tokens = readNumber(bag, 'tokens', range)
    if ((turns === undefined) === (tokens === undefined)) {
      throw invalidOption('target', target, 'expected either { turns } or { tokens }')
    }
    if (tokens === undefined) return () => this.#withoutTurns(turns ?? 0)
    if (this.#settings.template === 'none') return () => this.#withoutTokens(tokens)
    throw invalidOption('tokens', tokens, "needs the template 'none'; other conversations go back by turns")
  }

  #withoutTurns(turns: number): State {
    const found = turnsOf(this.#state)
    if (turns <= found) return withoutTurns(this.#state, turns)
    throw invalidOption('turns', turns, `the conversation has ${found}`)
  }

  #withoutTokens(tokens: number): State {
    const { native } = this.#core.engine
    const cut = withoutTokens(this.#state, tokens, {
      encode: prompt => inCore(() => native.encodePrompt({ kind: 1, prompt, addSpecialTokens: false })),
      decode: ids => (this.#core.prompts.hasTokenizer ? native.decodeIds(ids) : ''),
    })
    if (cut !== undefined) return cut
    throw invalidOption('tokens', tokens, `the conversation has ${this.contextUsed}`)
  }

  #render(messages: readonly Message[], rules: PromptRules): NativePart[] {
    return render(this.#core, this.#settings, messages, rules)
  }
}

const defaultRules: PromptRules = { parseSpecial: true, controlText: 'escape' }

function render(
  { prompts }: Core, { system, template }: Settings, messages: readonly Message[], rules: PromptRules,
): NativePart[] {
  return promptParts({ messages: [...system, ...messages], template }, prompts, rules)
}

// A history that the template cannot render is refused now, not at the first turn.
function checkHistory(core: Core, settings: Settings, messages: readonly Message[]): void {
  if (messages.length === 0) return
  if (settings.template === 'none') {
    render(core, settings, messages, defaultRules)
    return
  }
  if (messages.at(-1)?.role === 'user') {
    throw invalidPrompt('order', 'the last message of history is from user, expected assistant')
  }
  render(core, settings, [...messages, { role: 'user', content: '' }], defaultRules)
}

function messagesIn(prompt: unknown): Message[] | undefined {
  if (typeof prompt !== 'object' || prompt === null) return undefined
  const messages = readProperty(prompt, 'messages')
  if (messages === undefined) return undefined
  const template = readProperty(prompt, 'template')
  if (template !== undefined) throw invalidOption('template', template, 'a session keeps the template it was made with')
  const read = readMessages(messages)
  if (read.length === 0) throw invalidPrompt('empty', 'the conversation has no messages')
  return read
}

function textOfMessage(message: unknown): string {
  if (typeof message === 'string') return message
  throw invalidPrompt('type', `the message is ${show(message)}: a message of a conversation is text; token ids need ` +
    "template 'none'")
}

// The engine's hint names an option that sessions do not take.
function overflowOf(e: PolyLMError, onOverflow: Settings['onOverflow']): PolyLMError {
  const { promptTokens, maxTokens, contextSize } = e
  const drop = onOverflow === 'error' ? ", or create the session with onOverflow: 'dropOldestTurns'" : ''
  const hint = `shorten the message, lower maxTokens, rewind${drop}`
  return new PolyLMError('CONTEXT_OVERFLOW', e.message, { promptTokens, maxTokens, contextSize, hint, cause: e })
}

const readOverflow = (bag: OptionBag): Settings['onOverflow'] | undefined => readChoice(bag, 'onOverflow', overflows)

const disposed = (): PolyLMError => new PolyLMError('DISPOSED', 'the session was disposed')

function readSystem(value: unknown, template: Template): readonly Message[] {
  if (value === undefined) return []
  if (typeof value !== 'string') throw invalidOption('system', value, 'expected text')
  if (typeof template === 'function') return [{ role: 'system', content: value }]
  throw invalidOption('system', value, `the template '${template}' has no place for a system message`,
    'put the instruction into the first message, or use a template function')
}

// The answer as it goes on: its tokens without the stop token; as text when a stop string cut it.
function answerParts(output: GenerateOutput | undefined): NativePart[] {
  if (output === undefined) return []
  if (typeof output.stoppedBy === 'string') return [{ text: output.text, parseSpecial: false }]
  const ids = typeof output.stoppedBy === 'number' ? output.tokens.slice(0, -1) : output.tokens
  return ids.length === 0 ? [] : [{ ids, control: false }]
}
