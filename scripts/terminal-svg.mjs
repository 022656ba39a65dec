#!/usr/bin/env node
// Makes docs/terminal.svg, the picture in the README, from what the command line really prints: each command below is run
// and its output drawn as text. `npm run build && node scripts/terminal-svg.mjs`. Nothing in the picture is written by hand
// but the commands. Trap: widths are counted in columns, and Chinese characters take two.
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const commands = [
  ['generate', '--demo', 'Beijing is the capital of China.\nTranslate this sentence from English to Chinese.', '--num-beams', '4', '--early-stopping'],
  ['generate', '--demo', '--template', 'assistant', 'What is the capital of France?'],
  ['generate', '--demo', 'Warsaw is the capital of Poland.\nTranslate this sentence from English to German.'],
]
const secret = new RegExp(`${root.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')}/?`, 'g')

const quoted = arg => (arg.includes('\n') ? `$'${arg.replaceAll('\n', '\\n')}'` : /[^\w./-]/.test(arg) ? `'${arg}'` : arg)
const escaped = text => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
const columns = text => [...text].reduce((sum, c) => sum + (c.codePointAt(0) > 0x2e7f ? 2 : 1), 0)

/** A command line and what it printed, as lines; a long command goes on in the next line. */
function session(args) {
  const answer = execFileSync(process.execPath, [path.join(root, 'dist/cli.js'), ...args], { cwd: root, encoding: 'utf8', env: { ...process.env, NO_COLOR: '1' } })
  const words = ['npx', 'polylm', ...args.map(quoted)]
  const lines = ['$']
  for (const word of words) {
    if (columns(`${lines.at(-1)} ${word}`) > 96) lines.push('   ')
    lines.push(`${lines.pop()} ${word}`)
  }
  const typed = lines.map((text, i) => ({ text: i < lines.length - 1 ? `${text} \\` : text, typed: true }))
  const printed = answer.replaceAll(secret, '').trim().split('\n').map(text => ({ text: text.trimEnd(), typed: false }))
  return [...typed, ...printed, { text: '', typed: false }]
}

const lines = commands.flatMap(session).slice(0, -1)
const [width, height] = [Math.max(...lines.map(({ text }) => columns(text))) * 8.43 + 40, lines.length * 20 + 36]
const rows = lines.map(({ text, typed }, i) =>
  `<text x="20" y="${38 + i * 20}" fill="${typed ? '#7ee787' : '#e6edf3'}" xml:space="preserve">${escaped(text)}</text>`)
const font = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${Math.ceil(width)}" height="${height}" font-family="${font}" font-size="14">
<title>What polylm prints on the command line</title>
<rect width="100%" height="100%" rx="8" fill="#0d1117"/>
${rows.join('\n')}
</svg>
`
writeFileSync(path.join(root, 'docs/terminal.svg'), svg)
console.log(`wrote docs/terminal.svg, ${lines.length} lines`)
