// cli-streams.test.ts: what goes wrong around the program: full disks, pipes that close, files that cannot be read,
// standard input that nobody announced, prompts that look like options; and the terminal, under `script`.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { execute, jsonLines, polylm, program } from './cli-program.js'

let folder: string
beforeAll(() => { folder = mkdtempSync(path.join(tmpdir(), 'polylm-')) })
afterAll(() => { rmSync(folder, { recursive: true }) })
const file = (name: string, content: string | Buffer): string => {
  writeFileSync(path.join(folder, name), content)
  return path.join(folder, name)
}
const shell = (line: string, ...args: string[]): ReturnType<typeof execute> =>
  execute('bash', ['-c', `set -o pipefail; ${line}`, 'bash', process.execPath, program, ...args])
const lines = (): string => file('lines.txt', 'Rome is\nParis is\n')

/** One run of each command that prints something. */
const everyCommand = (): [string, ...string[]][] => [
  ['--help'], ['generate', '--demo', 'Rome is', '--max-tokens', '2'],
  ['generate', '--demo', '--input', lines(), '--max-tokens', '2'], ['score', '--demo', lines(), '--by-line'],
  ['inspect', '--demo'], ['doctor'], ['bench', '--limits', '--smoke', '--shape', 'tiny'],
]

if (process.platform === 'linux') {
  test('a full disk under standard output is a typed error of every command', async () => {
    for (const args of everyCommand()) {
      const { status, stderr } = await shell('"$@" < /dev/null > /dev/full', ...args)
      expect([args[0], stderr]).toEqual([args[0], expect.stringMatching(
        /^error \[DISK_FULL\]: standard output cannot be written: no space is left on the device\nhint: /m) as string])
      expect([stderr.match(/^error/gm)?.length, /^\s+at /m.test(stderr), status]).toEqual([1, false, 1])
    }
  })

  test('a full disk under a file, and a reader of it that goes away', async () => {
    const batch = ['generate', '--demo', '--input', lines(), '--max-tokens', '2']
    for (const flag of ['--output', '--output-text']) {
      const { status, stderr } = await polylm([...batch, flag, '/dev/full'])
      expect([status, stderr]).toEqual([1, expect.stringContaining('error [DISK_FULL]: "/dev/full" cannot be written') as string])
    }
    const { status, stderr } = await shell('"$@" --output >(true)', ...batch)
    expect([status, stderr]).toEqual([1, expect.stringMatching(/error \[FILE_IO\]: .*its reader closed it\nhint: /) as string])
    const svg = await polylm(['bench', '--shape', 'tiny', '--smoke', '--svg', path.join(folder, 'none/x.svg')])
    expect([svg.status, svg.stdout, svg.stderr]).toEqual([1, '', expect.stringContaining('its folder does not exist') as string])
  })

  test('a reader of standard output that goes away ends every command quietly', async () => {
    for (const args of everyCommand()) {
      const { status, stderr } = await shell('"$@" < /dev/null | true', ...args)
      expect([args, status, /error|EPIPE|^\s+at /m.test(stderr)]).toEqual([args, 0, false])
    }
  })
}

test('every file argument of every command: missing, a folder, not UTF-8', async () => {
  const utf16 = file('utf16.txt', Buffer.from('\ufeffRome', 'utf16le'))
  for (const before of [['score', '--demo'], ['generate', '--demo', '--messages'], ['generate', '--demo', '--input']]) {
    const failures: [string, RegExp][] = [
      ['/nofile', /^error \[FILE_NOT_FOUND\]: "\/nofile" does not exist\nhint: check the path\n$/],
      [folder, /^error \[FILE_IO\]: ".*" is a directory, expected a file\nhint: /],
      [utf16, /^error \[HEADER_UTF8\]: .* is not UTF-8 text\nhint: .*iconv -f UTF-16/],
    ]
    for (const [name, message] of failures) {
      const { status, stdout, stderr } = await polylm([...before, name])
      expect([before, status, stdout, stderr]).toEqual([before, 1, '', expect.stringMatching(message) as string])
    }
  }
  for (const model of ['/nofile', lines()]) {
    const { status, stderr } = await polylm(['inspect', model])
    expect([status, stderr]).toEqual([1, expect.stringMatching(/^error \[\w+\]: (?!ENOENT|ENOTDIR)/) as string])
  }
})

test('standard input is read where a text is missing; when it is empty, the text is missing', async () => {
  const flags = ['--max-tokens', '4']
  const argument = await polylm(['generate', '--demo', 'Rome is', ...flags])
  const piped = await polylm(['generate', '--demo', ...flags], { input: 'Rome is\n' })
  expect([piped.status, piped.stdout]).toEqual([0, argument.stdout])
  const scored = await polylm(['score', '--demo'], { input: 'Rome is the capital of Italy.' })
  expect([scored.status, jsonLines(scored.stdout)]).toEqual([0, [expect.objectContaining({ index: 0 })]])
  const empty = await polylm(['score', '--demo'])
  expect([empty.status, empty.stderr]).toEqual([2, expect.stringContaining('standard input is empty') as string])
})

test('a prompt that begins with a dash: what to do is said, and it works', async () => {
  for (const prompt of ['-5 degrees', '- a list', '--- three dashes']) {
    const { status, stderr } = await polylm(['generate', '--demo', prompt])
    expect([status, stderr]).toEqual([2, expect.stringContaining('hint: text that begins with - goes behind --') as string])
  }
  expect((await polylm(['generate', '--demo', 'x', '--topk', '3'])).stderr).not.toContain('behind --')
  const { status, stdout } = await polylm(['generate', '--demo', '--max-tokens', '3', '--', '-5 degrees'])
  expect([status, stdout.length > 1]).toEqual([0, true])
})

test('score by line keeps the alignment: row k is line k', async () => {
  const input = file('by-line.txt', '\nRome is\r\n  \n\nParis is')
  const { status, stdout } = await polylm(['score', '--demo', input, '--by-line', '--logprobs', '0'])
  const rows = jsonLines(stdout)
  expect([status, rows.map(({ index, count }) => [index, Number(count) > 0])])
    .toEqual([0, [[0, false], [1, true], [2, false], [3, false], [4, true]]])
  expect(Object.keys(rows[0] ?? {})).toEqual(Object.keys(rows[1] ?? {}))
  const json = await polylm(['score', '--demo', file('x.jsonl', '"a"\n'), '--by-line'])
  expect([json.status, json.stderr]).toEqual([2, expect.stringContaining('--by-line is for plain text') as string])
})

test('inspect shows what the model uses, in words; doctor says which polylm it is', async () => {
  const { stdout } = await polylm(['inspect', '--demo'])
  expect(stdout).toMatch(/^stop ids +3071, 2 "<\/s>"$/m)
  expect(stdout).toMatch(/^tokenizer +3,072 pieces; bos 1 "<s>", eos 2 "<\/s>", unk 0 "<unk>", no pad$/m)
  const json = JSON.parse((await polylm(['inspect', '--demo', '--json'])).stdout) as Record<string, unknown>
  expect(json).toMatchObject({ stopTokenIds: [3071, 2], tokenizer: { specialTokens: { eos: { id: 2, content: '</s>' } } } })
  const version = (await polylm(['--version'])).stdout.trim()
  expect((await polylm(['doctor'])).stdout).toContain(`polylm       ${version}\n`)
  expect(JSON.parse((await polylm(['doctor', '--json'])).stdout)).toMatchObject({ polylm: { version } })
})

if (existsSync('/usr/bin/script') && process.platform === 'linux') {
  test('on a terminal: a bar with the time left that goes away, in any width; no colours where they are not wanted', async () => {
    // So many that the bar is drawn while they are answered, on any machine.
    const input = file('many.txt', Array.from({ length: 400 }, (_, i) => `${i} is\n`).join(''))
    const command = (columns: number, args: string): ReturnType<typeof execute> => execute('script', ['-qec',
      `stty cols ${columns}; "${process.execPath}" "${program}" ${args}`, '/dev/null'], { env: { TERM: 'xterm', NO_COLOR: '1' } })
    const output = path.join(folder, 'terminal.jsonl')
    const { status, stdout } = await command(40, `generate --demo --input "${input}" --output "${output}" --min-tokens 24 --max-tokens 24`)
    expect(status).toBe(0)
    expect(stdout).toMatch(/generating \d+% \d+ of 400, about \d+ s left/)
    // eslint-disable-next-line no-control-regex
    const drawn = stdout.split(/\x1b\[1G/).map(part => part.replace(/\x1b\[[\d;?]*[A-Za-z]|\x1b\d/g, '').split('\r\n')[0] ?? '')
    expect(Math.max(...drawn.filter(part => /^(loading|generating)/.test(part)).map(part => part.length))).toBeLessThan(40)
    expect(stdout.slice(stdout.lastIndexOf('\x1b[2K'))).toMatch(/^\x1b\[2K400 answered, /)
    expect((await command(80, 'doctor')).stdout).not.toContain('\x1b[3')
  })
}
