// prompt.ts: prompts as the command line and JSON lines give them, turned into the library's Prompt.
import { Option } from 'commander'
import type { Command } from 'commander'
import type { GenerateOptions, Message, Prompt, Template } from '../index.js'
import { biasFromJson } from './decoding-flags.js'
import { UsageError } from './failure.js'
import { isRecord, readText } from './lines.js'

const templates = ['assistant', 'multialpaca', 'none'] as const
type TemplateName = (typeof templates)[number] & Template

/** Adds --template, --system and, where a conversation can be given, --messages. */
export function addPromptFlags(command: Command, withMessages: boolean): Command {
  const heading = 'Prompt:'
  command.addOption(new Option('--template <name>', 'wrap the prompt as PolyLM\'s authors do')
    .choices([...templates]).helpGroup(heading))
  command.addOption(new Option('--system <text>', 'a system message before it').helpGroup(heading))
  if (withMessages) {
    command.addOption(new Option('--messages <file>',
      'a JSON file with [{"role":"user","content":"..."}, ...] instead of a prompt; - is standard input')
      .helpGroup(heading))
  }
  return command
}

/** The template that was asked for on the command line. */
export function templateOf(command: Command): TemplateName | undefined {
  return command.getOptionValue('template') as TemplateName | undefined
}

/** The prompt of a single generation: the argument, standard input for '-', or --messages. */
export async function promptFrom(command: Command, argument: string | undefined): Promise<Prompt> {
  const file = command.getOptionValue('messages') as string | undefined
  const system = command.getOptionValue('system') as string | undefined
  if (file !== undefined) {
    if (argument !== undefined) throw new UsageError('a prompt and --messages were given', 'give one of them')
    return withTemplate([...systemMessage(system), ...await messagesFrom(file)], templateOf(command))
  }
  if (argument === undefined) {
    throw new UsageError('the prompt is missing', 'give it as an argument, or - to read standard input')
  }
  const text = argument === '-' ? dropLastNewline(await readText('-')) : argument
  const template = templateOf(command)
  if (template === undefined && system === undefined) return text
  return withTemplate([...systemMessage(system), { role: 'user', content: text }], template)
}

function withTemplate(messages: Message[], template: Template | undefined): Prompt {
  return template === undefined ? { messages } : { messages, template }
}

function systemMessage(system: string | undefined): Message[] {
  return system === undefined ? [] : [{ role: 'system', content: system }]
}

/** `echo text |` adds a line end that nobody means. */
function dropLastNewline(text: string): string {
  return text.replace(/\r?\n$/, '')
}

async function messagesFrom(file: string): Promise<Message[]> {
  let value: unknown
  try {
    value = JSON.parse(await readText(file))
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
    throw new UsageError(`${file} is not JSON: ${cause.message}`)
  }
  return checkMessages(value, file)
}

function checkMessages(value: unknown, where: string): Message[] {
  const ok = Array.isArray(value) && value.every(m => isRecord(m) && typeof m['content'] === 'string' &&
    (m['role'] === 'system' || m['role'] === 'user' || m['role'] === 'assistant'))
  if (!ok) {
    throw new UsageError(`${where} must hold a list of {"role": "user" | "assistant" | "system", "content": text}`)
  }
  return value as Message[]
}

/** One line of `--input`: the prompt, its own options, and an id that comes back with the answer. */
export interface InputLine {
  readonly prompt: Prompt
  readonly options: GenerateOptions
  readonly id: unknown
}

const lineKeys = new Set(['id', 'prompt', 'tokens', 'messages', 'template', 'options'])

/** Reads a line of `--input`: a JSON string, or an object with prompt, tokens or messages. */
export function inputLine(value: unknown, where: string, template: Template | undefined): InputLine {
  if (typeof value === 'string') return { prompt: wrap(value, template), options: {}, id: undefined }
  if (!isRecord(value)) throw new UsageError(`${where} is neither a JSON string nor an object`)
  const unknown = Object.keys(value).find(key => !lineKeys.has(key))
  if (unknown !== undefined) {
    throw new UsageError(`${where} has the unknown key '${unknown}'`, `known are ${[...lineKeys].join(', ')}`)
  }
  const { options = {} } = value
  if (!isRecord(options)) throw new UsageError(`${where}: options must be an object`)
  const bias = options['bias'] === undefined ? {} : { bias: biasFromJson(options['bias']) }
  const prompt = linePrompt(value, where, template)
  return { prompt, options: { ...options, ...bias } as GenerateOptions, id: value['id'] }
}

function linePrompt(line: Record<string, unknown>, where: string, template: Template | undefined): Prompt {
  const { prompt, tokens, messages } = line
  if ([prompt, tokens, messages].filter(part => part !== undefined).length !== 1) {
    throw new UsageError(`${where} must have exactly one of prompt, tokens and messages`)
  }
  const own = line['template'] === undefined ? template : templateNamed(line['template'], where)
  if (messages !== undefined) return withTemplate(checkMessages(messages, where), own)
  if (tokens !== undefined) {
    if (!Array.isArray(tokens)) throw new UsageError(`${where}: tokens must be a list of ids`)
    return { tokens: tokens as number[] }
  }
  if (typeof prompt !== 'string') throw new UsageError(`${where}: prompt must be text`)
  return wrap(prompt, own)
}

function templateNamed(value: unknown, where: string): TemplateName {
  const found = templates.find(name => name === value)
  if (found === undefined) throw new UsageError(`${where}: template must be one of ${templates.join(', ')}`)
  return found
}

function wrap(text: string, template: Template | undefined): Prompt {
  return template === undefined ? text : { messages: [{ role: 'user', content: text }], template }
}
