#!/usr/bin/env node
// The consumer matrix (`npm run test:consumers`): packs the package and tries it as strangers would, each way in a fresh
// folder with install scripts off, and prints a table in which every cell passed, failed, or says why it did not run.
//   npm run test:consumers -- --fast         what CI runs
//   npm run test:consumers -- yarn Node      cells whose group or name contains one of the words
//   npm run test:consumers -- --markdown     the table for the documentation
// Trap: tools come from npm at fixed versions into build-cmake/consumers/tools, several hundred MB for the whole.
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { cells } from '../test/consumers/cells.mjs'
import { install, lab, NotRun, packTarball, project, sizeOf } from '../test/consumers/lab.mjs'

const args = process.argv.slice(2)
const flags = new Set(args.filter(arg => arg.startsWith('--')))
const words = args.filter(arg => !arg.startsWith('--')).map(word => word.toLowerCase())
for (const flag of flags) {
  if (!['--fast', '--markdown'].includes(flag)) {
    console.error(`unknown option ${flag}; known are --fast and --markdown`)
    process.exit(2)
  }
}
const megabytes = bytes => `${(bytes / 1e6).toFixed(1)} MB`
const seconds = ms => `${(ms / 1000).toFixed(1)} s`

function measureInstall(tarball) {
  const folder = project('size')
  try {
    const ms = install(folder, tarball)
    return `; installed with its dependencies ${megabytes(sizeOf(path.join(folder, 'node_modules')))} in ${seconds(ms)}`
  } catch (e) {
    if (e instanceof NotRun) return `; not installed: ${e.message}`
    throw e
  }
}

function tryCell(cell, context) {
  process.stderr.write(`${cell.group}, ${cell.name}\n`)
  const started = performance.now()
  const outcome = (state, remark) => ({ group: cell.group, name: cell.name, state, remark, ms: performance.now() - started })
  try {
    return outcome('passed', cell.run(context) ?? '')
  } catch (e) {
    if (e instanceof NotRun) return outcome('not run', e.message)
    console.error(`\n${cell.group}, ${cell.name}:\n${e.stack ?? e}\n`)
    return outcome('FAILED', e.message.split('\n', 1)[0])
  }
}

function asText(results) {
  const wide = Math.max(...results.map(({ name }) => name.length))
  return results.map(({ group, name, state, remark, ms }, i) => {
    const head = group === results[i - 1]?.group ? '' : `\n${group}\n`
    return `${head}  ${name.padEnd(wide)}  ${state.padEnd(7)}  ${seconds(ms).padStart(7)}  ${remark}`
  }).join('\n')
}

function asMarkdown(results) {
  const rows = results.map(({ group, name, state, remark }) => `| ${group} | ${name} | ${state} | ${remark} |`)
  return ['| | | | |', '|---|---|---|---|', ...rows].join('\n')
}

mkdirSync(lab, { recursive: true })
const context = packTarball()
const wanted = cells.filter(({ fast }) => fast === true || !flags.has('--fast'))
  .filter(({ group, name }) => words.length === 0 || words.some(word => `${group} ${name}`.toLowerCase().includes(word)))
if (wanted.length === 0) {
  console.error('no cell has such a name')
  process.exit(2)
}
const size = measureInstall(context.tarball)
console.log(`tarball ${megabytes(context.bytes)}, unpacked ${megabytes(context.unpackedBytes)}${size}` +
  (context.standsIn ? '; its binary is the one of build/Release' : ''))
const results = wanted.map(cell => tryCell(cell, context))
console.log(flags.has('--markdown') ? asMarkdown(results) : asText(results))
const count = state => results.filter(result => result.state === state).length
writeFileSync(path.join(lab, 'report.json'), JSON.stringify({ ...context, results }, null, 2))
console.log(`\nconsumers: ${count('passed')} passed, ${count('FAILED')} failed, ${count('not run')} skipped`)
process.exitCode = count('FAILED') > 0 ? 1 : 0
