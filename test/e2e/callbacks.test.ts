// callbacks.test.ts: functions of a caller's that throw, reject, or return odd promises: each ends its own call with
// what it threw. The calls run in a process of their own with the built package (npm run build:js), because an
// unhandled rejection ends a process, and jest hides that.
import { execFile } from 'node:child_process'
import path from 'node:path'

type Row = Readonly<Record<string, string | boolean>>

let code: number | null
let rows: Row[]
let stderr: string
beforeAll(async () => {
  const file = path.join(__dirname, 'programs/callbacks.mjs')
  await new Promise<void>(resolve => {
    const child = execFile(process.execPath, [file], { timeout: 100_000 }, (_, out, err) => {
      code = child.exitCode
      rows = out.trim().split('\n').map(line => JSON.parse(line) as Row)
      stderr = err
      resolve()
    })
  })
}, 110_000)

test('the process lives on and says nothing', () => {
  expect([code, stderr]).toEqual([0, ''])
  expect(rows.at(-1)).toEqual({ alive: true })
})

test('every callback that fails ends its call with what it threw', () => {
  const ways = rows.filter(row => row['way'] !== undefined)
  expect(ways.map(({ way }) => way)).toEqual(['throws', 'rejects', 'rejectsLater', 'thenThrows', 'thenRejects', 'thenGetter'])
  for (const { onProgress, logger, scoring, next, asyncNext } of ways) {
    expect([onProgress, logger, scoring, next, asyncNext]).toEqual(['mine', 'mine', 'mine', 'mine', 'mine'])
  }
})

test('templates and iterators are synchronous: what is a promise is refused', () => {
  for (const { way, template, iterator } of rows.filter(row => row['way'] !== undefined)) {
    const expected = way === 'throws' ? ['mine', 'mine'] : [way === 'thenGetter' ? 'INVALID_OPTION' : 'INVALID_PROMPT', 'INVALID_PROMPT']
    expect([template, iterator]).toEqual(expected)
  }
})

test('signals need not be the platform\'s, and may be unreadable', () => {
  expect(rows.at(-2)).toEqual({ aborted: 'mine', unreadable: 'AbortError', redefined: expect.stringMatching(/AbortError|INVALID_OPTION/) })
})
