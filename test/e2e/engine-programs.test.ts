// engine-programs.test.ts: the programs of benchmarks/engine in small, so that none rots: memory stays where it was,
// nothing crashes. They run the built package (npm run build:js), as users do.
import { execFile } from 'node:child_process'
import path from 'node:path'

function run(program: string, ...args: string[]): Promise<{ code: number | null; stdout: string }> {
  const file = path.join(__dirname, '../../benchmarks/engine', program)
  return new Promise(resolve => {
    const child = execFile(process.execPath, ['--expose-gc', file, ...args], { timeout: 170_000 },
      (_, stdout) => { resolve({ code: child.exitCode, stdout }) })
  })
}

const lastLine = (text: string): unknown => JSON.parse(text.trim().split('\n').at(-1) ?? 'null')

test('3,000 requests leave memory, files and threads as they were', async () => {
  const { code, stdout } = await run('soak.mjs', '3000')
  expect(code).toBe(0)
  const end = lastLine(stdout) as { grownMiB: number; fds: number; threads: number; usedTokens: number; counters: Record<string, number> }
  expect(end).toMatchObject({ fds: 0, usedTokens: 0 })
  expect(end.threads).toBeLessThanOrEqual(0)
  expect(end.grownMiB).toBeLessThan(48)                 // a heap that still finds its size; 100,000 requests: see README
  expect(end.counters['requests']).toBeGreaterThan(2900)
}, 180_000)

test('workers terminated and processes ended in the middle: none crashes', async () => {
  const { code, stdout } = await run('ends.mjs', '10', '8')
  expect([code, lastLine(stdout)]).toEqual([0, { terminations: 10, exits: 8, wrong: 0 }])
}, 180_000)
