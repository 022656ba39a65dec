// session.ts: a conversation: the messages so far, and each turn as a generate call over all of them.
// With template 'none' there are no messages but one growing text, kept as tokens where they are known.
// A session is this state and nothing else: the engine's prefix cache has its KV, or computes it again.
// Trap: a turn that fails or is aborted leaves no trace; state changes only after the answer is there. And what is in
// the conversation is never held against a later turn: answers may hold markers, they are escaped when rendered.
import { linkedController } from './abort.js'
import { settler, startCall } from './call.js'
import { readMessages, readTemplate, renderRounds, type Message, type Template } from './chat.js'
import { decodeIds, generateRequest, runGenerate, runStream, type Core } from './core.js'
import { isPolyLMError, PolyLMError } from './errors.js'
import { checkGenerate, readRules, type CheckedGenerate } from './generate-options.js'
import type { GenerateOptions } from './options.js'
import { fromCore, inCore, type NativePart } from './native.js'
import {
  invalidOption, readBag, readChoice, readNumber, readProperty, readSalt, readSignal, show, type OptionBag,
} from './option-reader.js'
import {
  checkTextLength, invalidPrompt, joinText, lengthOf, maxTextOf, messageParts, promptParts, type Prompt,
  type PromptRules,
} from './prompt.js'
import type { GenerateOutput, GenerateResult } from './result.js'
import { checkPath, encodeSession, readSession, writeWhole } from './session-file.js'
import {
  answerParts, entryOf, joinedEntries, messagesOf, partsOf, textLengthOf, turnsOf, withoutOldest, withoutTokens,
  withoutTurns,
  type Entry, type State,
} from './session-state.js'
import type {
  AppendOptions, RewindTarget, Session, SessionLogitsOptions,
} from './session-types.js'
import type { GenerateStream } from './stream.js'

const sessionNames: ReadonlySet<string> = new Set(['template', 'system', 'history', 'onOverflow', 'cacheSalt'])
const restoreNames: ReadonlySet<string> = new Set(['template', 'onOverflow', 'cacheSalt'])
const appendNames: ReadonlySet<string> = new Set(['parseSpecial', 'controlText'])
const logitsNames: ReadonlySet<string> = new Set(['signal'])
const overflows = ['error', 'dropOldestTurns'] as const

/** What stays the same for a session and its forks. */
interface Settings {
  readonly template: Template
  readonly system: readonly Message[]
  readonly onOverflow: (typeof overflows)[number]
  readonly cacheSalt: string
  /** Takes turns with other sessions and calls. */
  readonly caller: string
}

let sessions = 0
const nextCaller = (): string => `session ${++sessions}`

interface Turn {
  readonly parts: readonly NativePart[]
  after(output: GenerateOutput | undefined): State
}

/** Makes a session. @throws PolyLMError INVALID_OPTION or INVALID_PROMPT. */
export function createSession(core: Core, options: unknown, alive: () => void): Session {
  const bag = readBag(options, sessionNames, 'createSession')
  const template = readTemplate(bag['template'])
  const system = readSystem(bag['system'], template)
  const settings = {
    template, system, onOverflow: readOverflow(bag) ?? 'error', cacheSalt: readSalt(bag) ?? '', caller: nextCaller(),
  }
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
  const settings = { template, system, onOverflow: onOverflow ?? saved.onOverflow, cacheSalt, caller: nextCaller() }
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
    checkStateLength(this.#core, this.#settings.template, this.#state)
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
      const state = await this.#withAppended(prompt, rules)
      signal.throwIfAborted()
      this.#state = state
    })
  }

  async logits(options?: SessionLogitsOptions): Promise<Float32Array> {
    this.#open()
    const bag = readBag(options, logitsNames, 'logits')
    const { cacheSalt, caller } = this.#settings
    return await this.#inTurn(readSignal(bag), async signal => {
      checkStateLength(this.#core, this.#settings.template, this.#state)
      const prompt = this.#partsToContinue()
      if (prompt.length === 0) throw invalidPrompt('empty', 'the conversation is empty, expected something to continue')
      const request = { kind: 2, prompt, logitsPositions: Float64Array.of(-1), cacheSalt, caller } as const
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
    const { cacheSalt, caller } = this.#settings
    const checked = { ...given, caller, ...(given.given['cacheSalt'] === undefined ? { cacheSalt } : {}) }
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
    // Rounds that can never fit are dropped by their length, not one by one with a call for each.
    const units = typeof message === 'string' ? message.length : 0
    for (let state = this.#withinLimits(this.#state, units); ; state = withoutOldest(state)) {
      const turn = await this.#turn(message, state, rules)
      try {
        return { turn, value: await run(turn.parts) }
      } catch (e) {
        if (!this.#canDrop || state.length === 0 || !isPolyLMError(e, 'CONTEXT_OVERFLOW')) throw e
      }
    }
  }

  async #turn(message: unknown, state: State, rules: PromptRules): Promise<Turn> {
    const { template } = this.#settings
    if (template === 'none') return await this.#plainTurn(message, rules)
    const asked = [...state, entryOf('user', textOfMessage(message))]
    return {
      parts: this.#render(messagesOf(asked), rules, state.length),
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
    if (this.#core.prompts.hasTokensBeyond === true) await this.#checkTokens(parts)
    return entryOf('user', typeof message === 'string' ? message : await this.#textOf(parts), parts)
  }

  get #canDrop(): boolean {
    return this.#settings.onOverflow === 'dropOldestTurns' && this.#settings.template !== 'none'
  }

  // Without the oldest rounds that can never fit, where they may be dropped.
  #withinLimits(state: State, more = 0): State {
    const { template } = this.#settings
    if (!this.#canDrop || typeof template === 'function') return state
    const { prompts } = this.#core
    // A speaker's marker and two newlines, or less where the tokenizer has the marker as one token.
    const around = template === 'assistant' && prompts.control('<|user|>') === undefined ? 10 : 1
    return withinLength(state, maxTextOf(prompts) - more, around)
  }

  // The conversation with what append adds, checked to be something that the template can render.
  async #withAppended(prompt: unknown, rules: PromptRules): Promise<State> {
    const { template } = this.#settings
    const more = await this.#newEntries(prompt, rules)
    checkStateLength(this.#core, template, more)
    let state = this.#withinLimits([...this.#state, ...more])
    checkStateLength(this.#core, template, state)
    if (template === 'none') return state
    while (!this.#canRender(state, more.length, rules)) state = withoutOldest(state)
    return state
  }

  // Throws what rendering throws; false when it is too long and older rounds may be dropped.
  #canRender(state: State, judged: number, rules: PromptRules): boolean {
    const all = messagesOf(state)
    const asks = typeof this.#settings.template === 'function' || all.at(-1)?.role === 'user'
    try {
      this.#render(asks ? all : [...all, { role: 'user', content: '' }], rules, state.length - judged)
      return true
    } catch (e) {
      if (!this.#canDrop || withoutOldest(state).length < judged || !isPolyLMError(e, 'CONTEXT_OVERFLOW')) throw e
      return false
    }
  }

  async #newEntries(prompt: unknown, rules: PromptRules): Promise<Entry[]> {
    const { template } = this.#settings
    const given = messagesIn(prompt)
    if (template === 'none') {
      if (given === undefined) return [await this.#plainEntry(prompt, rules)]
      promptParts({ messages: given, template }, this.#core.prompts, rules)
      return joinedEntries(given)
    }
    const more = given ?? [{ role: 'user', content: textOfMessage(prompt) }] as const
    return more.map(({ role, content }) => entryOf(role, content))
  }

  // An id that the model does not have would make every later turn fail.
  async #checkTokens(parts: readonly NativePart[]): Promise<void> {
    const { vocabSize } = this.#core.prompts
    const request = { kind: 1, prompt: parts, addSpecialTokens: false } as const
    const ids = await fromCore(() => this.#core.engine.native.tokenize(request))
    const id = ids.find(found => found >= vocabSize)
    if (id === undefined) return
    throw invalidPrompt('token out of range', `the text has the token ${id}, expected 0 to ${vocabSize - 1}`)
  }

  async #textOf(parts: readonly NativePart[]): Promise<string> {
    if (!this.#core.prompts.hasTokenizer) return ''
    const { native } = this.#core.engine
    const ids = await fromCore(() => native.tokenize({ kind: 1, prompt: parts, addSpecialTokens: false }))
    return decodeIds(this.#core, ids)
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
  #partsToContinue(): NativePart[] {
    const last = this.#state.at(-1)
    if (this.#settings.template === 'none' || last?.message.role !== 'user') return this.#partsSoFar()
    return this.#render(messagesOf(this.#state), historyRules, this.#state.length)
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
    checkStateLength(this.#core, this.#settings.template, this.#state)
    const cut = withoutTokens(this.#state, tokens, {
      encode: (text, parseSpecial, atStart) => inCore(() => native.encodeText(text, false, parseSpecial, atStart)).ids,
      decode: ids => decodeIds(this.#core, ids),
    })
    if (cut !== undefined) return cut
    throw invalidOption('tokens', tokens, `the conversation has ${this.contextUsed}`)
  }

  #render(messages: readonly Message[], rules: PromptRules, judgedFrom: number): NativePart[] {
    return render(this.#core, this.#settings, messages, rules, judgedFrom)
  }
}

const historyRules: PromptRules = { parseSpecial: true, controlText: 'escape' }

// Messages before `judgedFrom` are in the conversation already: nothing in them is refused any more.
function render(
  { prompts }: Core, { system, template }: Settings, messages: readonly Message[], rules: PromptRules,
  judgedFrom: number,
): NativePart[] {
  return messageParts([...system, ...messages], template, prompts, rules, system.length + judgedFrom)
}

/** UTF-16 units that a conversation may have although they do not fit the context: they can be taken back. */
const maxUnitsKept = 128 * 1024

// A conversation that is far too long is not encoded. What a template function makes of it is measured when it has.
function checkStateLength({ prompts }: Core, template: Template, state: State): void {
  const units = textLengthOf(state)
  if (typeof template !== 'function' && units > maxUnitsKept) checkTextLength(units, prompts, {})
}

function withinLength(state: State, most: number, around: number): State {
  let kept = state
  let length = textLengthOf(state, around)
  while (length > most && kept.length > 0) {
    const rest = withoutOldest(kept)
    length -= textLengthOf(kept.slice(0, kept.length - rest.length), around)
    kept = rest
  }
  return kept
}

// A history that the template cannot render is refused now, not at the first turn.
function checkHistory(core: Core, settings: Settings, messages: readonly Message[]): void {
  if (messages.length === 0) return
  if (settings.template === 'none') {
    render(core, settings, messages, historyRules, messages.length)
    return
  }
  if (messages.at(-1)?.role === 'user') {
    throw invalidPrompt('order', 'the last message of history is from user, expected assistant')
  }
  // What is too long is dropped by the first turn when it may be; only the order matters here.
  const isLong = settings.onOverflow === 'dropOldestTurns' && lengthOf(messages) > maxTextOf(core.prompts)
  const asked = [...(isLong ? messages.map(({ role }): Message => ({ role, content: '' })) : messages),
    { role: 'user', content: '' } as const]
  render(core, settings, asked, historyRules, messages.length)
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
