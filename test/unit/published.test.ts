// published.test.ts: published numbers are those of the result files: every generated block, page and picture is what
// `npm run published` would write, and no page has a measured number that a person typed.
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { publish } from '../../benchmarks/published/main.js'
import { blocks, fill, files, handwritten, outputs, pages, shown } from '../../benchmarks/published/pages.js'
import { engineTables } from '../../benchmarks/published/cpu.js'
import { gpuChart, gpuPage, gpuShort } from '../../benchmarks/published/gpu.js'
import { readResults } from '../../benchmarks/published/results.js'
import { between, binary, duration, percent, ranged, three, times } from '../../benchmarks/published/rules.js'
import { benchChart } from '../../lib/cli/bench-chart.js'
import { allowed, comments, prose, typedNumbers } from '../published.js'
import { root, under } from '../tidy/files.js'
import { elementsOf } from '../xml.js'

const read = (name: string): string => readFileSync(path.join(root, name), 'utf8')
const results = readResults(root)

test('rounding', () => {
  expect([three(11.9558), three(30725.2), three(8.5), three(999.9)]).toEqual(['12.0', '30,700', '8.50', '1,000'])
  expect([ranged(616.49, 333.8, 756.01), between([5.27, 18.97], v => v.toFixed(0)), between([2, 2], String)]).toEqual([
    '616 (334 to 756)', '5 to 19', '2'])
  expect([percent(0.9257), percent(0.0423), times(6.264), times(0.7798), times(12.3)]).toEqual(['93 %', '4.2 %', '6.3', '0.78', '12'])
  expect([duration(207.7), duration(3836), binary(196_608), binary(402_653_184), binary(2 ** 31)]).toEqual([
    '208 ms', '3.8 s', '192 KiB', '384 MiB', '2 GiB'])
})

// `npm run published` mends it.
test.each([...outputs(root)])('%s is made from the result files', (name, text) => {
  expect(existsSync(path.join(root, name))).toBe(true)
  expect(read(name)).toBe(text)
})

test('every block is shown, and a result that changes changes the page', () => {
  expect(new Set(pages.flatMap(page => shown(read(page))))).toEqual(new Set(Object.keys(blocks)))
  const faster = { ...results, bench: { ...results.bench, results: results.bench.results.map(row => ({ ...row, eventLoopDelayMs: 99 })) } }
  expect(fill('README.md', read('README.md'), faster)).toContain('Event-loop delay at p99: 99 ms')
  expect(() => fill('x.md', '<!-- published luck -->\n<!-- /published -->', results)).toThrow('luck')
})

test('a table of engine.json that is new is published, too', () => {
  const engine = { ...results.engine, 'waits, ms': [{ call: '1 token', alone: 0.6123, together: 20 }] }
  expect(engineTables({ ...results, engine })).toContain(
    '\nWaits, ms:\n\n| call | alone | together |\n| --- | --- | --- |\n| 1 token | 0.612 | 20 |\n')
  expect(engineTables(results)).not.toContain('Waits')
})

test('a GPU run without PyTorch or a second run is published as what it is', () => {
  const alone = { ...results, gpu: { ...results.gpu, torch: [], oursAgain: [] } }
  expect(gpuPage(alone)).toContain('| not measured |')
  elementsOf(gpuChart(alone))
  expect(gpuShort(alone)).not.toContain('NaN')
  const slow = { ...results, gpu: { ...results.gpu, ours: results.gpu.ours.map(line => ({ ...line, value: 1, ratio: 0.001 })) } }
  expect(gpuPage(slow)).toContain('| missed |')
  expect(gpuShort(slow)).toContain('8 of 8 rows are slower than Hugging Face')
})

test('the picture, its text and the README name the same limit for a row', () => {
  const svg = benchChart(results.bench)
  for (const { fractionOfLimit, limitedBy } of results.bench.results) {
    const words = `${(100 * (fractionOfLimit ?? NaN)).toFixed(0)} % of ${limitedBy === 'memory' ? 'memory bandwidth' : 'compute'}`
    expect(svg).toContain(words)
    expect(read('README.md')).toContain(words)
  }
  for (const name of Object.keys(files).filter(file => file.endsWith('.svg'))) elementsOf(read(name))
})

describe('numbers typed by hand', () => {
  const markdown = [
    'README.md', 'CHANGELOG.md', 'SECURITY.md', 'CONTRIBUTING.md', 'benchmarks/README.md', 'benchmarks/results/README.md',
    ...readdirSync(path.join(root, 'docs')).filter(name => name.endsWith('.md')).map(name => `docs/${name}`)]
  const used = new Set<string>()

  test('are found', () => {
    const bad = [
      '12 tokens/s', '9 times as fast', '0.85 of the speed', 'p99 of 2 to 6 ms', '26 GB', '1.6x', '93 %', 'nine times', 'in 3 seconds',
      'a third of a second', 'about a millisecond', '0.9 of what', '4.7 MB', '650 tokens per second', '3.6 s.']
    for (const text of bad) expect([text, typedNumbers('docs/x.md', text)]).toEqual([text, [expect.anything() as string]])
    expect(typedNumbers('docs/x.md', 'version 0.1.0, sm_90, Node 20.4, 2,048 tokens, 64 sequences, hf-4.55')).toEqual([])
    const page = 'a\n<!-- published x: made -->\n\n5 ms\n\n<!-- /published -->\n6 ms\n```\n7 ms\n```\n'
    expect(typedNumbers('docs/x.md', prose(handwritten(page)))).toEqual(['docs/x.md:7 6 ms'])
    expect(typedNumbers('lib/x.ts', comments('/** measured\n * 9\n * times */\nconst ms = "5 ms"'))).toEqual(['lib/x.ts:1 9 times'])
  })

  test.each(markdown)('are not in %s', page => {
    expect(typedNumbers(page, prose(handwritten(read(page))), used)).toEqual([])
  })

  test('are not in the documentation of the library', () => {
    const exported = new Set([...read('lib/index.ts').matchAll(/from '\.\/(.*)\.js'/g)].map(match => `lib/${match[1]}.ts`))
    const library = under('lib', '.ts').filter(({ name }) => exported.has(name))
    expect(library.length).toBeGreaterThan(10)
    expect(library.flatMap(({ name, text }) => typedNumbers(name, comments(text), used))).toEqual([])
  })

  test('that may be there are there', () => {
    expect(allowed.filter(({ text }) => !used.has(text))).toEqual([])
  })
})

test('the check names what differs and writes nothing; publishing mends it', () => {
  const copy = mkdtempSync(path.join(tmpdir(), 'polylm-published-'))
  try {
    for (const name of ['README.md', 'docs', 'benchmarks/results', 'benchmarks/README.md', 'benchmarks/gpu/goals.json']) {
      cpSync(path.join(root, name), path.join(copy, name), { recursive: true })
    }
    expect(publish(copy, true)).toEqual([])
    const guide = path.join(copy, 'docs/decoding.md')
    const wrong = readFileSync(guide, 'utf8').replace('| 0.78 |', '| 0.85 |')
    writeFileSync(guide, wrong)
    rmSync(path.join(copy, 'benchmarks/results/bench.svg'))
    expect(publish(copy, true)).toEqual(['docs/decoding.md', 'benchmarks/results/bench.svg'])
    expect(readFileSync(guide, 'utf8')).toBe(wrong)
    expect(publish(copy, false)).toHaveLength(2)
    expect(readFileSync(guide, 'utf8')).toBe(read('docs/decoding.md'))
  } finally {
    rmSync(copy, { recursive: true })
  }
})
