// docs.test.ts: what the guides in docs/ show is what is there: every TypeScript block is a file of test/examples that
// compiles and runs, commands and options exist, and the site builds without a warning.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { inflateSync } from 'node:zlib'
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

  const [options = ''] = /^\| Hugging Face \|(.*\n)+?\n/m.exec(read('docs/decoding.md')) ?? []
  const table = options.trim().split('\n').slice(2)
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

/** What the site's search knows: lunr's rows and the words of its index. */
function searchOf(site: string): { rows: Array<{ name: string; url: string }>; words: Set<string> } {
  const [, packed = ''] = /"([^"]+)"/.exec(readFileSync(path.join(site, 'assets/search.js'), 'utf8')) ?? []
  const data = JSON.parse(inflateSync(Buffer.from(packed, 'base64')).toString()) as {
    rows: Array<{ name: string; url: string }>; index: { invertedIndex: Array<[string, unknown]> } }
  return { rows: data.rows, words: new Set(data.index.invertedIndex.map(([word]) => word)) }
}

/** Names of the members of an interface's page, in order, and its headings. */
function membersOf(site: string, name: string): { members: string[]; headings: string[] } {
  const html = readFileSync(path.join(site, 'interfaces', `${name}.html`), 'utf8')
  const titles = [...html.matchAll(/<h3 class="tsd-anchor-link" id="[^"]*">(.*?)<a /g)].map(match => match[1] ?? '')
  const headings = [...html.matchAll(/<h3 class="tsd-index-heading[^>]*>(.*?)<a /g)].map(match => match[1] ?? '')
  return { members: titles.map(title => /<span>(.*?)<\/span>/.exec(title)?.[1]?.replaceAll('<wbr/>', '') ?? ''), headings }
}

test('the site builds without a warning, and readers find their way', async () => {
  const out = mkdtempSync(path.join(tmpdir(), 'polylm-site-'))
  try {
    const { status, stdout, stderr } = await execute(process.execPath, ['node_modules/typedoc/bin/typedoc', '--out', out])
    expect([status, `${stdout}${stderr}`]).toEqual([0, expect.not.stringContaining('[warning]') as string])
    expect(readdirSync(out)).toContain('index.html')
    expect(readdirSync(out)).not.toContain('modules')       // the API is the site's own, not a module named index

    const { rows, words } = searchOf(out)
    expect(rows.filter(({ url }) => url.startsWith('documents/'))).toHaveLength(pages.length)
    for (const word of ['musl', 'electron', 'speculate', 'glibc']) expect([word, words.has(word)]).toEqual([word, true])

    const { members, headings } = membersOf(out, 'GenerateOptions')
    expect(headings.slice(0, 5)).toEqual(['Length', 'Sampling', 'Penalties', 'Constraints', 'Beam search'])
    expect(members.length).toBeGreaterThan(35)
    for (const pair of [['maxTokens', 'temperature'], ['temperature', 'topK'], ['topP', 'numBeams'], ['numBeams', 'stop']]) {
      const [first, second] = pair.map(name => members.indexOf(name)) as [number, number]
      expect([pair, first >= 0 && first < second]).toEqual([pair, true])
    }
    expectPhone(out)
  } finally {
    rmSync(out, { recursive: true, force: true })
  }
}, 300_000)

/** Nothing that may be wide stands outside of what site.css makes narrow; every page loads it. */
function expectPhone(site: string): void {
  const css = readFileSync(path.join(site, 'assets/custom.css'), 'utf8')
  expect(css).toMatch(/\.tsd-typography table \{[^}]*overflow-x: auto/)
  expect(css).toMatch(/pre \{[^}]*overflow-x: auto/)
  expect(css).toMatch(/\.col-content[^{]*\{[^}]*overflow-wrap: anywhere/)
  const html = readdirSync(site, { recursive: true, encoding: 'utf8' }).filter(name => name.endsWith('.html'))
  expect(html.length).toBeGreaterThan(50)
  for (const name of html) {
    const text = readFileSync(path.join(site, name), 'utf8')
    expect([name, text.includes('assets/custom.css'), text.includes('name="viewport"')]).toEqual([name, true, true])
    const table = text.indexOf('<table')
    if (table >= 0) expect([name, text.lastIndexOf('tsd-typography', table) >= 0]).toEqual([name, true])
  }
}
