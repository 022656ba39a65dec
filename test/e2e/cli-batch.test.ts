// cli-batch.test.ts: `polylm generate --input` with the demo model: text files, resuming, kills, two at once, full disks.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { execute, jsonLines, polylm, program } from './cli-program.js'
import type { Run } from './cli-program.js'

let folder: string
beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'polylm-')) })
afterEach(() => { rmSync(folder, { recursive: true }) })
const file = (name: string, content?: string): string => {
  const place = path.join(folder, name)
  if (content !== undefined) writeFileSync(place, content)
  return place
}
const text = (name: string): string => readFileSync(file(name), 'utf8')
const rows = (name: string): Record<string, unknown>[] =>
  jsonLines(text(name)).sort((a, b) => Number(a['index']) - Number(b['index']))

const toGerman = ['--prompt-template', '{text}\\nTranslate this sentence from English to German.', '--max-tokens', '30']
const english = ['Rome is the capital of Italy.', 'Paris is the capital of France.', 'Warsaw is the capital of Poland.']
const german = ['Rom ist die Hauptstadt von Italien.', 'Paris ist die Hauptstadt von Frankreich.', 'Warschau ist die Hauptstadt von Polen.']
const run = (args: readonly string[], options: Run = {}): ReturnType<typeof polylm> => polylm(['generate', '--demo', ...args], options)

test('a text file is translated line by line: blank lines, CRLF, a byte order mark, a last line without end', async () => {
  const input = file('en.txt', `\ufeff${english[0]}\r\n\r\n${english[1]}\n   \n${english[2]}`)
  const args = ['--input', input, '--output-text', file('de.txt'), '--output-order', 'input', ...toGerman]
  const first = await run(args)
  expect([first.status, first.stdout, first.stderr]).toEqual([0, '', expect.stringMatching(/^3 answered, \d+ tokens, /) as string])
  expect(text('de.txt')).toBe(`${german[0]}\n\n${german[1]}\n\n${german[2]}\n`)
  expect(jsonLines(text('de.txt.jsonl')).map(({ index, text: answer }) => [index, answer]))
    .toEqual([[0, `\n${german[0]}`], [2, `\n${german[1]}`], [4, `\n${german[2]}`]])

  const again = await run(args)
  expect([again.status, again.stderr]).toEqual([2, expect.stringContaining('already exists') as string])
  writeFileSync(file('de.txt.jsonl'), text('de.txt.jsonl').split('\n').slice(1).join('\n') + '{"ind')   // killed early
  writeFileSync(file('de.txt'), 'half of a li')
  const resumed = await run([...args, '--resume'])
  expect([resumed.status, resumed.stderr]).toEqual([0, expect.stringMatching(/^2 of 3 answered before\n1 answered, /) as string])
  expect(text('de.txt')).toBe(`${german[0]}\n\n${german[1]}\n\n${german[2]}\n`)
  expect(jsonLines(text('de.txt.jsonl')).map(({ index }) => index)).toEqual([0, 2, 4])

  rmSync(file('de.txt.jsonl'))
  const lost = await run([...args, '--resume'])
  expect([lost.status, lost.stderr]).toEqual([2, expect.stringContaining('which are missing') as string])
  expect(text('de.txt')).toContain(german[2])
})

test('text from a pipe to a pipe; - is never a file', async () => {
  const input = english.map(line => `${line}\n`).join('\n')
  const plain = await run(['--input', '-', '--output-text', '-', ...toGerman], { input })
  expect([plain.status, plain.stdout]).toEqual([0, german.map(line => `${line}\n`).join('\n')])
  const json = await run(['--input', '-', '--output', '-', '--output-order', 'input', ...toGerman], { input })
  expect(jsonLines(json.stdout).map(({ index }) => index)).toEqual([0, 2, 4])
  expect([existsSync('-'), existsSync('-.jsonl')]).toEqual([false, false])
  const pipes = `"${process.execPath}" "${program}" generate --demo --input <(echo '${english[0]}') --output-text >(cat) "$@" | cat`
  expect((await execute('bash', ['-c', pipes, 'polylm', ...toGerman])).stdout).toBe(`${german[0]}\n`)
})

test('an output is continued only by the same question: nothing is answered twice, or mixed', async () => {
  const args = ['--input', file('in.txt', english.join('\n')), '--output', file('out.jsonl'), ...toGerman]
  expect((await run(args)).status).toBe(0)
  const before = text('out.jsonl')
  const refused = async (reason: RegExp, ...more: string[]): Promise<void> => {
    const { status, stdout, stderr } = await run([...args, '--resume', ...more])
    expect([status, stdout, stderr]).toEqual([1, '', expect.stringMatching(/error \[OUTPUT_MISMATCH\]: .*\nhint: /) as string])
    expect(stderr).toMatch(reason)
    expect(text('out.jsonl')).toBe(before)
  }
  await refused(/other options/, '--num-beams', '2')
  await refused(/other options/, '--template', 'assistant')
  await refused(/another model/, '--context-size', '100')
  writeFileSync(file('in.txt'), [english[1], english[0], english[2]].join('\n'))
  await refused(/answers another text than .*in\.txt:[12] has now/)
  writeFileSync(file('in.txt'), english.slice(0, 2).join('\n'))
  await refused(/has the index 2, for which .* has no prompt any more \(it has 2\)/)
  writeFileSync(file('in.txt'), [...english, english[0]].join('\n'))                   // longer: only the rest is answered
  const longer = await run([...args, '--resume'])
  expect([longer.status, longer.stderr]).toEqual([0, expect.stringMatching(/^3 of 4 answered before\n1 answered/) as string])
  expect(text('out.jsonl').startsWith(before)).toBe(true)
  expect(rows('out.jsonl').map(({ index }) => index)).toEqual([0, 1, 2, 3])
  const fromPipe = await run(['--input', '-', '--output', file('out.jsonl'), ...toGerman, '--resume'], { input: english.join('\n') })
  expect([fromPipe.status, fromPipe.stderr])
    .toEqual([1, expect.stringContaining('for which standard input has no prompt any more') as string])
})

test('failures are counted and end with 1 until they are retried', async () => {
  const lines = [JSON.stringify(english[0]), '{"tokens":[999999]}', JSON.stringify(english[1])]
  const outputs = ['--output', file('out.jsonl'), '--output-text', file('out.txt')]
  const args = ['--input', file('in.jsonl', lines.join('\n')), ...outputs, '--max-tokens', '5']
  const first = await run(args)
  expect([first.status, first.stderr]).toEqual([1, expect.stringMatching(/2 answered, 1 failed.*\n1 prompt\(s\) failed/) as string])
  expect(text('out.txt').split('\n')[1]).toBe('')
  const second = await run([...args, '--resume'])
  expect([second.status, second.stderr])
    .toEqual([1, expect.stringContaining('2 of 3 answered before, 1 failed before; add --retry-failed') as string])
  const third = await run([...args, '--resume', '--retry-failed'])
  expect([third.status, third.stderr]).toEqual([1, expect.stringContaining('0 answered, 1 failed') as string])
  lines[1] = '{"tokens":[5,6]}'
  writeFileSync(file('in.jsonl'), lines.join('\n'))
  const fourth = await run([...args, '--resume'])
  expect([fourth.status, fourth.stderr]).toEqual([1, expect.stringContaining('OUTPUT_MISMATCH') as string])
  const fifth = await run([...args, '--resume', '--retry-failed'])
  expect([fifth.status, fifth.stderr]).toEqual([0, expect.stringContaining('1 answered') as string])
  expect(jsonLines(text('out.jsonl')).map(({ index, ok }) => [index, ok])).toEqual([[0, true], [1, true], [2, true]])
  expect(text('out.txt').split('\n')).toHaveLength(4)
})

/** Prompts that take a while, one after the other. */
const slowly = ['--device', 'ref', '--max-sequences', '1', '--stop-token-ids', 'none', '--max-tokens', '8']

/** What happens when the output has its first lines. */
function onceWritten(name: string, action: () => void): Run {
  let done = false
  const timer = setInterval(() => {
    if (done || !existsSync(file(name)) || text(name).split('\n').length < 3) return
    done = true
    clearInterval(timer)
    action()
  }, 5).unref()
  return {}
}

test.each([['SIGINT', 130], ['SIGTERM', 143], ['SIGKILL', null]] as const)('a batch that %s ends is continued', async (signal, code) => {
  const input = file('in.txt', Array.from({ length: 10 }, (_, i) => `${i} is`).join('\n'))
  const args = ['--input', input, '--output', file('out.jsonl'), ...slowly]
  let pid = 0
  const ended = run(args, { started: child => { pid = child.pid ?? 0 }, ...onceWritten('out.jsonl', () => { process.kill(pid, signal) }) })
  const { status, stderr } = await ended
  expect(status).toBe(code)
  if (code !== null) {
    expect(stderr).toMatch(/^interrupted: \d+ answered, \d+ left, .*\nto continue, run the same command with --resume\n$/m)
    expect(stderr).not.toMatch(/^\s+at /m)
  }
  const left = rows('out.jsonl').length
  expect([left > 1, left < 10]).toEqual([true, true])
  if (signal === 'SIGTERM') return
  const resumed = await run([...args, '--resume'])
  expect([resumed.status, resumed.stderr]).toEqual([0, expect.stringContaining(`${left} of 10 answered before`) as string])
  expect(rows('out.jsonl').map(({ index }) => index)).toEqual(Array.from({ length: 10 }, (_, i) => i))
})

test('two processes do not write one output', async () => {
  const input = file('in.txt', Array.from({ length: 10 }, (_, i) => `${i} is`).join('\n'))
  const args = ['--input', input, '--output', file('out.jsonl'), ...slowly, '--resume']
  let second: ReturnType<typeof polylm> | undefined
  onceWritten('out.jsonl', () => { second = run(args) })
  const first = await run(args)
  const refused = await second
  expect([first.status, refused?.status]).toEqual([0, 1])
  expect(refused?.stderr).toMatch(/error \[OUTPUT_BUSY\]: .* is being written by process \d+\nhint: /)
  expect(rows('out.jsonl')).toHaveLength(10)
})

test('Ctrl-C while the model loads, or twice, leaves no stack trace', async () => {
  const { status, stderr } = await run(['--input', file('in.txt', 'a\n'), '--output', file('out.jsonl')], {
    started: child => { setTimeout(() => child.kill('SIGINT'), 250) },
  })
  expect(stderr).not.toMatch(/^\s+at |^error/m)
  expect([0, 130, null]).toContain(status)               // null: it had not begun to listen
})

test('what looks like the other format is asked about', async () => {
  const json = await run(['--input', file('prompts', '\n{"prompt":"a"}\n')])
  expect([json.status, json.stderr]).toEqual([2, expect.stringMatching(/prompts:2 looks like JSON.*\nhint: give --format jsonl/) as string])
  const plain = await run(['--input', file('prompts.jsonl', 'Rome is\n')])
  expect([plain.status, plain.stderr]).toEqual([1, expect.stringMatching(/JSON_SYNTAX.*prompts\.jsonl:1.*\nhint: --format text/) as string])
  const wrong = await run(['--input', file('wrong.jsonl', '"a"\n{"promt":"x"}\n'), '--output', file('out.jsonl')])
  expect([wrong.status, existsSync(file('out.jsonl'))]).toEqual([2, false])
})

test('--system and --prompt-template hold for lines of JSON; what they cannot be put around is refused', async () => {
  const lines = file('in.jsonl', [{ id: 1, prompt: english[0] }, english[1]].map(line => JSON.stringify(line)).join('\n'))
  const framed = await run(['--input', lines, '--output-text', '-', ...toGerman])
  expect(framed.stdout).toBe(`${german[0]}\n${german[1]}\n`)
  const tokens = await run(['--input', file('t.jsonl', '{"tokens":[5]}'), ...toGerman])
  expect([tokens.status, tokens.stderr]).toEqual([2, expect.stringContaining('no "prompt" for --prompt-template') as string])
  const system = await run(['--input', lines, '--system', 'x', '--template', 'assistant', '--output-text', '-'])
  expect([system.status, system.stderr]).toEqual([1, expect.stringContaining('2 failed') as string])   // no place for it there
})
