// cli.test.ts: the program from outside: help, exit codes, errors, pipes, inspect, doctor, bench.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { violations } from '../json-schema.js'
import { elementsOf } from '../xml.js'
import { execute, fixture, jsonLines, polylm, program, root } from './cli-program.js'

const commands = ['generate', 'chat', 'score', 'inspect', 'bench', 'doctor']

test('help lists the commands, and each command has its own with examples', async () => {
  const { status, stdout } = await polylm(['--help'])
  expect(status).toBe(0)
  for (const command of commands) expect(stdout).toContain(command)
  for (const command of commands) {
    const help = await polylm([command, '--help'])
    expect([command, help.status]).toEqual([command, 0])
    expect(help.stdout).toContain('Examples:')
  }
})

test('the version is the package\'s', async () => {
  const { version } = JSON.parse(readFileSync(path.join(path.dirname(program), '../package.json'), 'utf8')) as { version: string }
  expect((await polylm(['--version'])).stdout).toBe(`${version}\n`)
})

test.each<[string, string[], RegExp]>([
  ['no command', [], /Usage: polylm/],
  ['unknown command', ['genrate'], /unknown command.*\n.*generate/],
  ['unknown option', ['generate', '--demo', 'x', '--topk', '3'], /unknown option '--topk'/],
  ['no model', ['generate'], /the model is missing\nhint: /],
  ['no prompt', ['generate', '--demo'], /the prompt is missing\nhint: /],
  ['too many arguments', ['generate', '--demo', 'a', 'b'], /1 argument\(s\) too many, from 'b'/],
  ['number expected', ['generate', '--demo', 'x', '--max-tokens', 'all'], /It must be a whole number/],
  ['number out of range', ['generate', '--demo', 'x', '--num-beams', '33'], /It must be from 1 to 32/],
  ['option that this model cannot do', ['generate', '--demo', 'x', '--n', '2'], /error \[INVALID_OPTION\]: /],
  ['load option out of range', ['generate', '--demo', 'x', '--context-size', '0'], /error \[INVALID_OPTION\]: /],
  ['prompt and input', ['generate', '--demo', 'x', '--input', 'y'], /a prompt and --input were given/],
  ['output without input', ['generate', '--demo', 'x', '--output', 'y'], /--output needs --input/],
  ['no batch', ['bench', '--shape', 'tiny', '--batch', '0'], /numbers from 1 to 1024/],
  ['one new token', ['bench', '--shape', 'tiny', '--tokens', '1'], /numbers from 2/],
  ['two repeats', ['bench', '--shape', 'tiny', '--repeats', '1,2'], /one number/],
  ['negative depth', ['bench', '--shape', 'tiny', '--depth', '0,-1'], /numbers from 0/],
  ['model and shape', ['bench', '--demo', '--shape', 'tiny'], /a model and --shape were given/],
])('wrong usage exits with 2: %s', async (_, args, message) => {
  const { status, stdout, stderr } = await polylm(args)
  expect(stderr).toMatch(message)
  expect(stderr).not.toMatch(/^\s+at /m)
  expect([status, stdout]).toEqual([2, ''])
})

test('an error that has a code shows it with its hint, and its place only when asked', async () => {
  const args = ['generate', 'no/such-model', 'x']
  const plain = await polylm(args)
  expect(plain.status).toBe(1)
  expect(plain.stderr).toMatch(/^error \[FILE_NOT_FOUND\]: .*no\/such-model.*\nhint: /)
  expect(plain.stderr).not.toMatch(/^\s+at /m)
  expect((await polylm(args, { env: { POLYLM_DEBUG: '1' } })).stderr).toMatch(/^\s+at /m)
})

test('a prompt that cannot be used fails with 1', async () => {
  const { status, stderr } = await polylm(['generate', '--demo', ''])
  expect([status, stderr]).toEqual([1, expect.stringMatching(/^error \[INVALID_PROMPT\]: /) as string])
})

test('inspect reads headers, as text and as JSON', async () => {
  const text = await polylm(['inspect', fixture('gpt2-tiny-bin'), '--tensors'])
  expect(text.stderr).toBe('')
  expect(text.stdout).toMatch(/family +gpt2: 3 layers, 2 heads of 128, hidden 256/)
  expect(text.stdout).toMatch(/transformer\.h\.2\.mlp\.c_proj\.weight +BF16 +\[1024, 256\]/)
  expect(text.stdout).toMatch(/tokenizer +none/)
  const { stdout } = await polylm(['inspect', fixture('gpt2-tiny'), '--json'])
  const facts = JSON.parse(stdout) as Record<string, unknown>
  expect(facts).toMatchObject({ format: 'safetensors', tokenizer: null, config: { layers: 3, vocabSize: 512 } })
  expect(facts['memory']).toMatchObject({ fits: true })
})

test('inspect knows the tokenizer of the demo model', async () => {
  const { stdout } = await polylm(['inspect', '--demo', '--json'])
  const { tokenizer } = JSON.parse(stdout) as { tokenizer: { vocabSize: number } }
  expect(tokenizer.vocabSize).toBeGreaterThan(100)
})

test('doctor finds the binary and a device', async () => {
  const { status, stdout } = await polylm(['doctor', '--json'])
  expect(status).toBe(0)
  const diagnosis = JSON.parse(stdout) as { polylm: { binary: string }; devices: { kind: string; usable: boolean }[] }
  expect(diagnosis.polylm.binary).toBe('found')
  expect(diagnosis.devices).toContainEqual(expect.objectContaining({ kind: 'cpu', usable: true }))
  expect((await polylm(['doctor'])).stdout).toMatch(/^binary +found/m)
})

test('bench measures a tiny shape and draws it', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'polylm-'))
  try {
    const svg = path.join(folder, 'x.svg')
    const { status, stdout, stderr } = await polylm(['bench', '--shape', 'tiny', '--smoke', '--json', '--svg', svg])
    expect([status, stderr]).toEqual([0, expect.not.stringContaining('error') as string])
    const report = JSON.parse(stdout) as { results: { test: string; batch: number; depth: number }[] }
    const schema = JSON.parse(readFileSync(path.join(root, 'benchmarks/bench-report.schema.json'), 'utf8')) as Record<string, unknown>
    expect(violations(report, schema)).toEqual([])
    expect(report.results.map(({ test: name, batch, depth }) => [name, batch, depth])).toEqual([
      ['prefill', 1, 0], ['decode', 1, 0], ['decode', 2, 0], ['decode', 1, 64], ['decode', 2, 64]])
    expect(report).toMatchObject({ model: { layers: 2, hiddenSize: 256, vocabSize: 4096 }, limits: { looks: 8 } })
    expect(elementsOf(readFileSync(svg, 'utf8'))).toContain('rect')
    expect((await polylm(['bench', '--shape', 'tiny', '--smoke'])).stdout).toMatch(/2 sequences +\d.*\n.*1 sequence after 64 tokens/)
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('score: a document, lines, and continuations, in the order of the input', async () => {
  const document = await polylm(['score', '--demo', '-'], { input: 'Rome is the capital of Italy.' })
  const [row] = jsonLines(document.stdout)
  const { logprob, count, perplexity } = row as { logprob: number; count: number; perplexity: number }
  expect(perplexity).toBeCloseTo(Math.exp(-logprob / count), 6)
  expect(document.stderr).toContain('perplexity')
  const byLine = await polylm(['score', '--demo', '-', '--by-line', '--prefix-token', 'eos'], { input: 'Rome\n\nParis\n' })
  expect(jsonLines(byLine.stdout).map(({ index, count: scored }) => [index, Number(scored) > 0]))
    .toEqual([[0, true], [1, false], [2, true]])
  const pairs = [
    { id: 'right', context: 'Beijing is the', continuation: ' capital' },
    { id: 'wrong', context: 'Beijing is the', continuation: ' zebra' }, 'Rome is the',
    { tokens: [999_999] },
  ]
  const { status, stdout, stderr } = await polylm(['score', '--demo', '-', '--format', 'jsonl'], {
    input: pairs.map(pair => JSON.stringify(pair)).join('\n'),
  })
  const scored = jsonLines(stdout) as { id?: string; logprob: number; error?: { code: string } }[]
  expect(scored.map(({ id }) => id)).toEqual(['right', 'wrong', undefined, undefined])
  expect([status, scored[3]?.error?.code]).toEqual([1, 'INVALID_PROMPT'])
  expect(stderr).toContain('1 of 4 failed')
  expect(scored[0]?.logprob).toBeGreaterThan(scored[1]?.logprob ?? 0)
})

test('score refuses what it does not understand, before it loads anything', async () => {
  const { status, stderr } = await polylm(['score', '--demo', '-', '--format', 'jsonl'], { input: '"a"\n{"contxt":"a"}\n' })
  expect([status, stderr]).toEqual([2, expect.stringContaining('standard input:2 is neither text') as string])
})

test('a reader that goes away ends the program quietly', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'polylm-'))
  try {
    const input = path.join(folder, 'in.jsonl')
    writeFileSync(input, Array.from({ length: 200 }, (_, i) => `{"prompt":"${i} is","options":{"maxTokens":8}}\n`).join(''))
    const line = `"${process.execPath}" "${program}" generate --demo --input "${input}" | head -n 1`
    const { status, stdout, stderr } = await execute('bash', ['-c', `set -o pipefail; ${line}`])
    expect(jsonLines(stdout)).toHaveLength(1)
    expect(stderr).not.toMatch(/EPIPE|Warning|^\s+at /m)
    expect(status).toBe(0)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
