// cli-chat.test.ts: the commands inside `polylm chat`: undo, save, load.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { polylm } from './cli-program.js'

const folder = mkdtempSync(path.join(tmpdir(), 'polylm-'))
const file = path.join(folder, 'a chat.plm')
afterAll(() => { rmSync(folder, { recursive: true }) })

const chat = (...lines: string[]): ReturnType<typeof polylm> =>
  polylm(['chat', '--demo', '--max-tokens', '20'], { input: lines.map(line => `${line}\n`).join('') })
const [first, second] = ['Rome is the capital of Italy.', 'Translate this sentence from English to German.']

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

test('help lists the commands; a file is needed; a damaged one fails a script', async () => {
  const help = await polylm(['chat', '--help'])
  const inside = await chat('/help', '/save', '/load', '/undoo')
  for (const name of ['/undo', '/save FILE', '/load FILE', '/reset', '/quit']) {
    expect(help.stdout).toContain(name)
    expect(inside.stderr).toContain(name)
  }
  expect(inside.stderr).toContain('/save needs a file')
  expect(inside.stderr).toContain('unknown command /undoo')
  writeFileSync(file, 'x')
  const { status, stderr } = await chat(`/load ${file}`)
  expect([status, stderr]).toEqual([1, expect.stringContaining('SESSION_FILE')])
})
