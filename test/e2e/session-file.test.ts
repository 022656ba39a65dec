// session-file.test.ts: conversations on disk: what comes back is what was saved, and of everything else it is said what is wrong.
import { execFile, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Model, type Message, type Session } from '../../lib/index.js'
import { decodeSession } from '../../lib/session-file.js'
import { example, failure, loadDemo, loadTiny, sleep, tinyDir } from './models.js'

let model: Model
const folder = mkdtempSync(path.join(tmpdir(), 'polylm-'))
const file = (name: string): string => path.join(folder, name)
beforeAll(async () => { model = await loadDemo() })
afterAll(async () => {
  await model.dispose()
  rmSync(folder, { recursive: true })
})

const options = { maxTokens: 20 }
const question = 'Rome is the capital of Italy.\nTranslate this sentence from English to German.'
const leftovers = (): string[] => readdirSync(folder).filter(name => name.endsWith('.tmp'))

describe('what was saved', () => {
  test.each(['assistant', 'multialpaca', 'none'] as const)('with %s goes on as if nothing had been', async template => {
    const history: Message[] = [{ role: 'user', content: 'a\ud800\0"\\' }, { role: 'assistant', content: '北京 \u2028 é' }]
    const chat = model.createSession({ template, history })
    await chat.send(example, options)
    if (template === 'none') await chat.append({ tokens: [5, 6, 7] })
    await chat.save(file('round.plm'))
    const again = await model.restoreSession(file('round.plm'))
    expect(Array.from(again.tokens)).toEqual(Array.from(chat.tokens))
    expect(again.history.slice(1)).toEqual(chat.history.slice(1))
    expect(again.history[0]?.content).toBe('a\ufffd\0"\\')
    const [a, b] = await Promise.all([chat, again].map(session => session.send(question, options)))
    expect(b?.outputs[0]?.tokens).toEqual(a?.outputs[0]?.tokens)
    expect(Array.from(again.tokens)).toEqual(Array.from(chat.tokens))
    await Promise.all([chat, again].map(session => session.rewind({ turns: 2 })))
    expect(Array.from(again.tokens)).toEqual(Array.from(chat.tokens))
  })

  test('is in the order of the calls, and kilobytes', async () => {
    const chat = model.createSession()
    const calls = [chat.send(example, options), chat.save(file('order.plm')), chat.rewind({ turns: 1 })]
    await Promise.all(calls)
    expect(chat.history).toEqual([])
    expect((await model.restoreSession(file('order.plm'))).history).toHaveLength(2)
    expect(statSync(file('order.plm')).size).toBeLessThan(2000)
    if (process.platform !== 'win32') expect(statSync(file('order.plm')).mode & 0o777).toBe(0o600)
    expect(leftovers()).toEqual([])
  })

  test('keeps the overflow rule, which restoreSession may change, and not the salt', async () => {
    const history = Array.from({ length: 24 }, (_, i): Message =>
      ({ role: i % 2 === 0 ? 'user' : 'assistant', content: `message number ${i} with some words` }))
    await model.createSession({ history, onOverflow: 'dropOldestTurns', cacheSalt: 'secret salt' }).save(file('rules.plm'))
    expect(readFileSync(file('rules.plm'), 'utf8')).not.toContain('secret')
    await (await model.restoreSession(file('rules.plm'))).send(example, options)
    const strict = await model.restoreSession(file('rules.plm'), { onOverflow: 'error', cacheSalt: 'other' })
    expect((await failure(strict.send(example, options))).code).toBe('CONTEXT_OVERFLOW')
  })

  test('with a template function needs the function again', async () => {
    const template = (messages: readonly Message[]): string[] => messages.map(({ content }) => `${content}\n`)
    const chat = model.createSession({ template, system: 'be brief' })
    await chat.send(example, options)
    await chat.save(file('function.plm'))
    expect(await failure(model.restoreSession(file('function.plm')))).toMatchObject({ code: 'INVALID_OPTION', option: 'template' })
    expect((await failure(model.restoreSession(file('function.plm'), { template: 'none' }))).code).toBe('INVALID_OPTION')
    const again = await model.restoreSession(file('function.plm'), { template })
    expect(again.history).toEqual(chat.history)
    expect(Array.from(again.tokens)).toEqual(Array.from(chat.tokens))
  })

  test('with another template, another path, other options is refused', async () => {
    await model.createSession().save(file('plain.plm'))
    const refused = async (...args: readonly unknown[]): Promise<string> =>
      (await failure((model.restoreSession as (...a: readonly unknown[]) => Promise<unknown>).call(model, ...args))).code
    expect(await refused(file('plain.plm'), { template: 'none' })).toBe('INVALID_OPTION')
    expect(await refused(file('plain.plm'), { system: 'x' })).toBe('INVALID_OPTION')
    expect(await refused(5)).toBe('INVALID_OPTION')
    expect(await refused('a\0b')).toBe('INVALID_OPTION')
    expect(await refused(file('missing.plm'))).toBe('FILE_NOT_FOUND')
    expect(await refused(folder)).toBe('FILE_IO')
    expect((await failure(model.createSession().save(''))).code).toBe('INVALID_OPTION')
    expect((await failure(model.createSession().save(file('none/x.plm')))).code).toBe('FILE_IO')
  })
})

describe('the weights', () => {
  const ofTiny = async (): Promise<{ tiny: Model; chat: Session }> => {
    const tiny = await loadTiny()
    const chat = tiny.createSession({ template: 'none' })
    await chat.append({ tokens: [5, 6, 7] })
    return { tiny, chat }
  }

  test('of a .bin and of a safetensors file with the same numbers are the same', async () => {
    const { tiny, chat } = await ofTiny()
    await chat.save(file('tiny.plm'))
    const bin = await Model.load(`${tinyDir}-bin`, { device: 'cpu', dtype: 'bf16' })
    expect(bin.info.weightsFingerprint).toBe(tiny.info.weightsFingerprint)
    expect(Array.from((await bin.restoreSession(file('tiny.plm'))).tokens)).toEqual([5, 6, 7])
    await Promise.all([tiny.dispose(), bin.dispose()])
  })

  test('of another model are refused', async () => {
    await model.createSession({ template: 'none' }).save(file('demo.plm'))
    const { tiny } = await ofTiny()
    expect(await failure(tiny.restoreSession(file('demo.plm')))).toMatchObject({
      code: 'SESSION_FILE', reason: 'other-weights', file: file('demo.plm'),
      found: model.info.weightsFingerprint, expected: tiny.info.weightsFingerprint,
    })
    await tiny.dispose()
  })
})

describe('damage', () => {
  const weights = '0123456789abcdef'
  const sealed = (head: string): Buffer =>
    Buffer.from(`${head},"sha256":"${createHash('sha256').update(head).digest('hex')}"}\n`)
  const reasonOf = async (bytes: Buffer): Promise<unknown> => {
    const { code, reason, file: named } = await failure(decodeSession(bytes, 'x.plm', weights, 100))
    return [code, reason, named].join(' ')
  }
  const base = { format: 'polylm-session', version: 1, weights, template: 'none', system: null, onOverflow: 'error' }
  const entry = { role: 'user', content: 'x', joined: false, parts: [{ ids: [1, 99], control: false }, { text: 'y', parseSpecial: true }] }
  const head = (change: object = {}): string => JSON.stringify({ ...base, entries: [entry], ...change }).slice(0, -1)

  test('every cut and every flipped bit is found', async () => {
    const whole = sealed(head())
    expect((await decodeSession(whole, 'x.plm', weights, 100)).state).toHaveLength(1)
    for (let length = 0; length < whole.length; length++) {
      expect(await reasonOf(whole.subarray(0, length))).toBe('SESSION_FILE damaged x.plm')
    }
    for (let bit = 0; bit < 8 * whole.length; bit++) {
      const bytes = Buffer.from(whole)
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(await reasonOf(bytes)).toBe('SESSION_FILE damaged x.plm')
    }
    expect(await reasonOf(Buffer.concat([whole, Buffer.from('\n')]))).toBe('SESSION_FILE damaged x.plm')
  })

  test('another version says so', async () => {
    expect(await reasonOf(sealed(head({ version: 2 })))).toBe('SESSION_FILE version x.plm')
    expect(await reasonOf(sealed(head({ version: '1' })))).toBe('SESSION_FILE version x.plm')
  })

  test.each([
    [{ format: 'other' }], [{ weights: 5 }], [{ template: 'chatml' }], [{ template: 'assistant' }], [{ system: 'x' }], [{ system: 5 }],
    [{ onOverflow: 'x' }], [{ entries: {} }], [{ entries: [5] }], [{ more: 1 }], [{ entries: [{ ...entry, role: 'tool' }] }],
    [{ entries: [{ ...entry, content: 5 }] }], [{ entries: [{ ...entry, joined: true }] }], [{ entries: [{ ...entry, joined: 1 }] }],
    [{ entries: [{ ...entry, more: 1 }] }],
    [{ entries: [{ ...entry, parts: [{ ids: [100], control: false }] }] }],
    [{ entries: [{ ...entry, parts: [{ ids: [-1], control: false }] }] }],
    [{ entries: [{ ...entry, parts: [{ ids: [1.5], control: false }] }] }],
    [{ entries: [{ ...entry, parts: [{ ids: [], control: false }] }] }], [{ entries: [{ ...entry, parts: [{ ids: [1], control: 0 }] }] }],
    [{ entries: [{ ...entry, parts: [{ text: 'x', ids: [1], parseSpecial: true }] }] }], [{ entries: [{ ...entry, parts: [{}] }] }],
    [{ entries: [{ ...entry, parts: [5] }] }], [{ entries: [{ ...entry, parts: 'x' }] }],
  ])('a right checksum around %j does not help', async change => {
    expect(await reasonOf(sealed(head(change)))).toBe('SESSION_FILE damaged x.plm')
  })

  test('duplicate keys, depth, and what is no JSON', async () => {
    const texts = [`${head()},"version":1`, head().replace('[1,99]', '['.repeat(200)), '{"format"', '[1', '',
      head().replace('"x"', '"\\ud800"')]
    for (const text of texts) {
      expect(await reasonOf(sealed(text))).toBe('SESSION_FILE damaged x.plm')
    }
  })

  test('a file that is no session file', async () => {
    copyFileSync(path.join(tinyDir, 'config.json'), file('config.plm'))
    expect(await failure(model.restoreSession(file('config.plm')))).toMatchObject({ code: 'SESSION_FILE', reason: 'damaged' })
    writeFileSync(file('empty.plm'), '')
    expect(await failure(model.restoreSession(file('empty.plm')))).toMatchObject({ code: 'SESSION_FILE', reason: 'damaged' })
  })
})

describe('a save', () => {
  test('of what could not be read again is refused before anything is written', async () => {
    const tiny = await loadTiny({ contextSize: 256 })
    const chat = tiny.createSession({ template: () => [{ control: 1 }] })
    await chat.append('x'.repeat(1_048_577))
    expect((await failure(chat.save(file('long.plm')))).code).toBe('LIMIT')
    expect(readdirSync(folder)).not.toContain('long.plm')
    await tiny.dispose()
  })

  test('replaces a symbolic link, fails on a folder, and leaves nothing beside it', async () => {
    const chat = model.createSession()
    writeFileSync(file('target'), 'untouched')
    symlinkSync(file('target'), file('link.plm'))
    await chat.save(file('link.plm'))
    expect(() => readlinkSync(file('link.plm'))).toThrow(expect.objectContaining({ code: 'EINVAL' }))
    expect(readFileSync(file('target'), 'utf8')).toBe('untouched')
    mkdirSync(file('folder.plm'))
    expect((await failure(chat.save(file('folder.plm')))).code).toBe('FILE_IO')
    expect(leftovers()).toEqual([])
    expect(chat.history).toEqual([])
  })

  test('removes what a killed process left an hour ago, and not what may still be written', async () => {
    const [old, young] = [file('.polylm-0123456789abcdef.tmp'), file('.polylm-fedcba9876543210.tmp')]
    for (const name of [old, young]) writeFileSync(name, 'half a session')
    utimesSync(old, new Date(Date.now() - 3_700_000), new Date(Date.now() - 3_700_000))
    await model.createSession().save(file('clean.plm'))
    expect(leftovers()).toEqual([path.basename(young)])
    rmSync(young)
  })

  const programs = path.join(__dirname, 'programs')

  test('that is killed leaves the old file or the new one', async () => {
    const seen = new Set<string>()
    for (let i = 0; i < 12; i++) {
      const target = file('killed.plm')
      const child = spawn(process.execPath, [path.join(programs, 'save.mjs'), target], { stdio: ['ignore', 'pipe', 'inherit'] })
      await new Promise((resolve, reject) => {
        child.stdout.once('data', resolve)
        child.once('close', () => { reject(new Error('the program ended by itself')) })
      })
      await sleep(Math.random() * 30)
      child.kill('SIGKILL')
      await new Promise(resolve => child.once('close', resolve))
      const { history } = await model.restoreSession(target)
      expect(history).toHaveLength(100)
      const words = new Set(history.flatMap(({ content }) => content.trim().split(' ')))
      expect(words.size).toBe(1)
      for (const word of words) seen.add(word)
    }
    expect([...seen].filter(word => word !== 'one' && word !== 'two')).toEqual([])
    for (const name of leftovers()) rmSync(file(name))
  })

  test('that runs out of room fails with FILE_IO and changes nothing', async () => {
    const target = file('full.plm')
    await model.createSession().save(target)
    const before = readFileSync(target)
    const stdout = await new Promise<string>((resolve, reject) => {
      const limited = 'trap "" XFSZ; ulimit -f 8; exec "$0" "$@"'
      execFile('/bin/sh', ['-c', limited, process.execPath, path.join(programs, 'save-full.mjs'), target],
        { timeout: 50_000 }, (error, out) => { if (error === null) resolve(out); else reject(error) })
    })
    expect(stdout).toBe('FILE_IO EFBIG 200\n')
    expect(readFileSync(target)).toEqual(before)
    expect(leftovers()).toEqual([])
  })
})
