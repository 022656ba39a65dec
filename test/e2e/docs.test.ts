// docs.test.ts: what the guides in docs/ show is what is there: every TypeScript block is a file of test/examples that
// compiles and runs, commands and options exist, and the site builds without a warning.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import ts from 'typescript'
import { errorCodes } from '../../lib/index.js'
import { execute, polylm, root } from './cli-program.js'

const pages = readdirSync(path.join(root, 'docs')).filter(name => name.endsWith('.md'))
const read = (...parts: string[]): string => readFileSync(path.join(root, ...parts), 'utf8')
const folder = path.join(root, 'build-cmake/docs-examples')  // not in dist: package.test.ts packs that meanwhile

/** TypeScript blocks of a page, with the file that the comment before each names. */
function blocks(page: string): Array<{ name: string | undefined; code: string }> {
  return [...read('docs', page).matchAll(/(?:<!-- test\/examples\/(\S+) -->\n)?```(?:ts|js|typescript|javascript)\n([\s\S]*?)```/g)]
    .map(([, name, code = '']) => ({ name, code }))
}

const shown = pages.flatMap(page => blocks(page).map(block => ({ page, ...block })))
const names = [...new Set(shown.flatMap(({ name }) => (name === undefined ? [] : [name])))]

afterAll(() => { rmSync(folder, { recursive: true, force: true }) })

test('there are guides, and each is part of the site', () => {
  expect(names.length).toBeGreaterThan(6)
  const { projectDocuments } = JSON.parse(read('typedoc.json')) as { projectDocuments: string[] }
  expect([...projectDocuments].sort()).toEqual(pages.map(page => `docs/${page}`).sort())
})

test.each(shown)('$page shows $name as it is', ({ name, code }) => {
  expect(name).toBeDefined()
  expect(code).toBe(read('test/examples', name ?? '').replace("'../../lib/index.js'", "'polylm'"))
})

// published.ts needs a checkpoint; readme.test.ts runs it with the demo model. Types are checked with the rest of test/.
test.each(names.filter(name => name !== 'published.ts'))('%s runs', async name => {
  const { outputText } = ts.transpileModule(read('test/examples', name).replace('../../lib/index.js', '../../dist/index.js'), {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
  })
  mkdirSync(folder, { recursive: true })
  const file = path.join(folder, name.replace(/\.ts$/, '.mjs'))
  writeFileSync(file, outputText)
  const { status, stdout, stderr } = await execute(process.execPath, [file])
  expect([status, stderr]).toEqual([0, ''])
  expect(stdout.trim()).not.toBe('')
})

test('commands, options, error codes and links exist', async () => {
  const text = pages.map(page => read('docs', page)).join('\n')
  const { stdout } = await polylm(['--help'])
  const commands = new Set([...text.matchAll(/npx polylm (\w+)/g)].map(match => match[1] ?? ''))
  expect(commands.size).toBeGreaterThan(4)
  for (const command of commands) expect(stdout).toMatch(new RegExp(`^  ${command} `, 'm'))

  const table = read('docs/decoding.md').split('\n').filter(line => line.startsWith('|')).slice(2)
  const named = table.flatMap(line => [...(line.split('|')[2] ?? '').matchAll(/`(\w+)`/g)].map(match => match[1] ?? ''))
  expect(named.length).toBeGreaterThan(20)
  const declared = read('lib/options.ts')
  for (const option of named) expect([option, new RegExp(`readonly ${option}\\?`).test(declared)]).toEqual([option, true])

  const codes = [...read('docs/troubleshooting.md').matchAll(/`([A-Z]+_[A-Z_]+)`/g)].map(match => match[1] ?? '')
  const known = [...errorCodes, 'POLYLM_NOT_DISPOSED', 'POLYLM_PREBUILD']
  for (const code of codes) expect(known).toContain(code)

  for (const page of pages) {
    for (const [, target = ''] of read('docs', page).matchAll(/\]\((?!https?:)([^)#]+)/g)) expect(pages).toContain(target)
  }
})

test('the site builds without a warning', async () => {
  const out = mkdtempSync(path.join(tmpdir(), 'polylm-site-'))
  try {
    const { status, stdout, stderr } = await execute(process.execPath, ['node_modules/typedoc/bin/typedoc', '--out', out])
    expect([status, `${stdout}${stderr}`]).toEqual([0, expect.not.stringContaining('[warning]') as string])
    expect(readdirSync(out)).toContain('index.html')
  } finally {
    rmSync(out, { recursive: true, force: true })
  }
}, 300_000)
