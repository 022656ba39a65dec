// engines.ts: the programs that are measured side by side, each in a process of its own: how it is started and how its
// output is read. All do the same: prompts of given lengths, then decode of one and of many sequences, random weights.
// Not here: rounds, ratios, reports. Trap: what a peer prints changes with its version; unknown output is an error.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import type { BenchReport } from '../../lib/cli/bench-report.js'

/** What every engine is asked for. */
export interface Task {
  readonly shape: string
  readonly threads: number
  readonly prompt: readonly number[]
  readonly batch: readonly number[]
  readonly tokens: number
}

/** One number of one run. */
export interface Speed {
  readonly test: 'prefill' | 'decode'
  readonly batch: number
  /** Of the prompt, or new ones of each sequence. */
  readonly tokens: number
  /** Of all sequences together. */
  readonly tokensPerSecond: number
}

/** What one start of an engine gave. */
export interface EngineRun {
  readonly speeds: readonly Speed[]
  /** Resident memory at its most, in bytes; null where the system does not tell. */
  readonly peakMemory: number | null
  readonly version: string
}

/** A program that can be measured. */
export interface Engine {
  readonly name: string
  run(task: Task): Promise<EngineRun>
}

interface Ended { readonly stdout: string; readonly peakMemory: number | null }

/** The most resident memory that a running process had, in bytes; null where /proc does not tell. */
function residentPeak(pid: number): number | null {
  try {
    const line = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
    return line?.[1] === undefined ? null : Number(line[1]) * 1024
  } catch {
    return null
  }
}

/** Runs a program to its end and watches its memory. */
export function execute(command: string, args: readonly string[]): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let [stdout, stderr] = ['', '']
    let peakMemory: number | null = null
    const watch = setInterval(() => { peakMemory = residentPeak(child.pid ?? 0) ?? peakMemory }, 50)
    child.stdout.setEncoding('utf8').on('data', text => { stdout += text })
    child.stderr.setEncoding('utf8').on('data', text => { stderr = (stderr + text).slice(-2000) })
    child.on('error', e => { clearInterval(watch); reject(e) })
    child.on('close', (code, signal) => {
      clearInterval(watch)
      if (code === 0) resolve({ stdout, peakMemory })
      else reject(new Error(`${command} ended with ${code ?? signal}: ${stderr}`))
    })
  })
}

const list = (values: readonly number[]): string => values.join(',')

/** This project, as `polylm bench` measures it. `program` is dist/cli.js. */
export function polylm(program: string): Engine {
  return {
    name: 'polylm',
    run: async ({ shape, threads, prompt, batch, tokens }) => {
      const { stdout, peakMemory } = await execute(process.execPath, [
        program, 'bench', '--shape', shape, '--threads', `${threads}`, '--prompt', list(prompt), '--batch', list(batch),
        '--depth', '0', '--tokens', `${tokens}`, '--repeats', '1', '--json'])
      const report = JSON.parse(stdout) as BenchReport
      const speeds = report.results.map(({ test, batch: size, tokens: count, tokensPerSecond }) =>
        ({ test, batch: size, tokens: count, tokensPerSecond }))
      return { speeds, peakMemory: peakMemory ?? report.memory.peak, version: report.machine.device }
    },
  }
}

interface LlamaRow { n_prompt: number; n_gen: number; avg_ts: number; build_commit: string; build_number: number }
interface BatchedRow { pl: number; tg: number; speed_tg: number }

/** Rows that `llama-bench -o json` printed. */
export function readLlamaBench(stdout: string): { speeds: Speed[]; version: string } {
  const rows = JSON.parse(stdout) as LlamaRow[]
  const speeds = rows.map(({ n_prompt: prompt, n_gen: generated, avg_ts: rate }): Speed => {
    if (!(rate > 0) || (prompt > 0) === (generated > 0)) throw new Error('llama-bench printed a row of an unknown kind')
    return { test: prompt > 0 ? 'prefill' : 'decode', batch: 1, tokens: prompt + generated, tokensPerSecond: rate }
  })
  return { speeds, version: `${rows[0]?.build_commit ?? 'unknown'}` }
}

/** Rows that `llama-batched-bench --output-format jsonl` printed between its remarks. */
export function readBatchedBench(stdout: string): Speed[] {
  return stdout.split('\n').filter(line => line.startsWith('{')).map(line => {
    const { pl, tg, speed_tg: rate } = JSON.parse(line) as BatchedRow
    if (!(rate > 0)) throw new Error('llama-batched-bench printed a row of an unknown kind')
    return { test: 'decode', batch: pl, tokens: tg, tokensPerSecond: rate }
  })
}

/** llama.cpp's own programs: `folder` holds llama-bench and llama-batched-bench. */
export function llamaCpp(folder: string, gguf: string): Engine {
  return {
    name: 'llama.cpp',
    run: async ({ threads, prompt, batch, tokens }) => {
      const one = await execute(path.join(folder, 'llama-bench'), [
        '-m', gguf, '-t', `${threads}`, '-p', list(prompt), '-n', `${tokens}`, '-r', '1', '-o', 'json'])
      const { speeds, version } = readLlamaBench(one.stdout)
      const many = batch.filter(size => size > 1)
      if (many.length === 0) return { speeds, version, peakMemory: one.peakMemory }
      const context = Math.max(...many) * (16 + tokens)
      const { stdout, peakMemory } = await execute(path.join(folder, 'llama-batched-bench'), [
        '-m', gguf, '-t', `${threads}`, '-c', `${context}`, '-npp', '16', '-ntg', `${tokens}`, '-npl', list(many),
        '--output-format', 'jsonl'])
      const peak = Math.max(peakMemory ?? 0, one.peakMemory ?? 0)
      return { speeds: [...speeds, ...readBatchedBench(stdout)], version, peakMemory: peak === 0 ? null : peak }
    },
  }
}

/** node-llama-cpp from npm: `folder` is where it was installed, `script` is node-llama-cpp.mjs beside this file. */
export function nodeLlamaCpp(folder: string, gguf: string, script: string): Engine {
  return {
    name: 'node-llama-cpp',
    run: async task => {
      const { stdout, peakMemory } = await execute(process.execPath, [script, folder, gguf, JSON.stringify(task)])
      const last = stdout.trim().split('\n').at(-1) ?? ''
      const { speeds, version } = JSON.parse(last) as { speeds: Speed[]; version: string }
      return { speeds, version, peakMemory }
    },
  }
}
