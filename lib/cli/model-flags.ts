// model-flags.ts: the `<model>` argument, --demo, and the flags of Model.load, shared by the commands.
import { Option } from 'commander'
import type { Command } from 'commander'
import { printableLines } from '../checkpoint/text.js'
import { demoModel, Model } from '../index.js'
import type { LoadOptions } from '../index.js'
import { integer } from './decoding-flags.js'
import { UsageError } from './failure.js'
import { Interrupt } from './interrupt.js'
import { loadProgress } from './progress.js'
import { note, paint } from './terminal.js'

function autoOrInteger(text: string): number | 'auto' {
  return text === 'auto' ? text : integer(text)
}

/** A plain number is bytes; the library reads sizes such as 4GiB itself. */
function memorySize(text: string): string | number {
  return /^\d+$/.test(text) ? Number(text) : text
}

const loadFlags = [
  new Option('--device <device>',
    'auto (default), cpu, cuda, cuda:N, or ref (slow double-precision reference implementation)'),
  new Option('--dtype <type>', 'arithmetic: bf16 or fp32 (default: auto, which is bf16)'),
  new Option('--threads <n>', 'CPU threads (default: auto)').argParser(autoOrInteger),
  new Option('--context-size <n>', 'maximum tokens of prompt and answer together (default: the model\'s)')
    .argParser(integer),
  new Option('--max-sequences <n>', 'maximum sequences per step; each beam counts (default: 64)').argParser(integer),
  new Option('--kv-memory <size>', 'memory for the KV cache, for example 4GiB (default: auto)').argParser(memorySize),
  new Option('--no-prefix-cache', 'do not reuse the KV cache of shared prompt prefixes'),
  new Option('--compat <version>', 'follow this version of Hugging Face transformers: hf-4.55 (default) or hf-4.31'),
  new Option('--legacy-tokenizer', 'use LlamaTokenizer\'s legacy rules (default: as tokenizer_config.json says)'),
  new Option('--no-legacy-tokenizer', 'do not use LlamaTokenizer\'s legacy rules'),
]

/** Adds --demo and, unless only the directory matters, every load flag. */
export function addModelFlags(command: Command, flags: 'load' | 'directory' = 'load'): Command {
  command.addOption(new Option('--demo', 'use the demo model of the package in place of <model>').helpGroup('Model:'))
  if (flags === 'load') for (const option of loadFlags) command.addOption(option.helpGroup('Model:'))
  return command
}

/** The load options that were given on the command line, and only those. */
export function loadOptions(command: Command): LoadOptions {
  const options: Record<string, unknown> = {}
  for (const name of new Set(loadFlags.map(option => option.attributeName()))) {
    if (command.getOptionValueSource(name) === 'cli') options[name] = command.getOptionValue(name)
  }
  return options as LoadOptions
}

/**
 * Splits positional arguments into the model's directory and the rest: with --demo there is no directory
 * among them.
 */
export function splitModel(command: Command, most: number): { dir: string; rest: string[] } {
  const args = [...command.args]
  const demo = command.getOptionValue('demo') === true
  const dir = demo ? demoModel : args.shift()
  if (dir === undefined) {
    throw new UsageError('the model is missing', 'give a directory in Hugging Face layout, or --demo')
  }
  if (args.length > most) {
    throw new UsageError(
      `${args.length - most} argument(s) too many, from '${args[most]}' on`, 'quote text that has spaces')
  }
  return { dir, rest: args }
}

/** Loads a model with a progress bar, runs `use`, and disposes of the model whatever happens. */
export async function withModel<T>(
  dir: string, options: LoadOptions, use: (model: Model, interrupt: Interrupt) => Promise<T>,
): Promise<T> {
  const interrupt = new Interrupt()
  try {
    const bar = loadProgress()
    const model = await Model.load(dir, { ...options, signal: interrupt.signal, onProgress: bar.onProgress })
      .finally(() => bar.stop())
    try {
      const head = paint('yellow', 'warning:', process.stderr)
      for (const warning of model.info.warnings) note(`${head} ${printableLines(warning)}`)
      return await use(model, interrupt)
    } finally {
      await model.dispose()
    }
  } finally {
    interrupt.release()
  }
}
