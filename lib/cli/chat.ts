// chat.ts: `polylm chat`: a conversation in the terminal, or one message a line from a pipe.
// Not here: what is done with a message or command (chat-talk.ts), the prompt (chat-prompt.ts).
import { Command, Option } from 'commander'
import type { Model } from '../index.js'
import { banner } from './chat-banner.js'
import { chatCommands, isCommand } from './chat-commands.js'
import { LineJoiner, messageOf } from './chat-draft.js'
import { History, historyFile } from './chat-history.js'
import { ChatPrompt, terminalOutput } from './chat-prompt.js'
import { refuseOptions, Settings } from './chat-settings.js'
import { Talk } from './chat-talk.js'
import { addDecodingFlags, decodingOptions } from './decoding-flags.js'
import { exitCodes, QuietFailure } from './failure.js'
import type { Interrupt } from './interrupt.js'
import { linesOf } from './lines.js'
import { addModelFlags, loadOptions, splitModel, withModel } from './model-flags.js'
import { addPromptFlags, templateOf } from './prompt.js'
import { note } from './terminal.js'

const commandList = chatCommands.map(([name, takes, text]) => `  ${`${name} ${takes}`.padEnd(20)}${text}`).join('\n')

const examples = `
Examples:
  polylm chat ./polylm-chat-13b
  polylm chat ./polylm-1.7b --template none --max-tokens 100 --temperature 0.7
  printf 'Hello\\nAnd in Thai?\\n' | polylm chat --demo

At the prompt:
${commandList}
  A message of several lines: end a line with \\ to continue it, or write the message between """ and """, or paste
  it. A message that begins with / is written with //. Ctrl-C stops an answer, clears a line, and leaves when pressed
  twice. Arrow keys bring back earlier messages, kept in $XDG_STATE_HOME/polylm/history (~/.local/state/polylm/history)
  unless --no-history is given.

From a pipe:
  Each line is a message; blank lines are left out. \\ and """ join lines as at the prompt. A line that begins with /
  is a message like any other; with --commands it is a command, and one that fails ends the program (exit code 1 or 2).

When the context is full the oldest turns are forgotten, and a remark on standard error says so; with
--on-overflow error the message is refused instead. Unless --max-tokens says otherwise an answer has 256 tokens at most,
or a quarter of the context where that is less.`

/** The `chat` command. */
export function chatCommand(): Command {
  const command = new Command('chat')
    .description('talk to a model')
    .usage('[options] <model | --demo>')
    .argument('[model]', 'a directory in Hugging Face layout')
  addModelFlags(command)
  addPromptFlags(command, false)
  const heading = 'Conversation:'
  command
    .addOption(new Option('--commands', 'lines from a pipe may be commands such as /undo').helpGroup(heading))
    .addOption(new Option('--no-history', 'do not keep what is typed for the next conversation').helpGroup(heading))
  return addDecodingFlags(command).addHelpText('after', examples).action(() => chat(command))
}

async function chat(command: Command): Promise<void> {
  const { dir } = splitModel(command, 0)
  const options = decodingOptions(command)
  refuseOptions(options)
  const isWatched = process.stdin.isTTY === true
  await withModel(dir, loadOptions(command), async (model, interrupt) => {
    const talk = new Talk(model, {
      settings: new Settings(options), isWatched, template: templateOf(command) ?? 'assistant',
      system: command.getOptionValue('system') as string | undefined,
      onOverflow: options.onOverflow === 'error' ? 'error' : 'dropOldestTurns',
    })
    try {
      if (isWatched) await watched(command, talk, { dir, model, interrupt })
      else await piped(talk, interrupt, command.getOptionValue('commands') === true)
    } finally {
      await talk.dispose()
    }
  })
}

/** Messages from a pipe or file; the first failure ends them. */
async function piped(talk: Talk, interrupt: Interrupt, withCommands: boolean): Promise<void> {
  const stop = (): void => { talk.stop() }
  interrupt.signal.addEventListener('abort', stop)
  const joiner = new LineJoiner()
  let isTold = false
  const take = async (text: string | undefined, where: string): Promise<'go on' | 'leave'> => {
    if (text === undefined || messageOf(text).trim() === '') return 'go on'
    if (withCommands && text.startsWith('/')) return await talk.line(text)
    if (!isTold && isCommand(text)) {
      note(`${where} is a message although it begins with a command; --commands runs commands`)
      isTold = true
    }
    await talk.say(messageOf(text))
    return 'go on'
  }
  for await (const { text, number } of linesOf('-', interrupt.signal)) {
    const next = await take(joiner.add(text), `line ${number}`)
    if (interrupt.pressed) throw interrupt.failure
    if (next === 'leave') return
  }
  await take(joiner.end(), 'the last line')
  if (interrupt.pressed) throw interrupt.failure
}

/** A person at a terminal. */
async function watched(
  command: Command, talk: Talk, { dir, model, interrupt }: { dir: string, model: Model, interrupt: Interrupt },
): Promise<void> {
  interrupt.release()                                     // from here on Ctrl-C belongs to the conversation
  const output = terminalOutput()
  // Without a place for a prompt the terminal itself takes lines, and signals come as signals.
  if (output === undefined) return await unprompted(talk)
  const history = new History(command.getOptionValue('history') === false ? undefined : historyFile())
  let code: number = exitCodes.done
  const stop = (): void => {
    if (talk.isAnswering && !talk.stop()) process.exit(exitCodes.interrupted)
  }
  const prompt = new ChatPrompt(output, history.load(), stop)
  const terminate = (): void => {
    code = exitCodes.terminated
    talk.stop()
    prompt.end()
  }
  process.on('SIGTERM', terminate).on('SIGHUP', terminate).on('SIGINT', stop)
  try {
    note(banner(dir, model.info, output.columns))
    for (let text = await prompt.read(); text !== undefined; text = await prompt.read()) {
      history.add(text)
      if (await talk.line(text) === 'leave') break
    }
  } finally {
    prompt.close()
    process.off('SIGTERM', terminate).off('SIGHUP', terminate).off('SIGINT', stop)
  }
  if (code !== exitCodes.done) throw new QuietFailure(code)
}

async function unprompted(talk: Talk): Promise<void> {
  const stop = (): void => { if (!talk.stop()) process.exit(exitCodes.interrupted) }
  process.on('SIGINT', stop)
  try {
    const joiner = new LineJoiner()
    for await (const { text } of linesOf('-')) {
      if (await talk.line(joiner.add(text) ?? '') === 'leave') return
    }
    await talk.line(joiner.end() ?? '')
  } finally {
    process.off('SIGINT', stop)
  }
}
