// inspect.ts: `polylm inspect`: what a model directory holds, from the headers of its files alone.
import { basename } from 'node:path'
import { Command } from 'commander'
import { openCheckpoint } from '../checkpoint/open.js'
import { oneLine, printableLines, quote } from '../checkpoint/text.js'
import { tensorSummary } from '../checkpoint/summary.js'
import type { Checkpoint } from '../checkpoint/types.js'
import { isPolyLMError, Model, Tokenizer } from '../index.js'
import type { LoadOptions, MemoryEstimate, SpecialTokens } from '../index.js'
import { stopTokens } from '../load.js'
import { Interrupt } from './interrupt.js'
import { addModelFlags, loadOptions, splitModel } from './model-flags.js'
import { bytes, count, paint, print, printJson, table } from './terminal.js'

const examples = `
Examples:
  polylm inspect ./polylm-13b
  polylm inspect --demo --tensors
  polylm inspect ./polylm-1.7b --dtype fp32 --context-size 1024 --json`

/** The `inspect` command. */
export function inspectCommand(): Command {
  const command = new Command('inspect')
    .description('show config, tensors, memory needs and tokenizer of a model; reads headers only')
    .usage('[options] <model | --demo>')
    .argument('[model]', 'a directory in Hugging Face layout')
    .option('--tensors', 'list every tensor')
    .option('--json', 'print one JSON object')
  return addModelFlags(command).addHelpText('after', examples).action(() => inspect(command))
}

interface TokenizerFacts {
  readonly vocabSize: number
  readonly specialTokens: SpecialTokens
}

interface Facts {
  readonly checkpoint: Checkpoint
  readonly memory: MemoryEstimate
  readonly tokenizer: TokenizerFacts | null
  /** The tokens that end an output of the loaded model. */
  readonly stopTokenIds: readonly number[]
}

async function inspect(command: Command): Promise<void> {
  const { dir } = splitModel(command, 0)
  const { tensors, json } = command.opts<{ tensors?: true; json?: true }>()
  const interrupt = new Interrupt()
  try {
    const facts = await factsOf(dir, loadOptions(command), interrupt.signal)
    if (json === true) await printJson(asJson(facts))
    else await print(asText(facts, tensors === true))
  } finally {
    interrupt.release()
  }
}

async function factsOf(dir: string, options: LoadOptions, signal: AbortSignal): Promise<Facts> {
  const checkpoint = await openCheckpoint(dir, { signal })
  const memory = await Model.estimate(dir, options)
  const tokenizer = await tokenizerFacts(dir, options)
  return { checkpoint, memory, tokenizer, stopTokenIds: stopTokens(checkpoint, tokenizer) }
}

/** A directory without a tokenizer is legal; a damaged tokenizer is an error. */
async function tokenizerFacts(dir: string, { compat, legacyTokenizer }: LoadOptions): Promise<TokenizerFacts | null> {
  try {
    const tokenizer = await Tokenizer.load(dir, { compat, legacy: legacyTokenizer })
    return { vocabSize: tokenizer.vocabSize, specialTokens: tokenizer.specialTokens }
  } catch (e) {
    if (isPolyLMError(e, 'TOKENIZER_MISSING')) return null
    throw e
  }
}

function asJson({ checkpoint, memory, tokenizer, stopTokenIds }: Facts): Record<string, unknown> {
  const { dir, format, config, generationConfig, files, tensors, warnings } = checkpoint
  const { parameters, bytesByDtype, uniqueBytes } = tensorSummary(checkpoint)
  return {
    dir, format, config, generationConfig, parameters, bytesByDtype, weightBytes: uniqueBytes,
    files: files.map(({ path, size }) => ({ name: basename(path), bytes: size })),
    tensors: tensors.map(({ name, dtype, shape, strides, file, bytes: size }) =>
      ({ name, dtype, shape, strides, file: basename(files[file]?.path ?? ''), bytes: size })),
    memory, tokenizer, stopTokenIds, warnings,
  }
}

function asText(facts: Facts, withTensors: boolean): string {
  const { checkpoint, memory, tokenizer, stopTokenIds } = facts
  const { config, format, files, warnings } = checkpoint
  const { tensors, parameters, bytesByDtype } = tensorSummary(checkpoint)
  const types = Object.entries(bytesByDtype).map(([dtype, size]) => `${dtype} ${bytes(size)}`).join(', ')
  const rows = [
    ['family', `${config.family}: ${config.layers} layers, ${config.heads} heads of ` +
      `${config.hiddenSize / config.heads}, hidden ${config.hiddenSize}, inner ${config.innerSize}`],
    ['vocabulary', `${count(config.vocabSize)} tokens, output layer ${config.tieWordEmbeddings ? 'tied' : 'separate'}`],
    ['context', `${count(config.contextSize)} tokens`],
    ['parameters', `${count(parameters)} in ${tensors} tensors (${types})`],
    ['stop ids', stopTokenIds.map(id => withName(id, tokenizer)).join(', ') || 'none'],
    ['files', files.map(({ path, size }) => `${basename(path)} ${bytes(size)}`).join(', ') + ` (${format})`],
    ['memory', `weights ${bytes(memory.weights)}, keys and values ${bytes(memory.kv)}, workspace ` +
      `${bytes(memory.workspace)}, total ${bytes(memory.total)}: ${memory.fits ? 'fits' : 'does not fit'}`],
    ['tokenizer', tokenizerLine(tokenizer)],
  ]
  return table(rows.map(([name = '', value = '']) => [name.padEnd(11), oneLine(value)])) +
    warnings.map(warning => `${paint('yellow', 'warning:')} ${printableLines(warning)}\n`).join('') +
    (withTensors ? '\n' + tensorTable(checkpoint) : '')
}

function tokenizerLine(tokenizer: TokenizerFacts | null): string {
  if (tokenizer === null) return 'none: prompts must be token ids'
  const { bos, eos, unk, pad, all } = tokenizer.specialTokens
  const roles = Object.entries({ bos, eos, unk, pad }).map(([role, token]) =>
    (token === null ? `no ${role}` : `${role} ${token.id} ${quote(token.content)}`))
  const others = all.filter(({ id }) => ![bos, eos, unk, pad].some(token => token?.id === id))
  const shown = others.slice(0, 8).map(({ id, content }) => `${id} ${quote(content)}`)
  const more = others.length > shown.length ? `, and ${others.length - shown.length} more` : ''
  return `${count(tokenizer.vocabSize)} pieces; ${roles.join(', ')}` +
    (others.length === 0 ? '' : `; also special: ${shown.join(', ')}${more}`)
}

/** An id with the special token that it is, where it is one. */
function withName(id: number, tokenizer: TokenizerFacts | null): string {
  const token = tokenizer?.specialTokens.all.find(special => special.id === id)
  return token === undefined ? String(id) : `${id} ${quote(token.content)}`
}

function tensorTable({ tensors, files }: Checkpoint): string {
  return table(tensors.map(({ name, dtype, shape, bytes: size, file }) =>
    [oneLine(name), dtype, `[${shape.join(', ')}]`, bytes(size), oneLine(basename(files[file]?.path ?? ''))]))
}
