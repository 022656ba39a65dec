// cli-chat.test.ts: the parts of `polylm chat` that need no terminal: messages of several lines, keys, commands,
// completion, options, the history, the banner.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import path from 'node:path'
import { banner, demoPrompts, inWords, modelName } from '../../lib/cli/chat-banner.js'
import { chatCommands, complete, isCommand, readCommand } from '../../lib/cli/chat-commands.js'
import { enter, isOpen, Keys, lineAway, LineJoiner, messageOf } from '../../lib/cli/chat-draft.js'
import type { Action } from '../../lib/cli/chat-draft.js'
import { History, historyFile, maxEntries } from '../../lib/cli/chat-history.js'
import { refuseOptions, Settings, settingNames, settingValues } from '../../lib/cli/chat-settings.js'
import { helpText, wrap } from '../../lib/cli/chat-talk.js'
import { demoModel } from '../../lib/index.js'
import type { Model } from '../../lib/index.js'

const folder = mkdtempSync(path.join(tmpdir(), 'polylm-'))
afterAll(() => { rmSync(folder, { recursive: true }) })

describe('messages of several lines', () => {
  test.each([
    ['a', false], ['a\\', true], ['a\\\\', false], ['a\\\\\\', true], ['a\\ ', false], ['a\nb\\', true],
    ['"""', true], ['"""a', true], ['"""a\nb', true], ['"""a\nb"""', false], ['""""""', false], [' """a\n""" ', false],
    ['"""a\\', true], ['"""a\\"""', false], ['a """', false], ['""""', true],
  ])('%j: %s', (text, open) => {
    expect(isOpen(text)).toBe(open)
    expect(enter(text, text.length) !== undefined).toBe(open)
  })

  test('Enter takes the backslash away; in a block it is where the cursor is', () => {
    expect(enter('ab\\', 1)).toEqual({ more: 'ab\n', cursor: 3 })
    expect(enter('"""ab', 4)).toEqual({ more: '"""a\nb', cursor: 5 })
  })

  test.each([
    ['a', 'a'], ['"""\na\nb\n"""', 'a\nb'], ['"""a\n b"""', 'a\n b'], [' """ \n\na\n\n """ ', '\na\n'], ['""""""', ''],
    ['"""open', '"""open'], ['a\n"""', 'a\n"""'], ['"""\n/undo\n"""', '/undo'],
  ])('%j says %j', (text, message) => {
    expect(messageOf(text)).toBe(message)
  })

  test('up and down go through the lines', () => {
    const moves = (text: string): Array<[number | undefined, number | undefined]> =>
      [...text, ''].map((_, cursor) => [lineAway(text, cursor, -1), lineAway(text, cursor, 1)])
    expect(moves('ab')).toEqual([[undefined, undefined], [undefined, undefined], [undefined, undefined]])
    expect(moves('ab\nc')).toEqual([[undefined, 3], [undefined, 4], [undefined, 4], [0, undefined], [1, undefined]])
    expect(moves('\n\na')).toEqual([[undefined, 1], [0, 2], [1, undefined], [1, undefined]])
  })

  test('lines from a pipe are joined as they are at the prompt', () => {
    const joiner = new LineJoiner()
    const lines = ['one', 'two\\', 'three', '"""four', 'five\\', 'six"""', 'seven\\\\', '\u2028eight\u2029']
    const texts = lines.map(line => joiner.add(line)).filter(text => text !== undefined)
    expect(texts).toEqual(['one', 'two\nthree', '"""four\nfive\\\nsix"""', 'seven\\\\', '\u2028eight\u2029'])
    expect(joiner.end()).toBeUndefined()
    expect([joiner.add('last\\'), joiner.end()]).toEqual([undefined, 'last'])
    joiner.add('"""')
    expect(() => joiner.end()).toThrow('inside a block')
  })
})

describe('keys', () => {
  const key = (name: string, more: object = {}): [undefined, { name: string }] => [undefined, { name, ...more }]
  const press = (...keys: Array<[string | undefined, { name?: string }]>): Action[] => {
    const made = new Keys()
    return keys.map(([text, pressed]) => made.press(text, pressed)).filter(action => action.do !== 'nothing')
  }

  test('a paste arrives whole, without what is not text', () => {
    const pasted = press(key('paste-start'), ['a', {}], ['\t', { name: 'tab' }], ['\r', { name: 'return' }],
      ['\n', { name: 'enter' }], ['\u2028', {}], ['\x1b', { name: 'escape' }], key('up'), ['\n', { name: 'enter' }],
      ['é', {}], key('paste-end'), ['\r', { name: 'return' }])
    expect(pasted).toEqual([{ do: 'insert', text: 'a\t\n\u2028\né' }, { do: 'enter' }])
    expect(press(key('paste-start'), key('paste-end'))).toEqual([])
  })

  test('Ctrl-C ends a paste that never ends', () => {
    expect(press(key('paste-start'), ['a', {}], key('c', { ctrl: true }), ['b', {}])).toEqual([{ do: 'interrupt' }, { do: 'edit' }])
  })

  test('Enter, and what is not quite Enter', () => {
    expect(press(['\r', { name: 'return' }], ['\n', { name: 'enter' }])).toEqual([{ do: 'enter' }])
    expect(press(['\n', { name: 'enter' }], ['\n', { name: 'enter' }])).toEqual([{ do: 'enter' }, { do: 'enter' }])
    expect(press(key('return', { meta: true }))).toEqual([{ do: 'insert', text: '\n' }])
    expect(press(['\u2028', {}], ['x', { name: 'x' }])).toEqual([{ do: 'insert', text: '\u2028' }, { do: 'edit' }])
    expect(press(key('up'), key('down'), key('up', { ctrl: true }))).toEqual([{ do: 'up' }, { do: 'down' }, { do: 'edit' }])
    expect(press(key('z', { ctrl: true }), key('d', { ctrl: true }))).toEqual([{ do: 'suspend' }, { do: 'edit' }])
  })
})

describe('commands', () => {
  test('are read with the rest of the line as argument', () => {
    expect(readCommand('/save  a chat.plm ')).toEqual({ name: '/save', argument: 'a chat.plm' })
    expect(readCommand('/quit')).toEqual({ name: '/exit', argument: '' })
    expect(readCommand('/load ~/x').argument).toBe(path.join(homedir(), 'x'))
    expect(readCommand('/set a b').argument).toBe('a b')
    expect(['/undo', '/undo x', '/undone', 'undo', '/etc/hosts'].map(isCommand)).toEqual([true, true, false, false, false])
  })

  test.each([
    ['/undoo', 'did you mean /undo?'], ['/sav x', 'did you mean /save?'], ['/r', 'did you mean /retry?'],
    ['/etc/hosts is a file', 'unknown command "/etc/hosts"'], ['/', 'unknown command "/"'], ['/save', '/save needs a file'],
    ['/undo 2', '/undo stands alone'],
  ])('%s: %s', (line, text) => {
    expect(() => readCommand(line)).toThrow(text)
  })

  test('help fits the terminal', () => {
    for (const columns of [40, 60, 80]) {
      const lines = helpText(columns).split('\n')
      expect(Math.max(...lines.map(line => line.length))).toBeLessThanOrEqual(columns)
      for (const [name] of chatCommands) expect(lines.some(line => line.startsWith(name))).toBe(true)
    }
    expect(wrap('a bb ccc', 6, 1)).toBe(' a bb\n ccc')
    expect(wrap('a word longer than the line', 4).split('\n')).toHaveLength(6)
  })
})

describe('completion', () => {
  const list = (of: string): string[] => ({ '.': ['b.plm', 'a.plm', 'lib/', '.git/', 'bad\nname'], 'lib/': ['cli/', 'x'] })[of] ?? []
  test.each<[string, string[], string]>([
    ['/s', ['/set ', '/save '], '/s'], ['/und', ['/undo'], '/und'], ['/x', [], '/x'], ['hello', [], 'hello'], ['', [], ''],
    ['/save ', ['a.plm', 'b.plm', 'lib/'], ''], ['/load lib/', ['lib/cli/', 'lib/x'], 'lib/'], ['/load .', ['.git/'], '.'],
    ['/save none/', [], 'none/'], ['/undo x', [], '/undo x'], ['/set temper', ['temperature '], 'temper'],
    ['/set speculate ', ['lookup', 'default'], ''], ['/set include-stop t', ['true'], 't'], ['/set nonsense ', [], ''],
  ])('%j', (line, found, replaced) => {
    expect(complete(line, list)).toEqual([found, replaced])
  })

  test('reads folders, and those that are not there', () => {
    expect(complete(`/load ${folder}/`)[0]).toEqual([])
    mkdirSync(path.join(folder, 'sub'))
    expect(complete(`/load ${folder}/s`)[0]).toEqual([`${folder}/sub/`])
    expect(complete(`/load ${folder}/none/`)[0]).toEqual([])
  })
})

describe('/set', () => {
  test('reads values as the flags do', () => {
    const settings = new Settings({ maxTokens: 9, onOverflow: 'error' })
    const set = (text: string): string => settings.command(text)
    expect(set('')).toContain('max-tokens 9\n')
    expect(set('temperature 0.5')).toBe('temperature 0.5')
    for (const text of ['topP .9', '--top-k 3', 'stop "\\n"', 'stop_token_ids 2,3', 'include-stop on', 'parse-special false',
      'no-repeat-ngram-size 2', 'presence-penalty -1', 'bias [[1,"-inf"]]', 'early-stopping never']) set(text)
    expect(settings.options).toEqual({
      maxTokens: 9, onOverflow: 'error', temperature: 0.5, topP: 0.9, topK: 3, stop: ['\n'], stopTokenIds: [2, 3], includeStop: true,
      parseSpecial: false, noRepeatNgramSize: 2, presencePenalty: -1, bias: [[1, -Infinity]], earlyStopping: 'never',
    })
    expect(set('max-tokens default')).toBe('max-tokens has its default')
    expect(settings.options.maxTokens).toBeUndefined()
    expect(set('bias')).toBe('bias [[1,"-inf"]]')
    expect(new Settings({}).command('')).toContain('every option has its default')
  })

  test.each([
    ['temp 1', 'did you mean temperature?'], ['temprature 1', 'did you mean temperature?'], ['xyzzy 1', 'not a decoding option'],
    ['temperature abc', 'temperature: found "abc"; it must be a number'], ['top-p 2', 'top-p: found "2"; it must be from 0 to 1'],
    ['include-stop maybe', 'true or false'], ['speculate x', 'lookup'], ['stop "\\x"', 'JSON string'], ['n 3', 'one answer'],
    ['logprobs 1', 'text alone'], ['on-overflow error', 'cannot be set here'], ['__proto__ 1', 'not a decoding option'],
  ])('%s is refused and changes nothing', (text, message) => {
    const settings = new Settings({ seed: 1 })
    expect(() => settings.command(text)).toThrow(expect.objectContaining({ code: 'INVALID_OPTION', hint: expect.any(String) }) as Error)
    expect(() => settings.command(text)).toThrow(message)
    expect(settings.options).toEqual({ seed: 1 })
  })

  test('knows every option but those that a conversation refuses', () => {
    expect(settingNames).toEqual(expect.arrayContaining(['temperature', 'no-repeat-ngram-size', 'add-special-tokens']))
    for (const name of ['n', 'logprobs', 'on-overflow']) expect(settingNames).not.toContain(name)
    expect(settingValues('add-special-tokens')).toEqual(['true', 'false', 'default'])
    expect(() => { refuseOptions({ n: 3 }) }).toThrow('--n 3: a conversation goes on with one answer')
    expect(() => { refuseOptions({ logprobs: 0 }) }).toThrow('text alone')
    expect(() => { refuseOptions({ onOverflow: 'truncateLeft' }) }).toThrow('whole turns')
    expect(() => { refuseOptions({ n: 1, onOverflow: 'error', temperature: 1 }) }).not.toThrow()
  })
})

describe('history', () => {
  const file = path.join(folder, 'state', 'polylm', 'history')
  afterEach(() => { rmSync(path.join(folder, 'state'), { recursive: true, force: true }) })

  test('keeps messages of several lines, the newest first, for their owner alone', () => {
    const history = new History(file)
    expect(history.load()).toEqual([])
    for (const entry of ['one', 'two\nlines \u2028', 'two\nlines \u2028', ' ', 'three']) history.add(entry)
    expect(new History(file).load()).toEqual(['three', 'two\nlines \u2028', 'one'])
    if (process.platform !== 'win32') {
      expect([statSync(file).mode & 0o777, statSync(path.dirname(file)).mode & 0o777]).toEqual([0o600, 0o700])
    }
  })

  test('is bounded, and survives lines that are damaged', () => {
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(file, `"cut\n{}\n\n"good"\n\xff\n`, { mode: 0o644 })
    const history = new History(file)
    expect(history.load()).toEqual(['good'])
    for (let i = 0; i < 120; i++) history.add(`${i} ${'x'.repeat(10_000)}`)
    expect(statSync(file).size).toBeLessThan(1_100_000)
    history.add('y'.repeat(100_000))
    expect(new History(file).load()[0]).toMatch(/^119 /)
    writeFileSync(file, Array.from({ length: 3000 }, (_, i) => `"${i}"\n`).join(''))
    expect(new History(file).load()).toHaveLength(maxEntries)
    expect(existsSync(`${file}.${process.pid}.tmp`)).toBe(false)
  })

  test('never fails and follows no link', () => {
    writeFileSync(path.join(folder, 'file'), '"mine"\n')
    for (const place of [undefined, folder, path.join(folder, 'file', 'x'), '/dev/null/x', '/proc/none/x']) {
      const history = new History(place)
      expect(history.load()).toEqual([])
      history.add('x')
    }
    mkdirSync(path.dirname(file), { recursive: true })
    if (process.platform === 'win32') return
    symlinkSync(path.join(folder, 'file'), file)
    new History(file).add('x')
    expect(readFileSync(path.join(folder, 'file'), 'utf8')).toBe('"mine"\n')
  })

  test('its place', () => {
    if (process.platform === 'win32') return
    expect(historyFile({ XDG_STATE_HOME: '/state' })).toBe('/state/polylm/history')
    const own = path.join(homedir(), '.local', 'state', 'polylm', 'history')
    expect([historyFile({}), historyFile({ XDG_STATE_HOME: 'relative' })]).toEqual([own, own])
  })
})

describe('banner', () => {
  const info = {
    parameters: 1_742_500_000, contextSize: 2048, dtype: 'bf16', device: { kind: 'cpu', name: 'AMD EPYC', isa: 'avx2' },
  } as Model['info']
  test('names the model, its size and device', () => {
    expect(banner('/models/polylm-1.7b/', info)).toMatch(
      /^polylm-1\.7b\n1\.74 billion parameters, 2,048 tokens of context, bf16 on AMD EPYC, cpu\s\(avx2\)\n/)
    expect(modelName('/c/hub/models--DAMO-NLP-MT--polylm-13b/snapshots/0123abc')).toBe('DAMO-NLP-MT/polylm-13b')
    expect([999, 3_486_208, 13e9].map(inWords)).toEqual(['999', '3.49 million', '13.0 billion'])
  })

  test('the demo says what it can do', () => {
    const text = banner(demoModel, info, 40)
    expect(text).toContain('polylm demo')
    for (const prompt of demoPrompts) expect(text).toContain(prompt)
    const wide = text.split('\n').filter(line => line.length > 40)
    expect(wide.every(line => demoPrompts.some(prompt => prompt.includes(line)))).toBe(true)
  })
})
