// prompt.ts: prompts as the command line and JSON lines give them, turned into the library's Prompt.
import { Option } from 'commander'
import type { Command } from 'commander'
import type { GenerateOptions, Message, Prompt, Template } from '../index.js'
import { quote } from '../checkpoint/text.js'
import { biasFromJson } from './decoding-flags.js'
import { UsageError } from './failure.js'
import { fileName, readText } from './files.js'
import { isRecord, shortReason } from './lines.js'
import { promptTemplate } from './prompt-template.js'
import type { PromptTemplate } from './prompt-template.js'

const templates = ['assistant', 'multialpaca', 'none'] as const
type TemplateName = (typeof templates)[number] & Template

/** What the command line puts around each text. */
export interface PromptFrame {
  readonly template?: Template | undefined
  readonly system?: string | undefined
  /** --prompt-template. */
  readonly around?: PromptTemplate | undefined
}

/** Adds --template, --system and, where a whole prompt can be given, --messages and --prompt-template. */
export function addPromptFlags(command: Command, wholePrompt: boolean): Command {
  const heading = 'Prompt:'
  command.addOption(new Option('--template <name>', 'wrap the prompt as PolyLM\'s authors do')
    .choices([...templates]).helpGroup(heading))
  command.addOption(new Option('--system <text>', 'a system message before it').helpGroup(heading))
  if (wholePrompt) {
    command.addOption(new Option('--messages <file>',
      'a JSON file with [{"role":"user","content":"..."}, ...] instead of a prompt; - is standard input')
      .helpGroup(heading))
    command.addOption(new Option('--prompt-template <text>',
      'text around the prompt, or around each line of --input: {text} is its place, \\n a line end')
      .argParser(checkedTemplate).helpGroup(heading))
  }
  return command
}

// The text is kept beside its meaning: --resume compares it.
function checkedTemplate(source: string): string {
  promptTemplate(source)
  return source
}

/** The template that was asked for on the command line. */
export function templateOf(command: Command): TemplateName | undefined {
  return command.getOptionValue('template') as TemplateName | undefined
}

/** What the command line puts around each prompt. */
export function promptFrame(command: Command): PromptFrame {
  const source = command.getOptionValue('promptTemplate') as string | undefined
  return {
    template: templateOf(command),
    system: command.getOptionValue('system') as string | undefined,
    around: source === undefined ? undefined : promptTemplate(source),
  }
}

/** The prompt of a single generation: the argument, standard input for '-' or when it is a pipe, or --messages. */
export async function promptFrom(command: Command, argument: string | undefined): Promise<Prompt> {
  const file = command.getOptionValue('messages') as string | undefined
  const frame = promptFrame(command)
  if (file !== undefined) {
    if (argument !== undefined) throw new UsageError('a prompt and --messages were given', 'give one of them')
    if (frame.around !== undefined) {
      throw new UsageError('--prompt-template and --messages were given', 'give one of them')
    }
    return withTemplate([...systemMessage(frame.system), ...await messagesFrom(file)], frame.template)
  }
  if (argument === undefined && process.stdin.isTTY === true) throw noPrompt()
  const text = argument === undefined || argument === '-' ? dropLastNewline(await readText('-')) : argument
  if (argument === undefined && text === '') throw noPrompt()
  return wrap(text, frame)
}

function noPrompt(): UsageError {
  return new UsageError('the prompt is missing', 'give it as an argument, pipe text into the command, or see --input')
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
    throw new UsageError(`${fileName(file)} is not JSON: ${shortReason(cause)}`)
  }
  return checkMessages(value, fileName(file))
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

/** A line of text as a prompt. */
export function textLine(text: string, frame: PromptFrame): InputLine {
  return { prompt: wrap(text, frame), options: {}, id: undefined }
}

/** Reads a line of `--input`: a JSON string, or an object with prompt, tokens or messages. */
export function inputLine(value: unknown, where: string, frame: PromptFrame): InputLine {
  if (typeof value === 'string') return textLine(value, frame)
  if (!isRecord(value)) throw new UsageError(`${where} is neither a JSON string nor an object`)
  const unknown = Object.keys(value).find(key => !lineKeys.has(key))
  if (unknown !== undefined) {
    throw new UsageError(`${where} has the unknown key ${quote(unknown)}`, `known are ${[...lineKeys].join(', ')}`)
  }
  const { options = {} } = value
  if (!isRecord(options)) throw new UsageError(`${where}: options must be an object`)
  const bias = options['bias'] === undefined ? {} : { bias: biasFromJson(options['bias']) }
  const prompt = linePrompt(value, where, frame)
  return { prompt, options: { ...options, ...bias } as GenerateOptions, id: value['id'] }
}

function linePrompt(line: Record<string, unknown>, where: string, frame: PromptFrame): Prompt {
  const { prompt, tokens, messages } = line
  if ([prompt, tokens, messages].filter(part => part !== undefined).length !== 1) {
    throw new UsageError(`${where} must have exactly one of prompt, tokens and messages`)
  }
  if (prompt === undefined && frame.around !== undefined) {
    throw new UsageError(`${where} has no "prompt" for --prompt-template`, 'give its text as "prompt"')
  }
  const template = line['template'] === undefined ? frame.template : templateNamed(line['template'], where)
  if (messages !== undefined) {
    return withTemplate([...systemMessage(frame.system), ...checkMessages(messages, where)], template)
  }
  if (tokens !== undefined) {
    if (!Array.isArray(tokens)) throw new UsageError(`${where}: tokens must be a list of ids`)
    return { tokens: tokens as number[] }
  }
  if (typeof prompt !== 'string') throw new UsageError(`${where}: prompt must be text`)
  return wrap(prompt, { ...frame, template })
}

function templateNamed(value: unknown, where: string): TemplateName {
  const found = templates.find(name => name === value)
  if (found === undefined) throw new UsageError(`${where}: template must be one of ${templates.join(', ')}`)
  return found
}

function wrap(text: string, { template, system, around }: PromptFrame): Prompt {
  const content = around === undefined ? text : around(text)
  if (template === undefined && system === undefined) return content
  return withTemplate([...systemMessage(system), { role: 'user', content }], template)
}
