// cli-batch.test.ts: what `generate --input` is asked to do: formats, files, flags that contradict each other; prompt
// templates, answers as lines, progress bars.
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { planBatch } from '../../lib/cli/batch-plan.js'
import type { BatchFlags, BatchPlan } from '../../lib/cli/batch-plan.js'
import { barLine, duration, timeLeft } from '../../lib/cli/progress.js'
import { asOneLine, promptTemplate } from '../../lib/cli/prompt-template.js'

const plan = (flags: Partial<BatchFlags>, hasTemplate = false, decoding = {}): Promise<BatchPlan> =>
  planBatch({ format: 'auto', input: 'in.txt', ...flags }, decoding, hasTemplate)

test.each<[Partial<BatchFlags>, boolean, string]>([
  [{ input: 'a.jsonl' }, false, 'jsonl'], [{ input: 'a.NDJSON' }, false, 'jsonl'], [{ input: 'a.txt' }, false, 'text'],
  [{ input: 'prompts' }, false, 'text'], [{ input: '-' }, false, 'jsonl'], [{ input: '-' }, true, 'text'],
  [{ input: '-', outputText: '-' }, false, 'text'], [{ input: 'a.txt', format: 'jsonl' }, true, 'jsonl'],
  [{ input: 'a.jsonl', format: 'text' }, false, 'text'], [{ input: 'a.jsonl', outputText: 'o.txt' }, true, 'jsonl'],
])('the format of %j', async (flags, hasTemplate, format) => {
  expect((await plan(flags, hasTemplate)).format).toBe(format)
})

test.each<[Partial<BatchFlags>, Partial<BatchPlan>]>([
  [{}, { journal: undefined, print: 'jsonl', text: undefined, inOrder: false }],
  [{ output: '-' }, { journal: undefined, print: 'jsonl' }],
  [{ output: 'o' }, { journal: 'o', print: undefined }],
  [{ outputText: '-' }, { journal: undefined, print: 'text', text: undefined, inOrder: true }],
  [{ outputText: 't' }, { journal: 't.jsonl', print: undefined, text: 't', inOrder: true }],
  [{ output: 'o', outputText: 't' }, { journal: 'o', text: 't', inOrder: true }],
  [{ output: 'o', outputText: '-' }, { journal: 'o', print: 'text', inOrder: true }],
  [{ outputOrder: 'input' }, { inOrder: true, print: 'jsonl' }],
])('where the answers of %j go', async (flags, expected) => {
  expect(await plan(flags)).toMatchObject(expected)
})

test.each<[Partial<BatchFlags>, object, RegExp]>([
  [{ output: '-', outputText: 't' }, {}, /--output - and --output-text/],
  [{ outputText: 't', outputOrder: 'completion' }, {}, /in the order of the input/],
  [{ outputText: 't' }, { n: 2 }, /one line per prompt/],
  [{ output: 'o', retryFailed: true }, {}, /--retry-failed needs --resume/],
  [{ resume: true }, {}, /--resume needs --output FILE/], [{ resume: true, output: '-' }, {}, /--resume needs/],
  [{ output: 'in.txt' }, {}, /name the same file/], [{ output: './x/../in.txt' }, {}, /name the same file/],
  [{ output: 'o', outputText: 'o' }, {}, /name the same file/],
])('%j with %j is refused', async (flags, decoding, message) => {
  await expect(plan(flags, false, decoding)).rejects.toThrow(message)
})

test('a link to the input is the input; a device cannot be continued', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'polylm-'))
  try {
    const input = path.join(folder, 'in')
    writeFileSync(input, 'a\n')
    symlinkSync(input, path.join(folder, 'link'))
    await expect(plan({ input, output: path.join(folder, 'link') })).rejects.toThrow(/name the same file/)
  } finally {
    rmSync(folder, { recursive: true })
  }
  if (process.platform === 'win32') return
  await expect(plan({ output: '/dev/null', resume: true })).rejects.toThrow(/--resume needs a file/)
})

test.each([
  ['{text}', 'x', 'x'], ['{text}\\nTo German.', 'x', 'x\nTo German.'], ['a {text} b {text}', '$&', 'a $& b $&'],
  ['{text}', '{text} \\n', '{text} \\n'], ['\\{text\\} {text}', 'x', '{text} x'], ['{"a":{text}}', 'x', '{"a":x}'],
  ['C:\\\\n\\t{text}', 'x', 'C:\\n\tx'], ['{{text}}', 'x', '{x}'], ['ไทย\n{text}', 'x', 'ไทย\nx'],
])('the template %j of %j', (source, input, expected) => {
  expect(promptTemplate(source)(input)).toBe(expected)
})

test.each([
  ['', /must contain \{text\}/], ['{Text}', /\{text\}/], ['\\{text\\}', /\{text\}/], ['\\d{text}', /'\\d'/], ['{text}\\', /'\\'/],
])('the template %j is refused', (source, message) => {
  expect(() => promptTemplate(source)).toThrow(message)
})

test.each([
  ['\nHallo\n', 'Hallo'], ['a\nb', 'a b'], ['a \r\n\r\n b', 'a b'], ['a\u2028b\u2029c\x85d\ve\ff', 'a b c d e f'],
  ['a  b\tc', 'a  b\tc'], ['', ''], ['\n \n', ''], ['a\\nb', 'a\\nb'],
])('%j as one line', (text, line) => {
  expect(asOneLine(text)).toBe(line)
})

test('a bar fits its terminal: first it becomes shorter, then the remark', () => {
  expect(barLine('generating', 0.5, '5 of 10, about 3 s left, 9 tokens/s', 100))
    .toBe('generating [===============               ] 50% 5 of 10, about 3 s left, 9 tokens/s')
  expect(barLine('generating', 0.5, '5 of 10, about 3 s left, 9 tokens/s', 40)).toBe('generating 50% 5 of 10, about 3 s left')
  for (let columns = 1; columns < 100; columns++) {
    expect(barLine('generating', 0.5, '5 of 10, about 3 s left, 9 tokens/s', columns).length).toBeLessThan(Math.max(2, columns))
  }
  expect(barLine('loading', NaN, '', 40)).toContain(' 0%')
})

test('time left', () => {
  expect([0.2, 59, 61, 3599, 7500, 100_000].map(duration)).toEqual(['1 s', '59 s', '1 min', '1 h 0 min', '2 h 5 min', '1 d 3 h'])
  expect([timeLeft(0, 5, 1), timeLeft(5, 5, 1), timeLeft(1, 5, 10)]).toEqual(['', '', ', about 40 s left'])
})
