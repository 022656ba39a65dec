// cli-generate.test.ts: `polylm generate` and `polylm chat` with the demo model: streams, files of prompts, Ctrl-C.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { jsonLines, polylm } from './cli-program.js'

const example = 'Beijing is the capital of China.\nTranslate this sentence from English to Chinese.'
const chinese = '北京是中国的首都。'

let folder: string
beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'polylm-')) })
afterEach(() => { rmSync(folder, { recursive: true }) })
const file = (name: string, content?: string): string => {
  const name_ = path.join(folder, name)
  if (content !== undefined) writeFileSync(name_, content)
  return name_
}

test('PolyLM\'s own example with beam search', async () => {
  const { status, stdout, stderr } = await polylm(['generate', '--demo', example, '--num-beams', '4', '--early-stopping'])
  expect(stderr).toBe('')
  expect(stdout.trim()).toBe(chinese)
  expect(stdout).toMatch(/\n$/)
  expect(status).toBe(0)
})

test('a prompt from standard input, as an argument and as messages give the same', async () => {
  const flags = ['--template', 'assistant', '--max-tokens', '40']
  const argument = await polylm(['generate', '--demo', example, ...flags])
  expect(argument.stdout.trim()).toBe(chinese)
  expect((await polylm(['generate', '--demo', '-', ...flags], { input: `${example}\n` })).stdout).toBe(argument.stdout)
  const messages = file('messages.json', JSON.stringify([{ role: 'user', content: example }]))
  expect((await polylm(['generate', '--demo', '--messages', messages, ...flags])).stdout).toBe(argument.stdout)
})

test('--json prints the whole result; --stats go to standard error', async () => {
  const { stdout, stderr } = await polylm(
    ['generate', '--demo', example, '--num-beams', '3', '--n', '2', '--logprobs', '1', '--json', '--stats', '--max-tokens', '20'])
  const [result] = jsonLines(stdout) as [{ outputs: { tokens: number[]; score: number; logprobs: unknown[] }[] }]
  expect(result.outputs).toHaveLength(2)
  expect(result.outputs[0]?.score).toBeGreaterThanOrEqual(result.outputs[1]?.score ?? 0)
  expect(result.outputs[0]?.logprobs).toHaveLength(result.outputs[0]?.tokens.length ?? 0)
  expect(stderr).toMatch(/tokens\/s/)
})

test('--logprobs prints a table of tokens after the text, of each output', async () => {
  const flags = ['--max-tokens', '4', '--logprobs', '2']
  const { status, stdout } = await polylm(['generate', '--demo', example, ...flags])
  expect(status).toBe(0)
  const [, text, , head, ...rows] = stdout.split('\n')
  expect(text).toMatch(/^北京是中$/)
  expect(head).toMatch(/^id +logprob +probability +token +alternatives$/)
  expect(rows.slice(0, -1)).toHaveLength(4)
  expect(rows[0]).toMatch(/^\d+ +-\d\.\d{4} +100 % +"\\u000a" +".+" \S+ %$/)
  const several = await polylm(['generate', '--demo', example, '--num-beams', '3', '--n', '2', ...flags.slice(0, 3)])
  expect(several.stdout.match(/^id +logprob +probability +token$/gm)).toHaveLength(2)
})

test('--logprobs has no place in a chat', async () => {
  const { status, stderr } = await polylm(['chat', '--demo', '--logprobs', '1'])
  expect([status, stderr]).toEqual([2, expect.stringContaining('generate --template assistant --logprobs') as string])
})

test('sampling repeats with its seed and shows several outputs', async () => {
  const flags = ['--temperature', '1.5', '--n', '2', '--max-tokens', '12', '--seed']
  const run = async (seed: string): Promise<string> => (await polylm(['generate', '--demo', 'The capital', ...flags, seed])).stdout
  const first = await run('1')
  expect(first).toMatch(/^--- 1 of 2\n[\s\S]*\n--- 2 of 2\n/)
  expect(await run('1')).toBe(first)
  expect(await run('2')).not.toBe(first)
})

test('--top-p alone samples at temperature 1, and --stats names the seed', async () => {
  const flags = ['--max-tokens', '8', '--seed', '5', '--stats', '--top-p', '0.99']
  const run = async (...more: string[]): Promise<{ stdout: string; stderr: string }> =>
    await polylm(['generate', '--demo', 'The capital', ...flags, ...more])
  const [alone, given, greedy] = [await run(), await run('--temperature', '1'), await run('--temperature', '0')]
  expect(alone.stdout).toBe(given.stdout)
  expect(alone.stderr).toContain('seed 5')
  expect(greedy.stderr).not.toContain('seed')
})

test('many prompts: ids come back, failures are lines, and resuming answers only the rest', async () => {
  const input = file('in.jsonl', [
    JSON.stringify({ id: 'a', prompt: example, options: { numBeams: 4, maxTokens: 40 } }), '',
    JSON.stringify({ tokens: [999_999] }), '"Rome is"',
    JSON.stringify({ id: 'd', messages: [{ role: 'user', content: example }], template: 'assistant' }),
  ].join('\n'))
  const output = file('out.jsonl')
  const args = ['generate', '--demo', '--input', input, '--output', output, '--max-tokens', '30']
  const first = await polylm(args)
  expect([first.status, first.stdout]).toEqual([1, ''])
  expect(first.stderr).toContain('1 prompt(s) failed')
  const rows = jsonLines(readFileSync(output, 'utf8')).sort((a, b) => Number(a['index']) - Number(b['index']))
  expect(rows.map(({ index, id, ok }) => [index, id, ok]))
    .toEqual([[0, 'a', true], [1, undefined, false], [2, undefined, true], [3, 'd', true]])
  expect(rows[0]?.['text']).toContain(chinese)
  expect(rows[1]?.['error']).toMatchObject({ code: 'INVALID_PROMPT' })

  expect((await polylm(args)).status).toBe(2)                                 // the output exists
  const kept = readFileSync(output, 'utf8').split('\n').slice(0, 2).join('\n')
  writeFileSync(output, `${kept}\n{"index":`)                                 // as a crash would leave it
  await polylm([...args, '--resume'])
  const resumed = readFileSync(output, 'utf8')
  expect(resumed.startsWith(`${kept}\n`)).toBe(true)
  expect(jsonLines(resumed).map(({ index }) => index).sort()).toEqual([0, 1, 2, 3])
  const again = await polylm([...args, '--resume'])
  expect([again.status, again.stderr]).toEqual([1, expect.stringContaining('3 of 4 answered before, 1 failed before') as string])
  expect(readFileSync(output, 'utf8')).toBe(resumed)
})

test('a wrong line of the input stops with its place', async () => {
  const { status, stderr } = await polylm(['generate', '--demo', '--input', '-'], { input: '"Rome"\n{"promt":"x"}\n' })
  expect([status, stderr]).toEqual([2, expect.stringContaining('standard input:2 has the unknown key "promt"') as string])
})

test('Ctrl-C ends a generation cleanly with what there is', async () => {
  let pressed = false
  const { status, stdout } = await polylm(
    ['generate', '--demo', 'Rome is', '--device', 'ref', '--stop-token-ids', 'none', '--temperature', '1', '--max-tokens', '200'],
    { watch: (child, text) => { if (!pressed && text.length > 3) pressed = child.kill('SIGINT') } })
  expect(status).toBe(130)
  expect(stdout).toMatch(/.{3,}\n$/s)
})

test('a second Ctrl-C leaves at once', async () => {
  const { status, signal } = await polylm(
    ['generate', '--demo', 'Rome is', '--device', 'ref', '--stop-token-ids', 'none', '--temperature', '1', '--max-tokens', '200'],
    { watch: child => { child.kill('SIGINT'); setTimeout(() => child.kill('SIGINT'), 1) } })
  expect(status ?? signal).toBe(signal ?? 130)            // by the signal itself when it was just ending anyway
  expect([null, 'SIGINT']).toContain(signal)
})

test('Ctrl-C while the input is awaited ends many prompts with 130', async () => {
  const { status, stdout } = await polylm(['generate', '--demo', '--input', '-'], {
    input: '"Rome is"\n', openInput: true, watch: child => { child.kill('SIGINT') },
  })
  expect(status).toBe(130)
  expect(jsonLines(stdout)).toHaveLength(1)
})

test('chat answers each line of a pipe and remembers', async () => {
  const question = 'What is the capital of France?'
  const { status, stdout, stderr } = await polylm(['chat', '--demo', '--commands', '--max-tokens', '30'], {
    input: `/help\n${question}\n${question}\n/reset\n${question}\n/quit\nnever read\n`,
  })
  expect(status).toBe(0)
  expect(stderr).toMatch(/\/reset +forget/)
  const answers = stdout.trimEnd().split('\n')
  expect(answers).toHaveLength(3)
  expect(answers[2]).toBe(answers[0])
  expect(answers[0]).toContain('Paris')
})

test('chat in a pipe fails when an answer fails', async () => {
  const { status, stderr } = await polylm(['chat', '--demo'], { input: '<|user|>\n' })
  expect([status, stderr]).toEqual([1, expect.stringMatching(/^error \[INVALID_PROMPT\]: /) as string])
})
