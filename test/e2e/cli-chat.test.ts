// cli-chat.test.ts: `polylm chat` as a program: messages and commands from a pipe, and a person at a terminal, who is
// played by util-linux' `script`; without it those tests are skipped.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { demoPrompts } from '../../lib/cli/chat-banner.js'
import { execute, fixture, polylm, program } from './cli-program.js'

const folder = mkdtempSync(path.join(tmpdir(), 'polylm-'))
const file = path.join(folder, 'a chat.plm')
afterAll(() => { rmSync(folder, { recursive: true }) })

const talk = (args: readonly string[], input: string): ReturnType<typeof polylm> =>
  polylm(['chat', '--demo', '--max-tokens', '20', ...args], { input })
const lines = (...all: string[]): string => all.map(line => `${line}\n`).join('')
const chat = (...all: string[]): ReturnType<typeof polylm> => talk(['--commands'], lines(...all))
const [first, second] = ['Rome is the capital of Italy.', 'Translate this sentence from English to German.']
const german = 'Rom ist die Hauptstadt von Italien.'

describe('commands from a pipe', () => {
  test('undo makes the next answer the one without what was said', async () => {
    const straight = await chat(first, second)
    const undone = await chat(first, 'something else', '/undo', second)
    expect([straight.status, undone.status]).toEqual([0, 0])
    const answers = straight.stdout.split('\n')
    const after = undone.stdout.split('\n')
    expect([after[0], after.slice(-2)]).toEqual([answers[0], answers.slice(-2)])
    expect(undone.stderr).toContain('the last message is forgotten')
    expect((await chat('/undo')).stderr).toContain('the conversation is empty')
  })

  test('a saved conversation goes on in another process', async () => {
    const straight = await chat(first, second)
    const saved = await chat(first, `/save ${file}`)
    expect([saved.status, existsSync(file)]).toEqual([0, true])
    const loaded = await chat(`/load ${file}`, second)
    expect(loaded.status).toBe(0)
    expect(loaded.stderr).toContain('2 messages from')
    expect(saved.stdout + loaded.stdout).toBe(straight.stdout)
  })

  test('retry answers again with a new seed, and the old answer is gone', async () => {
    const sampled = await talk(['--commands', '--temperature', '2', '--seed', '7'], lines(first, '/retry', '/retry', '/undo', '/undo'))
    expect(sampled.status).toBe(0)
    expect(new Set(sampled.stdout.trimEnd().split('\n')).size).toBeGreaterThan(1)
    expect(sampled.stderr.split('\n').slice(0, 2)).toEqual(['the last message is forgotten', 'the conversation is empty'])
    expect((await chat(first, '/retry')).stderr).toContain('the same answer again')
  })

  test.each([
    ['/save', 2, '/save needs a file'], ['/set temperature x', 2, 'INVALID_OPTION'],
    ['/retry', 2, 'nothing to retry'], ['/load /none/x', 1, 'FILE_NOT_FOUND'], [`/load ${folder}`, 1, 'FILE_IO'],
    [`/save ${folder}`, 1, 'is a directory'], [`/save ${folder}/none/x`, 1, 'its folder does not exist'],
    [`/save ${program}`, 1, 'is not a saved conversation'], ['/save /dev/null', 1, 'is not a saved conversation'],
  ])('%s ends the program', async (command, code, text) => {
    const { status, stdout, stderr } = await chat(command, first)
    expect([status, stdout]).toEqual([code, ''])
    expect(stderr).toContain(text)
    expect(stderr).toContain('hint: ')
  })

  test('a damaged file and one of another model are refused', async () => {
    writeFileSync(path.join(folder, 'x'), 'x')
    expect((await chat(`/load ${path.join(folder, 'x')}`)).stderr).toMatch(/SESSION_FILE[^]*hint: /)
    const other = await polylm(['chat', fixture('gpt2-tiny'), '--commands'], { input: `/load ${file}\n` })
    expect(other.status).toBe(1)
    expect(other.stderr).toMatch(/SESSION_FILE[^]*was saved with the weights[^]*hint: /)
  })
})

describe('messages from a pipe', () => {
  test('lines that are joined', async () => {
    const { status, stdout } = await talk([], lines(`${first}\\`, second, '/undo', '', '"""', first, '', second, '"""'))
    const answers = stdout.trimEnd().split('\n')
    expect([status, answers.length, answers[0]]).toEqual([0, 3, german])
  })

  test('a line is a message whatever it holds', async () => {
    const { status, stdout, stderr } = await talk([], lines('a\u2028b\u2029c', '/etc/hosts', '/undo', '/load x'))
    expect([status, stdout.split('\n').length]).toEqual([0, 5])
    expect(stderr).toBe('line 3 is a message although it begins with a command; --commands runs commands\n')
  })

  test('a block that is not closed fails', async () => {
    const { status, stderr } = await talk([], lines('"""', 'open'))
    expect([status, stderr]).toEqual([2, expect.stringContaining('inside a block')])
  })

  test.each(['assistant', 'multialpaca', 'none'])('a full context forgets the oldest turns and says so: %s', async template => {
    const input = lines(...Array.from({ length: 12 }, () => [`${first}\\`, second]).flat())
    const { status, stdout, stderr } = await talk(['--template', template], input)
    expect(status).toBe(0)
    expect(stderr).toMatch(/^the context of 256 tokens was full: the oldest (turn was|\d turns were) forgotten$/m)
    if (template !== 'none') expect(stdout.match(/^Rom/gm)).toHaveLength(12)    // the demo cannot do that many as one text
    expect(stdout.split('\n').length).toBeGreaterThan(12)
  })

  test('unless that is not wanted; a message alone may be too long', async () => {
    const input = lines(...Array.from({ length: 12 }, () => [`${first}\\`, second]).flat())
    const strict = await talk(['--on-overflow', 'error'], input)
    expect([strict.status, strict.stderr]).toEqual([1, expect.stringMatching(/CONTEXT_OVERFLOW[^]*hint: (?!.*truncateLeft)/)])
    const long = await talk([], lines('word '.repeat(400)))
    expect([long.status, long.stderr]).toEqual([1, expect.stringMatching(/CONTEXT_OVERFLOW[^]*hint: shorten/)])
  })

  test.each([['--n', '3'], ['--logprobs', '2'], ['--on-overflow', 'truncateLeft']])('%s %s is refused', async (...flags) => {
    const { status, stdout, stderr } = await talk(flags, lines(first))
    expect([status, stdout, stderr]).toEqual([2, '', expect.stringContaining(flags[0] ?? '')])
  })

  test('help names commands and keys', async () => {
    const { stdout } = await polylm(['chat', '--help'])
    for (const name of ['/undo', '/retry', '/reset', '/set', '/save FILE', '/load FILE', '/exit', '"""', '--commands', 'history']) {
      expect(stdout).toContain(name)
    }
  })
})

// ---------------------------------------------------------------------------------------------- a terminal

const hasScript = ((): boolean => {
  try {
    return execFileSync('script', ['--version'], { encoding: 'utf8' }).includes('util-linux')
  } catch {
    return false
  }
})()

/** What to type when a text has appeared behind what was there before. */
type Step = readonly [appears: string, typed: string]

/** Runs the chat on a terminal; gives what was shown, without the codes that move the cursor, and the exit code. */
async function person(
  steps: readonly Step[], args: readonly string[] = [], stdout = '',
): Promise<{ shown: string, status: number | null }> {
  const command = `stty cols 200; exec ${[process.execPath, program, 'chat', '--demo', ...args].map(one => `'${one}'`).join(' ')}${stdout}`
  const left = [...steps]
  let seen = 0
  // eslint-disable-next-line no-control-regex
  const plain = (text: string): string => text.replace(/\x1b\[[0-9;?]*[A-Za-z]|\x1b[78]|\r/g, '')
  const { status, stdout: all } = await execute('script', ['-qec', command, '/dev/null'], {
    openInput: true, env: { XDG_STATE_HOME: folder, NO_COLOR: '1', TERM: 'xterm', SHELL: '/bin/sh' },
    watch: (child, text) => {
      const shown = plain(text)
      for (let step = left[0]; step !== undefined; step = left[0]) {
        const at = shown.indexOf(step[0], seen)
        if (at < 0) return
        seen = at + step[0].length
        left.shift()
        child.stdin?.write(step[1])
      }
    },
  })
  return { shown: plain(all), status }
}

const onTerminal = hasScript ? test : xtest
const paste = (text: string): string => `\x1b[200~${text.replaceAll('\n', '\r')}\x1b[201~`

describe('a person at a terminal', () => {
  onTerminal('types, pastes, recalls, and leaves', async () => {
    const { shown, status } = await person([
      ['> ', `${first}\\\r`], ['\n', `${second}\r`], [german, ''], ['> ', paste(`${first}\n${second}`)], [second, '\r'],
      [german, ''], ['> ', 'half typed'], ['half typed', '\x03'], ['^C', ''], ['> ', '\x1b[A'], [second, '\r'], [german, ''],
      ['> ', '/undoo\r'], ['did you mean /undo?', ''], ['> ', '/set temperature x\r'], ['must be a number', ''],
      ['> ', '/load /none/x\r'], ['FILE_NOT_FOUND', ''], ['> ', '/exit\r'],
    ])
    expect(status).toBe(0)
    for (const prompt of demoPrompts) expect(shown).toContain(prompt)
    expect(shown).toMatch(/polylm demo\n3\.49 million parameters, 256 tokens of context/)
    expect(shown).toContain('(35 of 256 tokens used)')
    expect(shown).toContain('(103 of 256 tokens used)')
    const history = path.join(folder, 'polylm', 'history')
    expect(readFileSync(history, 'utf8').split('\n').slice(0, 2)).toEqual([JSON.stringify(`${first}\n${second}`), '"/undoo"'])
    expect(statSync(history).mode & 0o777).toBe(0o600)
    const later = await person([['> ', '\x1b[A\x1b[A'], ['/load', '\x03'], ['> ', `${paste('ab\ncd')}\x1b[D\x1b[A\x1b[AX`],
      ['cdX', '\x03'], ['> ', '\x03'], ['Ctrl-C again', '\x03']])
    expect([later.status, later.shown]).toEqual([0, expect.stringContaining('/load /none/x')])
  })

  onTerminal('Ctrl-C stops an answer, Ctrl-D leaves', async () => {
    const args = ['--min-tokens', '200', '--device', 'ref', '--temperature', '1']
    const { shown, status } = await person([['> ', 'Hello\r'], ['Hello\n', '\x03'], ['(stopped, ', ''], ['> ', '\x04']], args)
    expect([status, shown]).toEqual([0, expect.stringContaining('(stopped, ')])
  })

  onTerminal('an output that cannot be written ends the conversation', async () => {
    const { shown, status } = await person([['> ', 'Hello\r']], [], ' >/dev/full')
    expect([status, shown]).toEqual([1, expect.stringContaining('DISK_FULL')])
  })
})
