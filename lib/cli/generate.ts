// generate.ts: `polylm generate`: one completion, streamed to standard output. Many of them: generate-many.ts.
import { Command, Option } from 'commander'
import type { GenerateOptions, GenerateResult, GenerateStream } from '../index.js'
import { addDecodingFlags, decodingOptions } from './decoding-flags.js'
import { exitCodes, QuietFailure, UsageError } from './failure.js'
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
  echo "Good morning" | polylm generate ./polylm-1.7b - --json
  polylm generate ./polylm-1.7b --input prompts.jsonl --output answers.jsonl --resume
    a line of prompts.jsonl: "text", or {"id":7,"prompt":"text","options":{"maxTokens":50}},
    or {"tokens":[1,2]}, or {"messages":[{"role":"user","content":"text"}],"template":"assistant"}`

/** The `generate` command. */
export function generateCommand(): Command {
  const command = new Command('generate')
    .description('complete a prompt, or many of them')
    .usage('[options] <model | --demo> [prompt | -]')
    .argument('[model]', 'a directory in Hugging Face layout')
    .argument('[prompt]', 'the text to complete; - reads standard input')
  addModelFlags(command)
  addPromptFlags(command, true)
  const many = 'Many prompts:'
  command
    .addOption(new Option('--input <file>', 'JSON lines with a prompt each; - is standard input').helpGroup(many))
    .addOption(new Option('--output <file>', 'JSON lines with an answer each, in order of completion').helpGroup(many))
    .addOption(new Option('--resume', 'go on with an output that exists: its indices are skipped').helpGroup(many))
    .option('--json', 'print the result as one line of JSON instead of text')
    .option('--stats', 'tokens and speed on standard error')
  return addDecodingFlags(command).addHelpText('after', examples).action(() => generate(command))
}

async function generate(command: Command): Promise<void> {
  const { dir, rest } = splitModel(command, 1)
  const { input, output, resume, json, stats } =
    command.opts<{ input?: string; output?: string; resume?: true; json?: true; stats?: true }>()
  const decoding = decodingOptions(command)
  if (input !== undefined) {
    if (rest.length > 0) throw new UsageError('a prompt and --input were given', 'give one of them')
    return generateMany(command, dir, { input, output, resume: resume === true, decoding })
  }
  if (output !== undefined || resume === true) {
    throw new UsageError('--output and --resume belong to --input', 'use > to write one answer to a file')
  }
  const prompt = await promptFrom(command, rest[0])
  await withModel(dir, loadOptions(command), async (model, interrupt) => {
    const options: GenerateOptions = { ...decoding, signal: interrupt.signal, onAbort: 'return' }
    const result = json === true || (decoding.n ?? 1) > 1
      ? await model.generate(prompt, options)
      : await printStream(await model.stream(prompt, options))
    if (json === true) await printJson(result.toJSON())
    else if (result.outputs.length > 1) await printOutputs(result)
    else if (decoding.logprobs !== undefined) await print(`\n${logprobTable(result.outputs[0])}`)
    if (stats === true) note(statsLine(result, (decoding.temperature ?? 0) > 0))
    if (interrupt.pressed) throw new QuietFailure(exitCodes.interrupted)
  })
}

/** Prints a stream's text as it becomes certain, ends it with a line end, and gives its result. */
export async function printStream(stream: GenerateStream): Promise<GenerateResult> {
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
    `finished by ${outputs[0]?.finishReason ?? 'nothing'}${sampled ? `, seed ${seed}` : ''}`, process.stderr)
}
