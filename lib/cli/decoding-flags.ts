// decoding-flags.ts: every decoding option of the library as a kebab-case flag, from one table.
// Not here: what an option means or which values it may have; the library checks that (options.ts).
import { Option, InvalidArgumentError } from 'commander'
import type { Command } from 'commander'
import type { GenerateOptions } from '../index.js'

type Parse = (text: string, previous: unknown) => unknown
interface Row {
  readonly option: keyof GenerateOptions
  /** Name of the flag's value; absent for switches. In brackets when it may be left out. */
  readonly value?: string
  readonly parse?: Parse
  /** What the flag means when its value is left out. */
  readonly preset?: string
  readonly help: string
  /** For switches: which forms exist. Default 'on'. */
  readonly forms?: 'on' | 'off' | 'both'
}

const wholeNumber = /^[+-]?\d+$/
const decimal = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/

/** A whole number that a double holds exactly. */
export function integer(text: string): number {
  const value = Number(text)
  if (!wholeNumber.test(text) || !Number.isSafeInteger(value)) throw new InvalidArgumentError('It must be a whole number.')
  return value
}

/** A finite number in decimal notation. */
export function real(text: string): number {
  const value = Number(text)
  if (!decimal.test(text) || !Number.isFinite(value)) throw new InvalidArgumentError('It must be a number.')
  return value
}

/** '2,7' as [2, 7]; 'none' as []. */
export function integerList(text: string): number[] {
  return text === 'none' ? [] : text.split(',').map(part => integer(part.trim()))
}

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (e) {
    throw new InvalidArgumentError(`It must be JSON (${(e as Error).message}).`)
  }
}

/** JSON has no infinity: the strings '-inf' and '-Infinity' stand for it in a bias list. */
export function biasFromJson(value: unknown): unknown {
  if (!Array.isArray(value)) return value
  return value.map(rule => {
    if (!Array.isArray(rule) || rule.length !== 2) return rule as unknown
    const [tokens, amount] = rule as [unknown, unknown]
    return [tokens, amount === '-inf' || amount === '-Infinity' ? -Infinity : amount]
  })
}

function padTo(text: string): { length: number; tokenId: number } {
  const [length, tokenId, ...rest] = integerList(text)
  if (length === undefined || tokenId === undefined || rest.length > 0) {
    throw new InvalidArgumentError('It must be LENGTH,TOKEN as in 64,0.')
  }
  return { length, tokenId }
}

function earlyStopping(text: string): boolean | 'never' {
  if (text === 'true' || text === 'false') return text === 'true'
  if (text === 'never') return text
  throw new InvalidArgumentError('It must be true, false or never.')
}

const append: Parse = (text, previous) => [...((previous as string[] | undefined) ?? []), text]
const asText: Parse = text => text
const n = { value: 'n', parse: integer } as const
const x = { value: 'x', parse: real } as const

/** The flags by heading. A new option of the library is one row here. */
export const decodingFlags: Readonly<Record<string, readonly Row[]>> = {
  'Length and stopping:': [
    { option: 'maxTokens', ...n, help: 'new tokens at most (default: 256, less when the context has less room)' },
    { option: 'minTokens', ...n, help: 'no stop token before so many new tokens' },
    { option: 'stop', value: 'text', parse: append, help: 'end at this text; may be given several times' },
    { option: 'includeStop', help: 'keep the stop text in the output' },
    {
      option: 'stopTokenIds', value: 'ids', parse: integerList,
      help: 'end at one of these tokens, as in 2,255999 (default: the model\'s; none: never)',
    },
    { option: 'onOverflow', value: 'mode', parse: asText, help: 'prompt too long: error (default) or truncateLeft' },
    { option: 'queueTimeoutMs', ...n, help: 'give up when not started after so many milliseconds' },
  ],
  'Sampling:': [
    { option: 'temperature', ...x, help: 'sampling when above 0 (default: 0, greedy)' },
    { option: 'topK', ...n, help: 'keep the k best tokens; 0: off' },
    { option: 'topP', ...x, help: 'keep the smallest set with this probability; 1: off' },
    { option: 'minP', ...x, help: 'drop tokens below x times the best probability; 0: off' },
    { option: 'typicalP', ...x, help: 'locally typical sampling; 1: off' },
    { option: 'epsilonCutoff', ...x, help: 'drop tokens below this probability; 0: off' },
    { option: 'etaCutoff', ...x, help: 'eta sampling; 0: off' },
    { option: 'seed', ...n, help: 'makes sampling repeatable (default: random, reported)' },
    { option: 'n', ...n, help: 'outputs for the prompt' },
  ],
  'Beam search:': [
    { option: 'numBeams', ...n, help: 'beam search when above 1' },
    {
      option: 'earlyStopping', value: '[mode]', parse: earlyStopping, preset: 'true',
      help: 'true, false (default) or never; the bare flag means true',
    },
    { option: 'lengthPenalty', ...x, help: 'exponent of the length in a beam\'s score (default: 1)' },
    { option: 'sampleBeams', help: 'sample the candidates of the beams; needs a temperature' },
    { option: 'beamScoring', value: 'rules', parse: asText, help: 'hf-4.55 or hf-4.31 (default: from --compat)' },
  ],
  'Penalties and constraints:': [
    { option: 'repetitionPenalty', ...x, help: 'Hugging Face\'s; prompt tokens count; 1: off' },
    { option: 'noRepeatNgramSize', ...n, help: 'no n-gram twice, prompt included; 0: off' },
    { option: 'presencePenalty', ...x, help: 'OpenAI\'s, -2 to 2' },
    { option: 'frequencyPenalty', ...x, help: 'OpenAI\'s, -2 to 2' },
    {
      option: 'bias', value: 'json', parse: text => biasFromJson(json(text)),
      help: 'added to tokens or token sequences, as in [[17,-1.5],[[4,5],"-inf"]]',
    },
    { option: 'allow', value: 'json', parse: json, help: 'only {"tokens":[...]} or {"choices":["yes","no"]}' },
    { option: 'forcedFirstToken', ...n, help: 'the first new token' },
    { option: 'forcedLastToken', ...n, help: 'the token at --max-tokens' },
    { option: 'padTo', value: 'length,token', parse: padTo, help: 'behave as if left-padded to this width' },
  ],
  'Output of scores and text:': [
    {
      option: 'logprobs', value: '[n]', parse: integer, preset: '0',
      help: 'log-probabilities, with n alternatives; shown by --json and --output',
    },
    { option: 'logprobsOf', value: 'which', parse: asText, help: 'model (default) or processed' },
    { option: 'renormalize', help: 'log-softmax after all processors' },
    { option: 'addSpecialTokens', forms: 'both', help: 'as the tokenizer would (default: its configuration)' },
    { option: 'parseSpecial', forms: 'off', help: 'special tokens written in the prompt are plain text' },
    { option: 'skipSpecialTokens', forms: 'off', help: 'show special tokens in the text' },
    { option: 'cacheSalt', value: 'text', parse: asText, help: 'prompt cache is shared only within equal salts' },
  ],
}

const kebab = (name: string): string => name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)

/** The commander options of one row: one, or two for a switch that can be set both ways. */
function optionsOf(row: Row): Option[] {
  const flag = kebab(row.option)
  if (row.value !== undefined) {
    const value = row.value.startsWith('[') ? row.value : `<${row.value}>`
    const option = new Option(`--${flag} ${value}`, row.help)
    option.negate = false       // '--no-repeat-ngram-size' is a name here, not a negation
    if (row.parse !== undefined) option.argParser(row.parse)
    if (row.preset !== undefined) option.preset(row.preset)
    return [option]
  }
  const forms = row.forms ?? 'on'
  const on = new Option(`--${flag}`, row.help)
  if (forms === 'on') return [on]
  const off = new Option(`--no-${flag}`, forms === 'off' ? row.help : `the opposite of --${flag}`)
  return forms === 'off' ? [off] : [on, off]
}

/** Adds every decoding flag to a command. */
export function addDecodingFlags(command: Command): Command {
  for (const [heading, rows] of Object.entries(decodingFlags)) {
    for (const row of rows) for (const option of optionsOf(row)) command.addOption(option.helpGroup(heading))
  }
  return command
}

/** The decoding options that were given on the command line, and only those. */
export function decodingOptions(command: Command): GenerateOptions {
  const options: Record<string, unknown> = {}
  for (const { option } of Object.values(decodingFlags).flat()) {
    if (command.getOptionValueSource(option) === 'cli') options[option] = command.getOptionValue(option)
  }
  return options as GenerateOptions
}
