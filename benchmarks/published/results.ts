// results.ts: the committed result files as types. They are read as their programs wrote them; a field that is missing
// shows up as an error when a page is made, not as an empty cell.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import type { BenchReport } from '../../lib/cli/bench-report.js'
import type { PeerReport } from '../peers/report.js'

/** engine.json. Its keys are titles of tables. */
export interface EngineReport {
  readonly 'cpu': string
  readonly 'cores': number
  readonly 'node': string
  readonly 'isa': string
  readonly 'date': string
  readonly 'aggregate decode': ReadonlyArray<Readonly<Record<string, number>>>
  readonly 'time to first token, ms': ReadonlyArray<{ readonly prompt: string; readonly alone: number; readonly together: number }>
  readonly 'first token behind a beginning of 1500 tokens, ms': ReadonlyArray<Readonly<Record<string, number>>>
  readonly 'memory of a prompt of 2000 tokens': ReadonlyArray<Readonly<Record<string, number>>>
  readonly 'log-likelihood of 4 choices behind 1000 tokens, ms': ReadonlyArray<Readonly<Record<string, number>>>
  readonly 'guessed tokens (speculate)': ReadonlyArray<Readonly<Record<string, number | string>>>
}

/** One call's wait in turns.json. */
export interface TurnLine {
  readonly 'tokens': number
  readonly 'beside': string
  readonly 'ms': number
  readonly 'ms, worst': number
  readonly 'steps': number
}

interface Turns { readonly 'commit'?: string; readonly 'repeats': number; readonly 'one call beside others, demo model': readonly TurnLine[] }

/** turns.json: the same waits of two versions. */
export interface TurnsReport {
  readonly cpu: string
  readonly cores: number
  readonly node: string
  readonly date: string
  readonly before: Turns
  readonly after: Turns
}

/** A line of gemm.json or onednn.json. */
export interface ProductLine {
  readonly name: string
  readonly ratio: number
  readonly unit?: string
}

/** A line of the arrays in gpu-h200.json. */
export interface GpuLine {
  readonly name: string
  readonly value?: number
  readonly unit?: string
  readonly ratio?: number
  readonly torch?: string
  readonly skipped?: string
}

/** gpu-h200.json: results.json of benchmarks/gpu/run.sh. */
export interface GpuReport {
  readonly card: string
  readonly nvcc: string
  readonly commit: string
  readonly passed: number
  readonly failed: number
  readonly skipped: number
  readonly ours: readonly GpuLine[]
  readonly oursAgain: readonly GpuLine[]
  readonly torch: readonly GpuLine[]
  readonly plain: readonly GpuLine[]
}

/** A line of benchmarks/gpu/goals.json: a share of the GPU, or a geometric mean of ratios to PyTorch. */
export interface GpuGoal {
  readonly name: string
  readonly share?: string
  readonly torch?: readonly string[]
  readonly least: number
  readonly aim: number
}

/** An entry of observations.json: numbers that a person took from what a command printed. */
export interface Observation {
  readonly command: string
  readonly machine: string
  readonly date: string
  readonly values: Readonly<Record<string, number | string | readonly number[]>>
}

/** All result files. */
export interface Results {
  readonly bench: BenchReport
  readonly engine: EngineReport
  readonly turns: TurnsReport
  readonly peers: PeerReport
  readonly gemm: readonly ProductLine[]
  readonly onednn: readonly ProductLine[]
  readonly gpu: GpuReport
  readonly goals: readonly GpuGoal[]
  readonly observations: Readonly<Record<string, Observation>>
}

/** Reads all result files below the root of the repository. */
export function readResults(root: string): Results {
  const text = (name: string): string => readFileSync(path.join(root, 'benchmarks', name), 'utf8')
  const json = <T>(name: string): T => JSON.parse(text(name)) as T
  const lines = (name: string): ProductLine[] =>
    text(name).split('\n').filter(line => line.startsWith('{')).map(line => JSON.parse(line) as ProductLine)
  return {
    bench: json('results/bench.json'), engine: json('results/engine.json'), turns: json('results/turns.json'),
    peers: json('results/peers.json'),
    gemm: lines('results/gemm.json'), onednn: lines('results/onednn.json'),
    gpu: json('results/gpu-h200.json'), goals: json('gpu/goals.json'), observations: json('results/observations.json'),
  }
}

/** A number of an observation. */
export function observed(results: Results, name: string, key: string): number {
  const value = results.observations[name]?.values[key]
  if (typeof value !== 'number') throw new Error(`observations.json has no number ${name}.${key}`)
  return value
}

/** Several numbers of an observation: its runs, or both ends of a range. */
export function observedRuns(results: Results, name: string, key: string): readonly number[] {
  const value = results.observations[name]?.values[key]
  if (!Array.isArray(value)) throw new Error(`observations.json has no list ${name}.${key}`)
  return value as readonly number[]
}

/** Where an observation comes from, as a sentence in parentheses. */
export function origin(results: Results, name: string): string {
  const found = results.observations[name]
  if (found === undefined) throw new Error(`observations.json has no ${name}`)
  return `(\`${found.command}\`, ${found.machine}, ${found.date})`
}
