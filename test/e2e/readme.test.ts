// readme.test.ts: what README.md shows is what is there: the examples run, the commands exist, the links lead somewhere.
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import ts from 'typescript'
import { demoModel } from '../../lib/index.js'
import { execute, polylm, root } from './cli-program.js'

const readme = readFileSync(path.join(root, 'README.md'), 'utf8')
const folder = path.join(root, 'dist/examples')
const example = (name: string): string => readFileSync(path.join(root, 'test/examples', name), 'utf8')

/** Strips the types of an example, lets it import the bundle, and runs it. */
function runExample(name: string, ...args: string[]): ReturnType<typeof execute> {
  const { outputText } = ts.transpileModule(example(name).replace('../../lib/index.js', '../index.js'), {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  })
  mkdirSync(folder, { recursive: true })
  const file = path.join(folder, name.replace(/\.ts$/, '.mjs'))
  writeFileSync(file, outputText)
  return execute(process.execPath, [file, ...args])
}

afterAll(() => { rmSync(folder, { recursive: true, force: true }) })

test('the examples are files of the repository', () => {
  const blocks = [...readme.matchAll(/<!-- test\/examples\/(\S+) -->\n```ts\n([\s\S]*?)```/g)]
  expect(blocks.map(match => match[1])).toEqual(['quickstart.ts', 'published.ts'])
  for (const [, name = '', code] of blocks) expect(code).toBe(example(name).replace("'../../lib/index.js'", "'polylm'"))
})

test('the first example runs and answers', async () => {
  const { status, stdout, stderr } = await runExample('quickstart.ts')
  expect([status, stderr]).toEqual([0, ''])
  expect(stdout).toContain('北京是中国的首都。')
  expect(stdout).toContain('Paris')
})

test('the recipe for published checkpoints runs', async () => {
  const { status, stdout, stderr } = await runExample('published.ts', demoModel)
  expect([status, stderr]).toEqual([0, ''])
  expect(stdout).toContain('Translate this sentence from English to Chinese.')
  expect(stdout).toContain('北京是中国的首都。')
})

test('the commands exist', async () => {
  const { scripts } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> }
  const npm = [...readme.matchAll(/^npm ci && npm (?:run )?(\w+)/gm)].map(match => match[1] ?? '')
  expect(npm).toEqual(['demo', 'test'])
  for (const name of npm) expect(scripts[name]).toMatch(/^node scripts\/\w+\.mjs$/)
  expect(readFileSync(path.join(root, '.ci/run'), 'utf8')).toMatch(/^npm ci && npm test$/m)
  const { stdout } = await polylm(['--help'])
  const used = new Set([...readme.matchAll(/^npx polylm (\w+)/gm)].map(match => match[1] ?? ''))
  expect(used.size).toBeGreaterThan(4)
  for (const command of used) expect(stdout).toMatch(new RegExp(`^  ${command} `, 'm'))
})

test('links to files lead somewhere', () => {
  for (const page of ['README.md', 'CONTRIBUTING.md', 'benchmarks/README.md']) {
    const text = readFileSync(path.join(root, page), 'utf8')
    const targets = [...text.matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(match => match[1] ?? '')
    for (const target of targets) {
      expect([page, target, existsSync(path.join(root, path.dirname(page), target))]).toEqual([page, target, true])
    }
  }
})
