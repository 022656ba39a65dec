// address-space.test.ts: a process whose memory ends, at many limits: every call ends as it should or with a typed
// error, and nothing of ours ends the process. The program runs the built package (npm run build:js), as users do.
// Trap: with less than a few MiB the JavaScript engine itself may give up; it says so, and nobody can prevent it.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import path from 'node:path'
import { createInterface } from 'node:readline'

const mib = 2 ** 20
const program = path.join(__dirname, 'programs/limited.mjs')
const here = process.platform === 'linux' && spawnSync('prlimit', ['--version']).status === 0
const known = new Set(['ok', 'INSUFFICIENT_MEMORY', 'FILE_NOT_FOUND', 'INVALID_OPTION'])

interface End {
  readonly rounds: Array<Record<string, string>>
  readonly end: string
  readonly disposed: boolean
}

/** Runs the program with the address space it has when it is ready, and so much more, one limit after the other. */
async function runWith(more: readonly number[]): Promise<End> {
  const child = spawn(process.execPath, [program], { stdio: ['pipe', 'pipe', 'pipe'] })
  let errors = ''
  child.stderr.on('data', text => { errors += String(text) })
  const ended = new Promise<string>(resolve => child.on('close', (code, signal) => { resolve(`${signal ?? code} ${errors}`.trim()) }))
  const rounds: Array<Record<string, string>> = []
  let disposed = false
  let size = 0
  const limits = [...more]
  const next = (): void => {
    const limit = limits.shift()
    // The soft limit alone, so that the next one may be higher; at the end there is none.
    const value = limit === undefined ? 'unlimited' : String(size + Math.round(limit * mib))
    execFileSync('prlimit', ['--pid', String(child.pid), `--as=${value}:unlimited`])
    child.stdin.write(limit === undefined ? 'end\n' : 'go\n')
  }
  for await (const line of createInterface({ input: child.stdout })) {
    if (line === 'disposed') disposed = true
    else if (line.startsWith('{')) rounds.push(JSON.parse(line) as Record<string, string>)
    else size = Number(line)
    if (!disposed) next()
  }
  return { rounds, end: await ended, disposed }
}

const engineGaveUp = /FATAL ERROR: .*out of memory/

const ladders: ReadonlyArray<readonly [string, readonly number[]]> = [
  ['nothing', [0, 0, 0]],
  ['a little', [0.25, 1, 2, 4]],
  ['one stack of a thread', [7, 8, 8, 8.5, 9]],
  ['some', [16, 20, 24, 33, 48]],
  ['much and little', [64, 8, 96, 5, 160, 8]],
]

test.each(ladders)('memory that ends after %s', async (name, more) => {
  if (!here) return
  const { rounds, end, disposed } = await runWith(more)
  if (name === 'some' || !engineGaveUp.test(end)) {
    expect([end, disposed]).toEqual(['0', true])
    expect(rounds).toHaveLength(more.length)
  }
  for (const round of rounds) {
    expect(round['missing']).not.toBe('ok')
    for (const [name, outcome] of Object.entries(round)) {
      if (!known.has(outcome)) throw new Error(`${name}: ${outcome}`)
    }
  }
}, 120_000)
