// cli-program.ts: runs the bundled command line as a user's shell would. Not a test; the cli tests share it.
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'

export const root = path.resolve(__dirname, '../..')
export const program = path.join(root, 'dist/cli.js')
export const fixture = (name: string): string => path.join(root, 'test/fixtures/models', name)

/** The end of a program. */
export interface Ended {
  readonly status: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** How a program is run: what it reads, its environment beside ours, and what to do while it runs. */
export interface Run {
  readonly input?: string | undefined
  readonly env?: NodeJS.ProcessEnv | undefined
  /** Called with each piece of output. */
  readonly watch?: ((child: ChildProcess, stdout: string) => void) | undefined
  /** Called when the program was started. */
  readonly started?: ((child: ChildProcess) => void) | undefined
  /** Leave standard input open. */
  readonly openInput?: boolean | undefined
}

/** Starts `polylm ...args` and waits for its end. */
export function polylm(args: readonly string[], run: Run = {}): Promise<Ended> {
  return execute(process.execPath, [program, ...args], run)
}

/** Starts any program and waits for its end. */
export function execute(command: string, args: readonly string[], run: Run = {}): Promise<Ended> {
  if (!existsSync(program)) throw new Error('dist/cli.js is missing: run `npm run build` first')
  return new Promise((resolve, reject) => {
    const { POLYLM_DEBUG: _, ...env } = { ...process.env, ...run.env } as NodeJS.ProcessEnv
    const child = spawn(command, args, {
      env: run.env?.['POLYLM_DEBUG'] === undefined ? env : { ...env, POLYLM_DEBUG: run.env['POLYLM_DEBUG'] },
      stdio: ['pipe', 'pipe', 'pipe'], cwd: root,
    })
    let stdout = ''
    let stderr = ''
    run.started?.(child)
    child.stdout.setEncoding('utf8').on('data', text => { stdout += text; run.watch?.(child, stdout) })
    child.stderr.setEncoding('utf8').on('data', text => { stderr += text })
    child.stdin.on('error', () => { /* the program ended without reading everything */ })
    if (run.openInput === true) child.stdin.write(run.input ?? '')
    else child.stdin.end(run.input ?? '')
    child.on('error', reject)
    child.on('close', (status, signal) => { resolve({ status, signal, stdout, stderr }) })
  })
}

/** The lines of JSON that a program printed. */
export function jsonLines(text: string): Record<string, unknown>[] {
  return text.split('\n').filter(line => line !== '').map(line => JSON.parse(line) as Record<string, unknown>)
}
