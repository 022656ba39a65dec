// case.ts: one row of the malformed catalogue: a mutation of a valid tiny model and what must come
// of it.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

import { openCheckpoint } from '../../lib/checkpoint/open.js'
import type { Checkpoint } from '../../lib/checkpoint/types.js'
import type { ErrorCode } from '../../lib/errors.js'

/** Files of a model directory by name; `config.json` is the tiny one unless given or null. */
export type Files = Readonly<Record<string, Buffer | string | null>>

/** A row: `id` and `what` as in the catalogue. */
export interface Case {
  readonly id: string
  readonly what: string
  readonly expected: ErrorCode | 'ok'
  /** Made when the test runs; some are large. */
  readonly files: () => Files
  /** A part of the hint. */
  readonly hint?: string
  /** A part of some warning. */
  readonly warning?: string
}

/** A valid config.json of a tiny model with `changes`; undefined removes a key. */
export function tinyConfig(changes: Readonly<Record<string, unknown>> = {}): string {
  return JSON.stringify({ ...baseConfig, ...changes }, null, 2)
}

const baseConfig = {
  activation_function: 'gelu_fast',
  architectures: ['GPT2LMHeadModel'],
  bos_token_id: 1,
  eos_token_id: 2,
  layer_norm_epsilon: 1e-5,
  model_type: 'gpt2',
  n_embd: 32,
  n_head: 2,
  n_inner: null,
  n_layer: 2,
  n_positions: 64,
  scale_attn_by_inverse_layer_idx: false,
  scale_attn_weights: true,
  torch_dtype: 'bfloat16',
  vocab_size: 100,
}

/** Runs `use` with a fresh directory and removes it afterwards. */
export async function withScratch<T>(use: (dir: string) => Promise<T>): Promise<T> {
  const dir = mkdtempSync(join(tmpdir(), 'polylm-malformed-'))
  try {
    return await use(dir)
  } finally {
    rmSync(dir, { recursive: true })
  }
}

/** Writes the files of a case. */
export function writeFiles(dir: string, files: Files): void {
  for (const [name, content] of Object.entries({ 'config.json': tinyConfig(), ...files })) {
    if (content === null) continue
    mkdirSync(dirname(join(dir, name)), { recursive: true })
    writeFileSync(join(dir, name), content)
  }
}

/** Opens a directory with these files. */
export async function openFiles(files: Files): Promise<Checkpoint> {
  return await withScratch(async dir => {
    writeFiles(dir, files)
    return await openCheckpoint(dir)
  })
}

/** Replaces bytes. */
export function patched(
  bytes: Buffer,
  at: number,
  replacement: Buffer | readonly number[],
): Buffer {
  const copy = Buffer.from(bytes)
  Buffer.from(replacement).copy(copy, at)
  return copy
}

/** Little-endian bytes of an integer. */
export function le(value: number | bigint, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes)
  if (typeof value === 'number' && bytes <= 4 && value >= 0) {
    if (bytes > 0) buffer.writeUIntLE(value, 0, bytes)
    return buffer
  }
  let rest = BigInt.asUintN(64, BigInt(value))
  for (let i = 0; i < bytes && rest > 0n; i++) {
    buffer[i] = Number(rest & 0xffn)
    rest >>= 8n
  }
  return buffer
}
