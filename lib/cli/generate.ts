// generate.ts: `polylm generate`: one completion, streamed to standard output. Many of them: generate-many.ts.
import { Command } from 'commander'
import type { GenerateOptions, GenerateResult, GenerateStream } from '../index.js'
import { samples } from '../sampling.js'
import { addDecodingFlags, decodingOptions } from './decoding-flags.js'
import { UsageError } from './failure.js'
import { addBatchFlags, refuseBatchFlags } from './batch-plan.js'
import type { BatchFlags } from './batch-plan.js'
import { generateMany } from './generate-many.js'
import { logprobTable } from './logprobs.js'
import { addModelFlags, loadOptions, splitModel, withModel } from './model-flags.js'
import { addPromptFlags, promptFrom } from './prompt.js'
import { note, paint, print, printable, printJson } from './terminal.js'

const examples = `
Examples:
  polylm generate ./polylm-1.7b "Hello" --max-tokens 40 --temperature 0.8 --top-p 0.9
  polylm generate --demo --template assistant "Beijing is the capital of China.
  Translate this sentence from English to Chinese." --num-beams 4 --early-stopping
  echo "Good morning" | polylm generate ./polylm-1.7b --json

Translate a file, line by line; line k of german.txt is the translation of line k:
  polylm generate ./polylm-1.7b --input english.txt --output-text german.txt --num-beams 4 \\
    --prompt-template '{text}\\nTranslate this sentence from English to German.'
  Blank lines stay blank, an answer of several lines becomes one line, a failed line is empty. german.txt.jsonl
  keeps each answer as it is. After an interruption run the same command with --resume.

Prompts as JSON lines:
  polylm generate ./polylm-1.7b --input prompts.jsonl --output answers.jsonl --resume
    a line of prompts.jsonl: "text", or {"id":7,"prompt":"text","options":{"maxTokens":50}},
    or {"tokens":[1,2]}, or {"messages":[{"role":"user","content":"text"}],"template":"assistant"}`

/** The `generate` command. */
export function generateCommand(): Command {
  const command = new Command('generate')
    .description('complete a prompt, or a file of prompts')
    .usage('[options] <model | --demo> [prompt | -]')
    .argument('[model]', 'a directory in Hugging Face layout')
    .argument('[prompt]', 'the text to complete; default or -: standard input')
  addModelFlags(command)
  addPromptFlags(command, true)
  addBatchFlags(command)
  command
    .option('--json', 'print the result as one line of JSON instead of text')
    .option('--stats', 'print token counts and speed on standard error')
  return addDecodingFlags(command).addHelpText('after', examples).action(() => generate(command))
}

async function generate(command: Command): Promise<void> {
  const { dir, rest } = splitModel(command, 1)
  const { json, stats, ...batch } = command.opts<BatchFlags & { json?: true; stats?: true }>()
  const decoding = decodingOptions(command)
  if (batch.input !== undefined) {
    refuseOnePromptFlags(command, rest)
    return generateMany(command, dir, { ...batch, input: batch.input }, decoding)
  }
  refuseBatchFlags(command)
  const prompt = await promptFrom(command, rest[0])
  await withModel(dir, loadOptions(command), async (model, interrupt) => {
    const options: GenerateOptions = { ...decoding, signal: interrupt.signal, onAbort: 'return' }
    const result = json === true || (decoding.n ?? 1) > 1
      ? await model.generate(prompt, options)
      : await printStream(await model.stream(prompt, options))
    if (json === true) await printJson(result.toJSON())
    else if (result.outputs.length > 1) await printOutputs(result)
    else if (decoding.logprobs !== undefined) await print(`\n${logprobTable(result.outputs[0])}`)
    if (stats === true) note(statsLine(result, samples({ ...decoding })))
    if (interrupt.pressed) throw interrupt.failure
  })
}

/** What belongs to one prompt has no meaning beside --input. */
function refuseOnePromptFlags(command: Command, rest: readonly string[]): void {
  const { messages, json, stats, outputText } = command.opts<{
    messages?: string; json?: true; stats?: true; outputText?: string
  }>()
  if (rest.length > 0) throw new UsageError('a prompt and --input were given', 'give one of them')
  if (messages !== undefined) throw new UsageError('--messages and --input were given', 'give one of them')
  if (stats === true) throw new UsageError('--stats and --input were given', 'a batch prints its speed without it')
  if (json === true && outputText !== undefined) {
    throw new UsageError('--json and --output-text were given', 'the JSON lines are those of --output')
  }
}

/** Prints a stream's text as it becomes certain, ends it with a line end, and gives its result. */
async function printStream(stream: GenerateStream): Promise<GenerateResult> {
  for await (const event of stream) if (event.type === 'text') await print(printable(event.text))
  await print('\n')
  return stream.result
}

async function printOutputs(result: GenerateResult): Promise<void> {
  for (const [i, output] of result.outputs.entries()) {
    const score = output.score === undefined ? '' : ` score ${output.score.toFixed(4)}`
    await print(`${paint('dim', `--- ${i + 1} of ${result.outputs.length}${score}`)}\n${printable(output.text)}\n`)
    await print(logprobTable(output))
  }
}

function statsLine({ usage, timings, seed, outputs }: GenerateResult, sampled: boolean): string {
  return paint('dim', `${usage.promptTokens} prompt tokens, ${usage.completionTokens} new tokens, ` +
    `first after ${timings.timeToFirstTokenMs.toFixed(0)} ms, ${timings.tokensPerSecond.toFixed(1)} tokens/s, ` +
    `finish reason: ${outputs[0]?.finishReason ?? 'none'}${sampled ? `, seed ${seed}` : ''}`, process.stderr)
}
