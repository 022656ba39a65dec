// chat-commands.ts: the commands of a conversation: their list, how a line is read as one, and what Tab completes.
// Not here: what they do (chat-talk.ts).
import { readdirSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'
import { quote } from '../checkpoint/text.js'
import { nearest } from '../option-reader.js'
import { settingNames, settingValues } from './chat-settings.js'
import { UsageError } from './failure.js'

/** The commands: name, argument, meaning. */
export const chatCommands = [
  ['/help', '', 'this list'],
  ['/undo', '', 'forget the last message and its answer'],
  ['/retry', '', 'answer the last message again, with a new seed'],
  ['/reset', '', 'forget the conversation'],
  ['/set', '[NAME VALUE]', 'show or change decoding options'],
  ['/save', 'FILE', 'write the conversation to a file'],
  ['/load', 'FILE', 'go on with a conversation from a file'],
  ['/exit', '', 'leave (so do /quit and Ctrl-D)'],
] as const

/** What a command is called, and what stands behind it. */
export interface ChatCommand {
  readonly name: (typeof chatCommands)[number][0]
  readonly argument: string
}

const namesOfFiles: readonly string[] = ['/save', '/load']
const commandNames: ReadonlySet<string> = new Set(chatCommands.map(([name]) => name))

/** True for a line that begins with the name of a command. */
export const isCommand = (line: string): boolean => commandNames.has(nameIn(line))

const nameIn = (line: string): string => {
  const name = /^\S*/.exec(line)?.[0] ?? ''
  return name === '/quit' ? '/exit' : name
}

/**
 * Reads a line that begins with a slash.
 *
 * @throws UsageError for an unknown command, a missing argument or one too many.
 */
export function readCommand(line: string): ChatCommand {
  const name = nameIn(line)
  const argument = line.slice(/^\S*/.exec(line)?.[0].length ?? 0).trim()
  const found = chatCommands.find(row => row[0] === name)
  if (found === undefined) {
    const meant = [...commandNames].find(known => name.length > 1 && known.startsWith(name)) ?? nearest(name, commandNames)
    throw new UsageError(`unknown command ${quote(name)}${meant === undefined ? '' : `; did you mean ${meant}?`}`,
      '/help lists the commands; a message that begins with / is written with //')
  }
  const [, takes] = found
  if (takes === 'FILE' && argument === '') throw new UsageError(`${name} needs a file`, `as in ${name} chat.plm`)
  if (takes === '' && argument !== '') {
    throw new UsageError(`${name} stands alone, found ${quote(argument)} behind it`,
      'a message that begins with / is written with //')
  }
  return { name: found[0], argument: takes === 'FILE' ? atHome(argument) : argument }
}

/** `~/x` as the shell reads it; there is no shell here. */
function atHome(file: string): string {
  return /^~(?=$|[/\\])/.test(file) ? path.join(homedir(), file.slice(1)) : file
}

/** The names in a folder, folders with a slash; none when it cannot be read. */
export function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).map(entry => entry.name + (entry.isDirectory() ? '/' : ''))
  } catch {
    return []
  }
}

/** What a line can be completed to, and the part of it that is replaced: commands, options and their values, files. */
export function complete(line: string, list: (folder: string) => string[] = namesIn): [string[], string] {
  const [, name = '', rest] = /^(\/\S*)(?:\s+(.*))?$/s.exec(line) ?? []
  if (name === '') return [[], line]
  if (rest === undefined) {
    const fits = [...commandNames].filter(command => command.startsWith(line))
    return [fits.map(command => (takesArgument(command) ? `${command} ` : command)), line]
  }
  if (namesOfFiles.includes(name)) return [files(rest, list), rest]
  if (name !== '/set') return [[], line]
  const [, option, value] = /^(\S+)\s+(\S*)$/.exec(rest) ?? []
  if (option === undefined) return [settingNames.filter(known => known.startsWith(rest)).map(one => `${one} `), rest]
  return [settingValues(option).filter(known => known.startsWith(value ?? '')), value ?? '']
}

const takesArgument = (command: string): boolean => chatCommands.some(row => row[0] === command && row[1] !== '')

function files(start: string, list: (folder: string) => string[]): string[] {
  const cut = Math.max(start.lastIndexOf('/'), path.sep === '\\' ? start.lastIndexOf('\\') : -1) + 1
  const [folder, begun] = [start.slice(0, cut), start.slice(cut)]
  return list(folder === '' ? '.' : atHome(folder))
    // eslint-disable-next-line no-control-regex
    .filter(name => name.startsWith(begun) && (begun !== '' || !name.startsWith('.')) && !/[\x00-\x1f\x7f]/.test(name))
    .sort().map(name => folder + name)
}
