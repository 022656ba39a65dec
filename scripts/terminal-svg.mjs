#!/usr/bin/env node
// Makes docs/terminal.svg, the picture in the README: each scene below is run in a real terminal (util-linux's `script`), and
// what a person sees there is drawn as it is, nothing trimmed. `npm run build && node scripts/terminal-svg.mjs`.
// Written by hand are only the commands, what is typed into the chat, and the remarks that begin with #.
// Trap: nothing here may depend on the wording of the output, so that a new wording needs only another run.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'tsup'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
process.chdir(root)
await build({ config: 'benchmarks/tsup.config.ts', silent: true })
const { columnsOf, drawTerminal, Screen } = await import(pathToFileURL(path.join(root, 'build-bench/terminal.js')))

const columns = 100
const quiet = 1500                                       // ms without output: the program waits for its reader
const cities = [['Rome', 'Italy'], ['Paris', 'France'], ['Warsaw', 'Poland'], ['Madrid', 'Spain'], ['Tokyo', 'Japan'], ['Berlin', 'Germany']]
const folder = mkdtempSync(path.join(tmpdir(), 'polylm-picture-'))
writeFileSync(path.join(folder, 'english.txt'),
  Array.from({ length: 96 }, (_, i) => { const [city, country] = cities[i % cities.length]; return `${city} is the capital of ${country}.\n` }).join(''))

/**
 * Runs a line of shell in a terminal and types `lines` into it, each when the program has become quiet; the last thing typed is
 * Ctrl-D. Resolves with the pieces of output as they came.
 */
function record(line, lines) {
  const shell = `stty cols ${columns} rows 50; npx() { shift; ${JSON.stringify(process.execPath)} ${JSON.stringify(path.join(root, 'dist/cli.js'))} "$@"; }; ${line}`
  const { NO_COLOR: _, ...env } = process.env
  const child = spawn('script', ['-qec', shell, '/dev/null'], {
    cwd: folder, env: { ...env, TERM: 'xterm-256color', SHELL: '/bin/bash', HOME: folder, XDG_STATE_HOME: folder, LANG: 'C.UTF-8' }, stdio: ['pipe', 'pipe', 'inherit'],
  })
  const pieces = []
  const waiting = [...lines]
  let timer
  const type = () => {
    const next = waiting.shift()
    if (next !== undefined) child.stdin.write(next === '' ? '\x04' : `${next}\r`)
  }
  child.stdout.setEncoding('utf8').on('data', piece => {
    pieces.push(piece)
    clearTimeout(timer)
    if (waiting.length > 0) timer = setTimeout(type, quiet)
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', code => {
      clearTimeout(timer)
      if (code === 0) resolve(pieces)
      else reject(new Error(`${line} ended with ${code}: ${pieces.join('')}`))
    })
  })
}

/** Pieces cut where no escape sequence is open. */
const sequences = pieces => pieces.join('').split(/(?<=\x1b\[0?K)|(?<=\n)/)

/** A text as rows; wide characters begin runs of their own. */
function rowOf(kind, text) {
  const screen = new Screen(1000)
  screen.write(text)
  return { kind, runs: screen.rows()[0] ?? [] }
}

/** A command as it is typed, on several lines where it is long. */
function typed(line) {
  const rows = ['$']
  for (const word of line.split(/(?<!\\n[^']*) (?=(?:[^']*'[^']*')*[^']*$)/)) {
    if ([...`${rows.at(-1)} ${word}`].reduce((sum, c) => sum + columnsOf(c), 0) > columns - 2) rows.push('   ')
    rows.push(`${rows.pop()} ${word}`)
  }
  return rows.map((text, i) => rowOf('typed', i < rows.length - 1 ? `${text} \\` : text))
}

/** What the screen holds at the end. */
function finalRows(pieces) {
  const screen = new Screen(columns)
  screen.write(pieces.join(''))
  return screen.rows().map(runs => ({ kind: 'printed', runs }))
}

/** The screen in the middle of a run: of all states of the line with the cursor that were drawn over, one at two thirds. */
function middleRows(pieces) {
  const states = []
  const screen = new Screen(columns)
  for (const piece of sequences(pieces)) {
    screen.write(piece)
    const line = screen.line()
    if (line !== '' && line !== states.at(-1)?.line) states.push({ line, rows: screen.rows() })
  }
  return (states[Math.floor(states.length * 2 / 3)]?.rows ?? []).map(runs => ({ kind: 'printed', runs }))
}

const remark = text => rowOf('remark', `# ${text}`)
const blank = { kind: 'printed', runs: [] }
const translate = (sentence, language) =>
  `npx polylm generate --demo $'${sentence}\\nTranslate this sentence from English to ${language}.' --num-beams 4`

async function simple(line) {
  return [...typed(line), ...finalRows(await record(line, []))]
}

async function batch() {
  const line = "npx polylm generate --demo --input english.txt --output-text german.txt --num-beams 4 " +
    "--prompt-template '{text}\\nTranslate this sentence from English to German.'"
  const pieces = await record(line, [])
  return [
    remark('A file, line by line: while it runs'), ...typed(line), ...middleRows(pieces), blank,
    remark('and when it is done'), ...typed(line), ...finalRows(pieces), ...await simple('head -3 german.txt')]
}

async function chat() {
  const line = 'npx polylm chat --demo'
  const pieces = await record(line, ['What is the capital of France?', 'Is Rome the capital of Italy?', ''])
  return [remark('A conversation, ended with Ctrl-D'), ...typed(line), ...finalRows(pieces)]
}

try {
  const rows = [
    remark('Beam search in several languages'),
    ...await simple(translate('Beijing is the capital of China.', 'Chinese')),
    ...await simple(translate('Where is Moscow?', 'Russian')),
    ...await simple(translate('Rome is a beautiful city.', 'Thai')), blank,
    ...await batch(), blank, ...await chat()]
  writeFileSync(path.join(root, 'docs/terminal.svg'), drawTerminal('What polylm prints on the command line', rows, columns))
  console.log(`wrote docs/terminal.svg, ${rows.length} lines`)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
