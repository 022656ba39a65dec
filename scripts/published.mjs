#!/usr/bin/env node
// Makes every published number and picture from the committed result files: `npm run published`; `-- --check` writes
// nothing and ends with 1 when a file differs. What is made is in benchmarks/published; this bundles and runs it.
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build } from 'tsup'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const args = process.argv.slice(2)
const check = args.includes('--check')
if (args.some(arg => arg !== '--check')) {
  console.error('usage: npm run published [-- --check]')
  process.exit(2)
}
process.chdir(root)
await build({ config: 'benchmarks/tsup.config.ts', silent: true })
const { publish } = await import(pathToFileURL(path.join(root, 'build-bench/published.js')))
const names = publish(root, check)
for (const name of names) console.log(check ? `${name} differs from the result files: npm run published` : `wrote ${name}`)
if (names.length === 0) console.log('every published number is that of the result files')
if (check && names.length > 0) process.exitCode = 1
