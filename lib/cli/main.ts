// main.ts: the `polylm` program: its commands, and the exit code of what they do.
// Not here: any command; each has its own file. Nothing is loaded from the native addon before a command needs it.
import { Command } from 'commander'
import { printableLines } from '../checkpoint/text.js'
import { benchCommand } from './bench.js'
import { chatCommand } from './chat.js'
import { doctorCommand } from './doctor.js'
import { describeFailure, exitCodeOf } from './failure.js'
import { generateCommand } from './generate.js'
import { inspectCommand } from './inspect.js'
import { scoreCommand } from './score.js'
import { outputSettled, watchOutput } from './terminal.js'
import { version } from './version.js'

const epilogue = `
<model> is a directory in Hugging Face layout; --demo uses the small demo model of the package instead.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C), 143 terminated. POLYLM_DEBUG=1 adds a stack trace
to errors.

Examples:
  polylm generate --demo --template assistant "Rome is the capital of Italy.
  Translate this sentence from English to Thai." --num-beams 4
  polylm chat ./polylm-chat-13b
  polylm generate ./polylm-1.7b --input english.txt --output-text german.txt \\
    --prompt-template '{text}\\nTranslate this sentence from English to German.'
  polylm generate --help`

function program(): Command {
  const root = new Command('polylm')
    .description('Run PolyLM and other GPT-2-style language models')
    .version(version(), '-V, --version')
    .exitOverride()
    .configureOutput({ outputError: (text, write) => { write(printableLines(text)) } })
    .showHelpAfterError('(polylm <command> --help lists the options of a command)')
    .addHelpText('after', epilogue)
  const commands = [generateCommand, chatCommand, scoreCommand, inspectCommand, benchCommand, doctorCommand]
  for (const make of commands) root.addCommand(make().copyInheritedSettings(root))
  return root
}

async function run(work: () => Promise<unknown>): Promise<void> {
  try {
    await work()
  } catch (e) {
    process.stderr.write(describeFailure(e, process.env['POLYLM_DEBUG'] === '1'))
    process.exitCode = exitCodeOf(e)
  }
}

watchOutput()
await run(() => program().parseAsync())
if (process.exitCode === undefined || process.exitCode === 0) await run(outputSettled)
