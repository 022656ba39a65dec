// main.ts: the `polylm` program: its commands, and the exit code of what they do.
// Not here: any command; each has its own file. Nothing is loaded from the native addon before a command needs it.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import { printableLines } from '../checkpoint/text.js'
import { benchCommand } from './bench.js'
import { chatCommand } from './chat.js'
import { doctorCommand } from './doctor.js'
import { describeFailure, exitCodeOf } from './failure.js'
import { generateCommand } from './generate.js'
import { inspectCommand } from './inspect.js'
import { scoreCommand } from './score.js'
import { exitWhenPipeCloses } from './terminal.js'

const epilogue = `
<model> is a directory in Hugging Face layout, as published; --demo in its place is the small model inside the package.
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. POLYLM_DEBUG=1 shows where an error came from.

Examples:
  polylm generate --demo --template assistant "Rome is the capital of Italy.
  Translate this sentence from English to Thai." --num-beams 4
  polylm chat ./polylm-chat-13b
  polylm generate --help`

function version(): string {
  const file = fileURLToPath(new URL('../package.json', import.meta.url))
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}

function program(): Command {
  const root = new Command('polylm')
    .description('PolyLM and its kind in Node.js: generate, chat, score, inspect and measure')
    .version(version(), '-V, --version')
    .exitOverride()
    .configureOutput({ outputError: (text, write) => { write(printableLines(text)) } })
    .showHelpAfterError('(polylm <command> --help lists what there is)')
    .addHelpText('after', epilogue)
  const commands = [generateCommand, chatCommand, scoreCommand, inspectCommand, benchCommand, doctorCommand]
  for (const make of commands) root.addCommand(make().copyInheritedSettings(root))
  return root
}

exitWhenPipeCloses()
try {
  await program().parseAsync()
} catch (e) {
  process.stderr.write(describeFailure(e, process.env['POLYLM_DEBUG'] === '1'))
  process.exitCode = exitCodeOf(e)
}
