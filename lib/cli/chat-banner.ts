// chat-banner.ts: what `polylm chat` says first: which model this is, how large, where it runs, and what the demo can do.
import path from 'node:path'
import { demoModel } from '../index.js'
import type { Model } from '../index.js'
import { wrap } from './chat-talk.js'
import { count, paint, printable } from './terminal.js'

/** The name of a model: that of its directory, or of the repository that a Hugging Face cache keeps. */
export function modelName(dir: string): string {
  if (dir === demoModel) return 'polylm demo'
  const absolute = path.resolve(dir)
  const cached = /(?:^|[\\/])models--([^\\/]+?)--([^\\/]+)[\\/]snapshots[\\/][^\\/]+$/.exec(absolute)
  return cached === null ? path.basename(absolute) || absolute : `${cached[1]}/${cached[2]}`
}

/** 3486208 as '3.49 million', 1.7e9 as '1.70 billion'. */
export function inWords(value: number): string {
  if (value < 1e6) return count(value)
  return value < 1e9 ? `${(value / 1e6).toPrecision(3)} million` : `${(value / 1e9).toPrecision(3)} billion`
}

/** Prompts that the demo answers well; they can be copied as they stand. */
export const demoPrompts = [
  'What is the capital of Japan?',
  'Rome is the capital of Italy.\nTranslate this sentence from English to German.',
  'Where is Beijing?\nTranslate this sentence from English to Thai.',
] as const

/** The banner, within the width of a terminal. */
export function banner(dir: string, { parameters, contextSize, dtype, device }: Model['info'], columns = 80): string {
  const kind = [device.kind, device.isa].filter(part => part !== undefined).join(', ')
  const about = `${inWords(parameters)} parameters, ${count(contextSize)} tokens of context, ${dtype} on ${device.name} (${kind})`
  const name = printable(modelName(dir), process.stderr)
  const lines = [`${paint('bold', name, process.stderr)}`, wrap(about, columns)]
  if (dir === demoModel) lines.push(demoText(columns))
  lines.push(wrap('/help lists the commands; Ctrl-D leaves.', columns))
  return lines.join('\n')
}

function demoText(columns: number): string {
  const can = 'A toy: it answers "What is the capital of ...?" and translates six kinds of sentences about capitals ' +
    'between 18 languages; anything else gives fluent nonsense. Try one of these, pasted or typed with a \\ at the end ' +
    'of a first line:'
  return [wrap(can, columns), ...demoPrompts.map(prompt => `\n${paint('cyan', prompt, process.stderr)}`), ''].join('\n')
}
