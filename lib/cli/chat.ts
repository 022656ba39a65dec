// chat.ts: `polylm chat`: a conversation in the terminal, or one message a line from a pipe.
// Trap: readline keeps the terminal in raw mode, so Ctrl-C arrives as its 'SIGINT' event and not as a signal.
import { createInterface } from 'node:readline'
import type { Interface } from 'node:readline'
import { Command } from 'commander'
import { oneLine } from '../checkpoint/text.js'
import { isPolyLMError } from '../index.js'
import type { GenerateOptions, Model, Session } from '../index.js'
import { addDecodingFlags, decodingOptions } from './decoding-flags.js'
import { describeFailure, exitCodes, QuietFailure, UsageError } from './failure.js'
import { addModelFlags, loadOptions, splitModel, withModel } from './model-flags.js'
import { addPromptFlags, templateOf } from './prompt.js'
import { printStream } from './generate.js'
import { note, paint } from './terminal.js'

const commands: ReadonlyArray<readonly [string, string]> = [
  ['/help', 'this list'],
  ['/undo', 'forget the last message and its answer'],
  ['/reset', 'forget the conversation'],
  ['/save FILE', 'write the conversation to a file'],
  ['/load FILE', 'go on with a conversation from a file'],
  ['/quit', 'leave (so does Ctrl-D)'],
]

const commandList = `
In the conversation:
${commands.map(([shown, text]) => `  ${shown.padEnd(12)}${text}`).join('\n')}`

const examples = `
Examples:
  polylm chat ./polylm-chat-13b
  polylm chat ./polylm-1.7b --template none --max-tokens 100 --temperature 0.7
  printf 'Hello\\nAnd in Thai?\\n' | polylm chat --demo
${commandList}`

/** The `chat` command. */
export function chatCommand(): Command {
  const command = new Command('chat')
    .description('talk to a model')
    .usage('[options] <model | --demo>')
    .argument('[model]', 'a directory in Hugging Face layout')
  addModelFlags(command)
  addPromptFlags(command, false)
  return addDecodingFlags(command).addHelpText('after', examples).action(() => chat(command))
}

async function chat(command: Command): Promise<void> {
  const { dir } = splitModel(command, 0)
  const options = decodingOptions(command)
  if (options.logprobs !== undefined) {
    throw new UsageError('--logprobs: a chat shows text alone', 'use polylm generate --template assistant --logprobs')
  }
  await withModel(dir, loadOptions(command), async (model, interrupt) => {
    interrupt.release()                                   // from here on Ctrl-C belongs to the conversation
    await new Conversation(model, options, command).run()
  })
}

class Conversation {
  readonly #model: Model
  readonly #options: GenerateOptions
  readonly #flags: Command
  readonly #interactive = process.stdin.isTTY === true
  #session: Session
  #answer: AbortController | undefined

  constructor(model: Model, options: GenerateOptions, command: Command) {
    this.#model = model
    this.#options = options
    this.#flags = command
    this.#session = this.#newSession()
  }

  #newSession(): Session {
    const system = this.#flags.getOptionValue('system') as string | undefined
    return this.#model.createSession({
      template: templateOf(this.#flags) ?? 'assistant', ...(system === undefined ? {} : { system }),
    })
  }

  /** Reads lines until the end of the input or /quit. */
  async run(): Promise<void> {
    const lines = createInterface({
      input: process.stdin, terminal: this.#interactive, prompt: paint('cyan', '> ', process.stderr),
      ...(this.#interactive ? { output: process.stderr } : {}), crlfDelay: Infinity,
    })
    const interrupted = (): void => this.#interrupted(lines)
    lines.on('SIGINT', interrupted)
    process.on('SIGINT', interrupted)
    const { family, device } = this.#model.info
    if (this.#interactive) note(`${family} on ${device.name}; /help lists the commands`)
    try {
      if (this.#interactive) lines.prompt()
      for await (const line of lines) {
        if (await this.#handle(line.trim()) === 'quit') break
        if (this.#interactive) lines.prompt()
      }
    } finally {
      lines.close()
      process.off('SIGINT', interrupted)
      await this.#session.dispose()
    }
  }

  #interrupted(lines: Interface): void {
    if (this.#answer !== undefined && !this.#answer.signal.aborted) this.#answer.abort()
    else if (this.#answer !== undefined || !this.#interactive) process.exit(exitCodes.interrupted)
    else lines.close()
  }

  async #handle(line: string): Promise<'go on' | 'quit'> {
    if (line === '') return 'go on'
    if (line === '/quit' || line === '/exit') return 'quit'
    if (line.startsWith('/')) await this.#orReport(() => this.#command(line))
    else await this.#say(line)
    return 'go on'
  }

  async #command(line: string): Promise<void> {
    const [name = '', file = ''] = line.split(/\s+(.*)/s)
    if (name === '/help') {
      for (const [shown, text] of commands) note(`${shown.padEnd(12)}${text}`)
    } else if (name === '/undo') {
      const turns = this.#session.history.some(({ role }) => role === 'user') ? 1 : 0
      await this.#session.rewind({ turns })
      note(turns === 0 ? 'the conversation is empty' : 'the last message is forgotten')
    } else if (name === '/reset') {
      await this.#replace(this.#newSession())
      note('the conversation is empty')
    } else if (name === '/save' && file !== '') {
      await this.#session.save(file)
      note(`saved to ${oneLine(file)}`)
    } else if (name === '/load' && file !== '') {
      await this.#replace(await this.#model.restoreSession(file))
      note(`${this.#session.history.length} messages from ${oneLine(file)}`)
    } else {
      note(name === '/save' || name === '/load' ? `${name} needs a file: ${name} chat.plm`
        : `unknown command ${oneLine(line)}; /help lists the commands`)
    }
  }

  async #replace(session: Session): Promise<void> {
    await this.#session.dispose()
    this.#session = session
  }

  async #say(message: string): Promise<void> {
    const answer = new AbortController()
    this.#answer = answer
    try {
      const options = { ...this.#options, signal: answer.signal, onAbort: 'return' } as const
      await this.#orReport(async () => { await printStream(await this.#session.stream(message, options)) })
    } finally {
      this.#answer = undefined
    }
    if (answer.signal.aborted && !this.#interactive) throw new QuietFailure(exitCodes.interrupted)
  }

  // A person can say something else; a script must not go on as if all were well.
  async #orReport(work: () => Promise<void>): Promise<void> {
    try {
      await work()
    } catch (e) {
      if (!this.#interactive || !isPolyLMError(e) || e.fatal) throw e
      process.stderr.write(describeFailure(e, process.env['POLYLM_DEBUG'] === '1'))
    }
  }
}
