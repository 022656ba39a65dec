// bench-limits.ts: the machine's limits, measured by a process of its own, so that the gigabyte that is read for it is
// not counted as the model's memory. The child is this same program with a hidden flag.
// Trap: parent and child have a thread pool each; a look at the machine is taken only while the model does nothing.
import { spawn } from 'node:child_process'
import type { ChildProcessWithoutNullStreams } from 'node:child_process'
import { createInterface } from 'node:readline'
import { probeBandwidth, probeProducts } from '../bench-support.js'
import type { Limits } from './bench-stats.js'
import { printJson } from './terminal.js'

/** What to measure: `threads` 0 is as many as a model gets. */
export interface ProbeOptions {
  readonly threads: number
  readonly dtype: string
  /** Read little memory, for tests: the number then says what a cache delivers. */
  readonly smoke: boolean
}

/** One look, in this process. */
export async function measureLimits({ threads, dtype, smoke }: ProbeOptions): Promise<Limits> {
  return {
    readBytesPerSecond: await probeBandwidth(threads, smoke ? 2 ** 24 : 0),
    matrixFlopsPerSecond: await probeProducts(threads, dtype, smoke ? 1 : 9),
  }
}

/** What the child does: one look for every line it is sent. */
export async function answerProbes(options: ProbeOptions): Promise<void> {
  for await (const _ of createInterface({ input: process.stdin })) await printJson(await measureLimits(options))
}

/** Looks at the machine from outside the measured process. */
export class LimitsProbe {
  readonly #child: ChildProcessWithoutNullStreams
  readonly #answers: AsyncIterator<string>

  constructor({ threads, dtype, smoke }: ProbeOptions, program = process.argv[1] ?? '') {
    const flags = [...(smoke ? ['--smoke'] : []), ...(threads > 0 ? ['--threads', `${threads}`] : [])]
    const args = [program, 'bench', '--answer-probes', '--dtype', dtype, ...flags]
    this.#child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#child.stderr.on('data', (text: Buffer) => process.stderr.write(text))
    this.#child.stdin.on('error', () => { /* its end is reported when it is asked */ })
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  /** One look. */
  async take(): Promise<Limits> {
    this.#child.stdin.write('\n')
    const { done, value } = await this.#answers.next()
    if (done === true) throw new Error('the process that measures the machine ended')
    return JSON.parse(value) as Limits
  }

  /** Ends the child. */
  close(): void {
    this.#child.stdin.end()
    this.#child.kill()
  }
}
