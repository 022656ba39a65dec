#!/usr/bin/env node
// The main job on a fresh clone (`npm run demo`): compiles what is not compiled yet, bundles the command line, and lets
// the demo model answer PolyLM's own example with beam search, through the same program that a user runs.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..')
const bundler = path.join(root, 'node_modules/tsup/dist/cli-default.js')
const prompt = 'Beijing is the capital of China.\nTranslate this sentence from English to Chinese.'
const decoding = ['--num-beams', '4', '--early-stopping', '--max-tokens', '64']

function step(args, stdout) {
  const { status, signal, error } = spawnSync(process.execPath, args, { cwd: root, stdio: ['ignore', stdout, 'inherit'] })
  if (error) throw error
  if (status !== 0) process.exit(status ?? (signal === 'SIGINT' ? 130 : 1))
}

if (!existsSync(bundler)) {
  console.error('the development dependencies are missing: run npm ci first')
  process.exit(1)
}
step([path.join(root, 'scripts/build-native.mjs')], 'inherit')
step([bundler, '--silent'], 'ignore')
console.log(`\n$ npx polylm generate --demo $'${prompt.replaceAll('\n', '\\n')}' ${decoding.join(' ')}\n`)
console.log(prompt)
step([path.join(root, 'dist/cli.js'), 'generate', '--demo', prompt, ...decoding, '--stats'], 'inherit')
