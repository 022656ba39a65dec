// chat-talk.ts: a conversation with a model: its messages and answers, its commands, and what is said about them.
// Not here: where messages come from (chat-prompt.ts, chat.ts).
import { lstat, open } from 'node:fs/promises'
import { oneLine, quotePath } from '../checkpoint/text.js'
import { isPolyLMError, PolyLMError } from '../index.js'
import type { GenerateOptions, GenerateResult, Message, Model, Session } from '../index.js'
import { chatCommands, readCommand } from './chat-commands.js'
import type { ChatCommand } from './chat-commands.js'
import { messageOf } from './chat-draft.js'
import type { Settings } from './chat-settings.js'
import { describeFailure, UsageError } from './failure.js'
import { writeFailure } from './files.js'
import { count, note, paint, print, printable } from './terminal.js'

/** What stays the same in a conversation. */
export interface TalkOptions {
  readonly settings: Settings
  readonly template: 'assistant' | 'multialpaca' | 'none'
  readonly system: string | undefined
  readonly onOverflow: 'error' | 'dropOldestTurns'
  /** A person reads along: failures are shown and the conversation goes on. */
  readonly isWatched: boolean
}

/** A new answer and the session that holds it. */
interface Answer {
  readonly session: Session
  readonly result: GenerateResult
  /** Turns that were forgotten to make room. */
  readonly dropped: number
}

const turnsIn = (history: readonly Message[]): number => history.filter(({ role }) => role === 'user').length

/** A conversation. */
export class Talk {
  readonly #model: Model
  readonly #options: TalkOptions
  #session: Session
  #answering: AbortController | undefined
  #retries = 0
  #lost: unknown

  /** @throws PolyLMError INVALID_OPTION. */
  constructor(model: Model, options: TalkOptions) {
    this.#model = model
    this.#options = options
    this.#session = this.#newSession()
  }

  /** Ends the answer that is being written; false when it was told so before, or there is none. */
  stop(): boolean {
    if (this.#answering === undefined || this.#answering.signal.aborted) return false
    this.#answering.abort()
    return true
  }

  /** True while an answer is being written. */
  get isAnswering(): boolean {
    return this.#answering !== undefined
  }

  async dispose(): Promise<void> {
    await this.#session.dispose()
  }

  /** A text as it was typed: a command, a message, or with // a message that begins with /. */
  async line(text: string): Promise<'go on' | 'leave'> {
    const line = text.trim()
    if (messageOf(line).trim() === '') return 'go on'
    if (!line.startsWith('/')) await this.say(messageOf(line))
    else if (line.startsWith('//')) await this.say(line.slice(1))
    else return await this.#orShow(() => this.#command(readCommand(line))) ?? 'go on'
    return 'go on'
  }

  /** A message as it is. */
  async say(message: string): Promise<void> {
    this.#retries = 0
    await this.#orShow(() => this.#answer(this.#session, message))
  }

  #newSession(history: readonly Message[] = []): Session {
    const { template, system, onOverflow } = this.#options
    return this.#model.createSession({ template, onOverflow, history, ...(system === undefined ? {} : { system }) })
  }

  async #command({ name, argument }: ChatCommand): Promise<'go on' | 'leave'> {
    switch (name) {
      case '/exit': return 'leave'
      case '/help': note(helpText(process.stderr.columns)); break
      case '/set': note(printable(this.#options.settings.command(argument), process.stderr)); break
      case '/undo': await this.#undo(); break
      case '/retry': await this.#retry(); break
      case '/save': await this.#save(argument); break
      case '/load': await this.#load(argument); break
      case '/reset':
        await this.#replace(this.#newSession())
        note('the conversation is empty')
    }
    return 'go on'
  }

  async #undo(): Promise<void> {
    const turns = turnsIn(this.#session.history) > 0 ? 1 : 0
    await this.#session.rewind({ turns })
    note(turns === 0 ? 'the conversation is empty' : 'the last message is forgotten')
  }

  // On a copy, so that the answer that was there stays when there is no other.
  async #retry(): Promise<void> {
    const { history } = this.#session
    const at = history.map(({ role }) => role).lastIndexOf('user')
    const message = history[at]
    if (message === undefined) throw new UsageError('there is nothing to retry', 'the conversation is empty')
    const before = history[at + 1]?.content
    const copy = this.#session.fork()
    await copy.rewind({ turns: 1 })
    this.#retries++
    const after = await this.#answer(copy, message.content)
    if (after.outputs[0]?.finishReason !== 'abort' && after.text === before) {
      const { temperature = 0 } = this.#options.settings.options
      note(`the same answer again${temperature > 0 ? '' : '; /set temperature 0.8 makes answers differ'}`)
    }
  }

  async #save(file: string): Promise<void> {
    await checkReplaceable(file)
    try {
      await this.#session.save(file)
    } catch (e) {
      throw isPolyLMError(e, 'FILE_IO') && e.cause !== undefined ? writeFailure(file, e.cause) as Error : e
    }
    note(`saved to ${oneLine(file)}`)
  }

  async #load(file: string): Promise<void> {
    const { onOverflow } = this.#options
    await this.#replace(await this.#model.restoreSession(file, { onOverflow }))
    note(`${this.#session.history.length} messages from ${oneLine(file)}${this.#meter()}`)
  }

  async #replace(session: Session): Promise<void> {
    const before = this.#session
    this.#session = session
    if (before !== session) await before.dispose()
  }

  // Prints the answer and keeps the conversation with it.
  async #answer(session: Session, message: string): Promise<GenerateResult> {
    const abort = new AbortController()
    this.#answering = abort
    try {
      const answer = await this.#fit(session, message, { ...this.#generateOptions(), signal: abort.signal, onAbort: 'return' })
      await this.#replace(answer.session)
      this.#remark(answer)
      return answer.result
    } catch (e) {
      throw isPolyLMError(e, 'CONTEXT_OVERFLOW') ? this.#overflow(e) : e
    } finally {
      this.#answering = undefined
    }
  }

  #generateOptions(): GenerateOptions {
    const { onOverflow: _, ...options } = this.#options.settings.options
    if (this.#retries === 0 || options.seed === undefined) return options
    return { ...options, seed: (options.seed + this.#retries) % Number.MAX_SAFE_INTEGER }
  }

  /**
   * The answer. An overflow drops the oldest turns; unless the length of answers was set, a quarter of the context is
   * kept free for one, as far as the message alone lets it.
   */
  async #fit(session: Session, message: string, options: GenerateOptions): Promise<Answer> {
    const { contextSize } = this.#model.info
    const room = Math.max(1, Math.min(256, Math.floor(contextSize / 4)))
    const mayDrop = this.#options.onOverflow === 'dropOldestTurns'
    if (options.maxTokens !== undefined || !mayDrop) return await this.#dropping(session, message, options)
    try {
      return await this.#dropping(session, message, { ...options, maxTokens: room })
    } catch (e) {
      if (!isPolyLMError(e, 'CONTEXT_OVERFLOW')) throw e
      return await this.#dropping(session, message, options)
    }
  }

  // A session drops turns by itself, except where they are one text.
  async #dropping(session: Session, message: string, options: GenerateOptions): Promise<Answer> {
    const had = turnsIn(session.history)
    for (let current = session; ;) {
      try {
        const result = await this.#print(current, message, options)
        return { session: current, result, dropped: had + 1 - turnsIn(current.history) }
      } catch (e) {
        const second = current.history.findIndex(({ role }, i) => i > 0 && role === 'user')
        const canDrop = this.#options.onOverflow === 'dropOldestTurns' && this.#isText() && current.history.length > 0
        if (!canDrop || !isPolyLMError(e, 'CONTEXT_OVERFLOW')) throw e
        current = this.#newSession(second < 0 ? [] : current.history.slice(second))
      }
    }
  }

  #isText(): boolean {
    return this.#options.template === 'none'
  }

  async #print(session: Session, message: string, options: GenerateOptions): Promise<GenerateResult> {
    const stream = await session.stream(message, options)
    const write = (text: string): Promise<void> => print(text).catch((e: unknown) => {
      this.#lost = e                                     // without an output there is no conversation
      throw e
    })
    for await (const event of stream) if (event.type === 'text') await write(printable(event.text))
    await write('\n')
    return await stream.result
  }

  // What the answer itself does not say.
  #remark({ result, dropped }: Answer): void {
    const { contextSize } = this.#model.info
    if (dropped > 0) {
      note(paint('yellow', `the context of ${count(contextSize)} tokens was full: the oldest ` +
        `${dropped === 1 ? 'turn was' : `${dropped} turns were`} forgotten`, process.stderr))
    }
    if (!this.#options.isWatched) return
    const [output] = result.outputs
    const reasons = {
      stop: output?.text.trim() === '' ? 'an empty answer, ' : '', abort: 'stopped, ',
      length: `cut after ${result.usage.completionTokens} tokens (see /set max-tokens), `,
    }
    note(paint('dim', `(${reasons[output?.finishReason ?? 'stop']}${this.#used()})`, process.stderr))
  }

  #used(): string {
    return `${count(this.#session.contextUsed)} of ${count(this.#model.info.contextSize)} tokens used`
  }

  #meter(): string {
    return this.#options.isWatched ? `, ${this.#used()}` : ''
  }

  #overflow(e: PolyLMError): PolyLMError {
    const { promptTokens, maxTokens, contextSize } = e as { [field: string]: unknown }
    const hint = this.#options.onOverflow === 'error'
      ? '/undo or /reset makes room; without --on-overflow error the oldest turns are forgotten'
      : 'shorten the message, set a smaller max-tokens, or start polylm with a larger --context-size'
    return new PolyLMError(e.code, e.message, { promptTokens, maxTokens, contextSize, hint, cause: e })
  }

  // A person can say something else; a script must not go on as if all were well.
  async #orShow<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work()
    } catch (e) {
      const known = e instanceof UsageError || (isPolyLMError(e) && !e.fatal)
      if (!this.#options.isWatched || !known || e === this.#lost) throw e
      process.stderr.write(describeFailure(e, process.env['POLYLM_DEBUG'] === '1'))
      return undefined
    }
  }
}

const fileStart = '{"format":"polylm-session"'

/** A conversation may replace another one, and nothing else: `/save notes.txt` must not cost somebody's notes. */
async function checkReplaceable(file: string): Promise<void> {
  const found = await lstat(file).catch(() => undefined)
  if (found === undefined || found.isDirectory()) return        // saving says what is wrong with the path
  if (found.isFile() && (found.size === 0 || await begins(file, fileStart))) return
  throw new PolyLMError('FILE_IO', `${quotePath(file)} exists and is not a saved conversation`,
    { file, hint: 'choose another name, or remove it first' })
}

async function begins(file: string, start: string): Promise<boolean> {
  try {
    const opened = await open(file)
    try {
      const { buffer, bytesRead } = await opened.read(Buffer.alloc(start.length), 0, start.length, 0)
      return buffer.toString('latin1', 0, bytesRead) === start
    } finally {
      await opened.close()
    }
  } catch {
    return false
  }
}

const waysToType = [
  ['line\\', 'a backslash at the end continues a message'],
  ['"""', 'begins and ends a message of several lines; pasted lines stay together'],
  ['//text', 'a message that begins with /'],
  ['Ctrl-C', 'stops an answer, clears a line, twice: leaves'],
] as const

/** The commands and keys, within the width of a terminal. */
export function helpText(columns = 80): string {
  const rows = [...chatCommands.map(([name, takes, text]) => [`${name} ${takes}`.trim(), text] as const), ...waysToType]
  const width = Math.max(...rows.map(([name]) => name.length)) + 2
  const isNarrow = columns < 2 * width + 40
  return rows.map(([name, text]) => (isNarrow ? `${name}\n${wrap(text, columns, 4)}` : name.padEnd(width) + text)).join('\n')
}

/** A text in lines that fit, each indented. */
export function wrap(text: string, columns: number, indent = 0): string {
  const lines: string[] = ['']
  for (const word of text.split(' ')) {
    const last = lines.at(-1) ?? ''
    if (last === '') lines[lines.length - 1] = word
    else if (indent + last.length + 1 + word.length < columns) lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines.map(line => ' '.repeat(indent) + line).join('\n')
}
