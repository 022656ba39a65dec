// batch-plan.ts: what `polylm generate --input` is asked to do: the format of the input, the files of the output, and
// which flags contradict each other. Pure but for the places of files. The work: generate-many.ts.
import { Option } from 'commander'
import type { Command } from 'commander'
import type { GenerateOptions } from '../index.js'
import { UsageError } from './failure.js'
import { fileName, placeOf, sizeOf } from './files.js'

/** The flags of a batch as commander gives them. */
export interface BatchFlags {
  readonly input?: string
  readonly output?: string
  readonly outputText?: string
  readonly outputOrder?: 'input' | 'completion'
  readonly format: 'auto' | 'text' | 'jsonl'
  readonly resume?: true
  readonly retryFailed?: true
}

/** A batch that makes sense. */
export interface BatchPlan {
  /** A file, or '-'. */
  readonly input: string
  readonly format: 'text' | 'jsonl'
  /** The format was not given: what looks like the other one is an error. */
  readonly guessed: boolean
  /** The file of JSON lines that gets every answer, if there is one. */
  readonly journal: string | undefined
  /** The journal is a file that --resume can read again, not a pipe or a device. */
  readonly kept: boolean
  /** What standard output gets. */
  readonly print: 'text' | 'jsonl' | undefined
  /** The file that gets the answers as lines of text. */
  readonly text: string | undefined
  readonly inOrder: boolean
  readonly resume: boolean
  readonly retryFailed: boolean
}

const heading = 'Many prompts:'

/** Adds the flags of a batch. */
export function addBatchFlags(command: Command): Command {
  const options = [
    new Option('--input <file>', 'a file with one prompt per line; - is standard input'),
    new Option('--format <format>', 'what the lines are; auto: JSON in *.jsonl and *.ndjson, else plain text; on ' +
      'standard input text with --prompt-template or --output-text, else JSON')
      .choices(['auto', 'text', 'jsonl']).default('auto'),
    new Option('--output <file>', 'write one line of JSON per answer; - is standard output (the default)'),
    new Option('--output-text <file>', 'write one line of text per input line: line k answers line k; the full ' +
      'answers are kept in <file>.jsonl, or in --output if given; - is standard output'),
    new Option('--output-order <order>', 'order of the JSON lines (default: completion, with --output-text input)')
      .choices(['completion', 'input']),
    new Option('--resume', 'continue an existing output, skipping lines that are answered already'),
    new Option('--retry-failed', 'with --resume: also retry the lines that failed'),
  ]
  for (const option of options) command.addOption(option.helpGroup(heading))
  return command
}

/** Throws for flags that mean nothing without --input. */
export function refuseBatchFlags(command: Command): void {
  const named: ReadonlyArray<readonly [string, string]> = [
    ['output', '--output'], ['outputText', '--output-text'], ['outputOrder', '--output-order'], ['format', '--format'],
    ['resume', '--resume'], ['retryFailed', '--retry-failed'],
  ]
  const found = named.find(([name]) => command.getOptionValueSource(name) === 'cli')
  if (found !== undefined) {
    throw new UsageError(`${found[1]} needs --input`,
      'add --input FILE for many prompts; use > FILE to write one answer to a file')
  }
}

/** The plan of a batch. */
export async function planBatch(
  flags: BatchFlags & { readonly input: string }, decoding: GenerateOptions, hasTemplate: boolean,
): Promise<BatchPlan> {
  const { input, output, outputText, resume = false, retryFailed = false } = flags
  const text = named(outputText)
  // Beside a pipe there is no place for a second file, and nothing to continue.
  const beside = text === undefined || await sizeOf(text) === undefined ? undefined : `${text}.jsonl`
  const journal = named(output) ?? beside
  refuseContradictions(flags, decoding, journal)
  const kept = journal !== undefined && await sizeOf(journal) !== undefined
  if (resume && !kept) throw new UsageError(`--resume needs a file, and ${fileName(journal ?? '-')} is none`)
  const files = [named(input), journal, text].filter(file => file !== undefined)
  const places = new Set(await Promise.all(files.map(placeOf)))
  if (places.size < files.length) {
    throw new UsageError('--input, --output and --output-text name the same file', 'give each its own')
  }
  return {
    input, journal, kept, text, resume, retryFailed,
    format: formatOf(flags, hasTemplate),
    guessed: flags.format === 'auto',
    print: outputText === '-' ? 'text' : (journal ?? text) === undefined ? 'jsonl' : undefined,
    inOrder: (flags.outputOrder ?? (outputText === undefined ? 'completion' : 'input')) === 'input',
  }
}

const named = (file: string | undefined): string | undefined => (file === '-' ? undefined : file)

function formatOf({ format, input, outputText }: BatchFlags, hasTemplate: boolean): 'text' | 'jsonl' {
  if (format !== 'auto') return format
  if (input === '-') return hasTemplate || outputText !== undefined ? 'text' : 'jsonl'
  return /\.(jsonl|ndjson)$/i.test(input ?? '') ? 'jsonl' : 'text'
}

function refuseContradictions(flags: BatchFlags, { n = 1 }: GenerateOptions, journal: string | undefined): void {
  const { output, outputText, outputOrder, resume, retryFailed } = flags
  if (output === '-' && outputText !== undefined) {
    throw new UsageError('--output - and --output-text were given', 'give --output a file, or one of them')
  }
  if (outputText !== undefined && outputOrder === 'completion') {
    throw new UsageError('--output-text is in the order of the input', 'leave --output-order away')
  }
  if (outputText !== undefined && output === undefined && n > 1) {
    throw new UsageError(`--output-text has one line per prompt, and --n ${n} gives more`, 'use --output')
  }
  if (retryFailed === true && resume !== true) throw new UsageError('--retry-failed needs --resume', 'add --resume')
  if (resume === true && journal === undefined) {
    throw new UsageError('--resume needs --output FILE or --output-text FILE', 'standard output cannot be continued')
  }
}
