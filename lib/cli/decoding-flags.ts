// decoding-flags.ts: every decoding option of the library as a kebab-case flag. Types and ranges of the scalars come
// from the library's own table; here are headings and help. Not here: checks that need a model (the library does them).
import { Option, InvalidArgumentError } from 'commander'
import type { Command } from 'commander'
import type { GenerateOptions } from '../index.js'
import { optionTable } from '../option-table.js'
import type { OptionRow } from '../option-table.js'

type Parse = (text: string, previous: unknown) => unknown
interface Row {
  readonly option: keyof GenerateOptions
  readonly help: string
  /** Name of the flag's value, in brackets when it may be left out; numbers of the option table have one anyway. */
  readonly value?: string
  readonly parse?: Parse
  /** What the flag means when its value is left out. */
  readonly preset?: string
  /** The values that a flag takes, when they are few. */
  readonly choices?: readonly string[]
  /** A switch that is on unless --no-... is given. */
  readonly off?: true
}

const wholeNumber = /^[+-]?\d+$/
const decimal = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/

/** A whole number that a double holds exactly. */
export function integer(text: string): number {
  const value = Number(text)
  const right = wholeNumber.test(text) && Number.isSafeInteger(value)
  if (!right) throw new InvalidArgumentError('It must be a whole number.')
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

/** The flags by heading. A new option of the library is one row here. */
export const decodingFlags: Readonly<Record<string, readonly Row[]>> = {
  'Length and stopping:': [
    { option: 'maxTokens', help: 'new tokens at most (default: 256, less when the context has less room)' },
    { option: 'minTokens', help: 'do not stop before this many new tokens' },
    { option: 'stop', value: 'text', parse: append, help: 'end at this text; may be given several times' },
    { option: 'includeStop', help: 'keep the stop text in the output' },
    {
      option: 'stopMatching', value: 'how', choices: ['output', 'hf'],
      help: 'where --stop is looked for: in the output, or as Hugging Face does, across the prompt\'s end too',
    },
    {
      option: 'stopTokenIds', value: 'ids', parse: integerList,
      help: 'end at one of these tokens, as in 2,255999 (default: the model\'s; none: never)',
    },
    { option: 'onOverflow', value: 'mode', choices: ['error', 'truncateLeft'], help: 'if the prompt is too long' },
    { option: 'queueTimeoutMs', value: 'n', parse: integer, help: 'fail after n ms in the queue' },
  ],
  'Sampling:': [
    { option: 'temperature', help: '0 is greedy, above 0 samples (default: 0, or 1 with any of the next six flags)' },
    { option: 'topK', help: 'keep the k best tokens; 0: off' },
    { option: 'topP', help: 'keep the smallest set with this probability; 1: off' },
    { option: 'minP', help: 'drop tokens below x times the best probability; 0: off' },
    { option: 'typicalP', help: 'locally typical sampling; 1: off' },
    { option: 'epsilonCutoff', help: 'drop tokens below this probability; 0: off' },
    { option: 'etaCutoff', help: 'eta sampling; 0: off' },
    { option: 'seed', help: 'make sampling repeatable (default: random, see --stats and --json)' },
    { option: 'n', help: 'number of answers' },
    {
      option: 'speculate', value: 'how', choices: ['lookup'],
      help: 'draft tokens from the text so far: same output, faster where the answer copies from it',
    },
  ],
  'Beam search:': [
    { option: 'numBeams', help: 'beam search when above 1' },
    {
      option: 'earlyStopping', value: '[mode]', parse: earlyStopping, preset: 'true',
      help: 'true, false (default) or never; the bare flag means true',
    },
    { option: 'lengthPenalty', help: 'exponent of the length in a beam\'s score (default: 1)' },
    { option: 'sampleBeams', help: 'sample the candidates of the beams (--temperature 1 unless given)' },
    {
      option: 'beamScoring', value: 'rules', choices: ['hf-4.55', 'hf-4.31'],
      help: 'beam search of this version of transformers (default: --compat)',
    },
  ],
  'Penalties and constraints:': [
    { option: 'repetitionPenalty', help: 'Hugging Face\'s penalty of repeated tokens, prompt included; 1: off' },
    { option: 'noRepeatNgramSize', help: 'never repeat an n-gram of this size (prompt included); 0: off' },
    { option: 'presencePenalty', help: 'as in OpenAI\'s API, -2 to 2; 0: off' },
    { option: 'frequencyPenalty', help: 'as in OpenAI\'s API, -2 to 2; 0: off' },
    {
      option: 'bias', value: 'json', parse: text => biasFromJson(json(text)),
      help: 'add to the scores of tokens or token sequences, as in [[17,-1.5],[[4,5],"-inf"]]',
    },
    { option: 'allow', value: 'json', parse: json, help: 'allow only {"tokens":[...]} or {"choices":["yes","no"]}' },
    { option: 'forcedFirstToken', help: 'the first new token' },
    { option: 'forcedLastToken', help: 'the token at --max-tokens' },
    { option: 'padTo', value: 'length,token', parse: padTo, help: 'behave as if left-padded to this length' },
  ],
  'Output of scores and text:': [
    {
      option: 'logprobs', value: '[n]', preset: '0',
      help: 'log-probabilities, with n alternatives: a table after the text, with --json and --input in the result',
    },
    {
      option: 'logprobsOf', value: 'which', choices: ['model', 'processed'],
      help: 'log-probabilities before or after penalties, bias and sampling limits',
    },
    { option: 'renormalize', help: 'apply log-softmax after all of these' },
    { option: 'addSpecialTokens', off: true, help: 'never add bos and eos to the prompt' },
    { option: 'parseSpecial', off: true, help: 'treat special tokens written in the prompt as plain text' },
    { option: 'skipSpecialTokens', off: true, help: 'show special tokens in the text' },
    {
      option: 'controlText', value: 'mode', choices: ['reject', 'escape'],
      help: 'what to do with a template\'s markers inside messages',
    },
  ],
}

/** `topK` as it is written in a flag: `top-k`. */
export const kebab = (name: string): string => name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)

/** A number within the range that the library's table gives the option. */
function numberOf({ type, min, max }: OptionRow): Parse {
  const lowest = min === -1 ? 0 : min               // -1 is how the table says "off"; a flag is left out instead
  return text => {
    const value = type === 'int' ? integer(text) : real(text)
    if (value < lowest || value > max) throw new InvalidArgumentError(`It must be from ${lowest} to ${max}.`)
    return value
  }
}

/** The commander option of one row. */
function optionOf(row: Row): Option {
  const flag = kebab(row.option)
  const scalar = optionTable.find(({ name }) => name === row.option)
  const isNumber = scalar !== undefined && scalar.type !== 'bool'
  const value = row.value ?? (isNumber ? (scalar.type === 'int' ? 'n' : 'x') : undefined)
  if (value === undefined) return new Option(row.off === true ? `--no-${flag}` : `--${flag}`, row.help)
  const option = new Option(`--${flag} ${value.startsWith('[') ? value : `<${value}>`}`, row.help)
  option.negate = false                             // '--no-repeat-ngram-size' is a name here, not a negation
  if (row.parse !== undefined) option.argParser(row.parse)
  else if (isNumber) option.argParser(numberOf(scalar))
  if (row.choices !== undefined) option.choices(row.choices)
  return row.preset === undefined ? option : option.preset(row.preset)
}

/** Adds every decoding flag to a command. */
export function addDecodingFlags(command: Command): Command {
  for (const [heading, rows] of Object.entries(decodingFlags)) {
    for (const row of rows) command.addOption(optionOf(row).helpGroup(heading))
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
