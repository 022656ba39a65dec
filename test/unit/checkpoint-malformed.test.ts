// The malformed catalogue: one generated mutation of a valid tiny model per row, and the one code
// it must get.

import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'

import { CheckpointFile } from '../../lib/checkpoint/file.js'
import { openCheckpoint } from '../../lib/checkpoint/open.js'
import { isPolyLMError } from '../../lib/errors.js'
import { openFiles, withScratch, writeFiles, type Case } from '../malformed/case.js'
import { configCases } from '../malformed/config-cases.js'
import { pickleCases } from '../malformed/pickle-cases.js'
import { safetensors, safetensorsCases, tinyHeader } from '../malformed/safetensors-cases.js'
import { shardCases } from '../malformed/shard-cases.js'
import { torchCases } from '../malformed/torch-cases.js'

const catalogue: Readonly<Record<string, readonly Case[]>> = {
  safetensors: safetensorsCases,
  'shard index': shardCases,
  'PyTorch archive': torchCases,
  pickle: pickleCases,
  'config.json': configCases,
}

describe.each(Object.entries(catalogue))('%s', (_, cases) => {
  const rows = cases.map(row => [`${row.id} ${row.what}`, row] as const)

  test('every row has its own name', () => {
    expect(new Set(rows.map(([name]) => name)).size).toBe(rows.length)
  })

  test.each(rows)('%s', async (__, { expected, files, hint, warning }) => {
    if (expected === 'ok') {
      const { tensors, warnings } = await openFiles(files())
      expect(tensors.length).toBeGreaterThan(0)
      if (warning !== undefined) expect(warnings.join('\n')).toContain(warning)
      return
    }
    const error: unknown = await openFiles(files()).catch((e: unknown) => e)
    if (!isPolyLMError(error)) throw new Error(`expected ${expected}`, { cause: error })
    expect([error.code, error.message]).toEqual([expected, error.message])
    if (hint !== undefined) expect(error.hint).toContain(hint)
    // One line for a log or a terminal, whatever the file contains.
    expect(error.message).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
    expect(error.message.length).toBeLessThan(1500)
    expect(error['file']).toEqual(expect.any(String))
  })
})

test('S08: a header of 100,000,001 bytes is refused even when the file has them', async () => {
  await withScratch(async dir => {
    writeFiles(dir, { 'model.safetensors': safetensors('{}', Buffer.alloc(0), 100_000_001n) })
    truncateSync(join(dir, 'model.safetensors'), 100_000_001 + 8)
    await expect(openCheckpoint(dir)).rejects.toMatchObject({ code: 'HEADER_SIZE' })
  })
})

test.each([
  ['NUL', 'a\0b'],
  ['newline', 'a\nb'],
  ['escape sequence', '\x1b[31mred'],
  ['text direction', '\u202egnp.exe'],
  ['long', 'x'.repeat(512)],
])('S45: a tensor name with %s is escaped and cut in messages', async (_, name) => {
  const header = { ...tinyHeader, [name]: { dtype: 'F33', shape: [1], data_offsets: [0, 4] } }
  const opened = openFiles({ 'model.safetensors': safetensors(header) })
  const error: unknown = await opened.catch((e: unknown) => e)
  if (!isPolyLMError(error, 'TENSOR_DTYPE')) throw new Error('expected TENSOR_DTYPE')
  expect(error.message).not.toMatch(/[\p{Cc}\p{Cf}]/u)
  expect(error.message.length).toBeLessThan(600)
  expect(error['tensor']).toBe(name)
})

describe('S50: not a regular file', () => {
  type Make = (path: string) => void | (() => Promise<void>)
  const makers: Readonly<Record<string, Make>> = {
    directory: path => mkdirSync(path),
    FIFO: path => void execFileSync('mkfifo', [path]),
    '/dev/zero': path => symlinkSync('/dev/zero', path),
    socket: path => {
      const server = createServer().listen(path)
      return async () => {
        await new Promise<void>(done => server.close(() => done()))
      }
    },
  }
  const rows = ['model.safetensors', 'config.json', 'model.safetensors.index.json'].flatMap(name =>
    Object.keys(makers).map(kind => [kind, name] as const),
  )

  test.each(rows)('%s as %s', async (kind, name) => {
    await withScratch(async dir => {
      writeFiles(dir, { 'model.safetensors': safetensors(tinyHeader) })
      rmSync(join(dir, name), { force: true })
      const undo = makers[kind]?.(join(dir, name))
      await new Promise(done => setTimeout(done, 5))
      await expect(openCheckpoint(dir)).rejects.toMatchObject({ code: 'FILE_IO' })
      await undo?.()
    })
  })
})

test('S51: a file without read permission', async () => {
  await withScratch(async dir => {
    writeFiles(dir, { 'model.safetensors': safetensors(tinyHeader) })
    chmodSync(dir, 0o755)
    chmodSync(join(dir, 'model.safetensors'), 0)
    // The superuser may read everything, so somebody else tries.
    const isRoot = process.geteuid?.() === 0
    if (isRoot) process.seteuid?.(65_534)
    try {
      await expect(openCheckpoint(dir)).rejects.toMatchObject({ code: 'FILE_IO' })
    } finally {
      if (isRoot) process.seteuid?.(0)
    }
  })
})

test('S51: a link to nowhere is a missing file, not a reason to try the next one', async () => {
  await withScratch(async dir => {
    writeFiles(dir, { 'pytorch_model.bin': 'x' })
    symlinkSync(join(dir, 'gone'), join(dir, 'model.safetensors'))
    await expect(openCheckpoint(dir)).rejects.toMatchObject({
      code: 'FILE_NOT_FOUND',
      file: join(dir, 'model.safetensors'),
    })
  })
})

test('S52: a file that shrinks while it is read is truncated, one that grows is not', async () => {
  await withScratch(async dir => {
    const path = join(dir, 'weights')
    writeFileSync(path, Buffer.alloc(100, 7))
    const file = await CheckpointFile.open(path)
    try {
      truncateSync(path, 200)
      expect(await file.read(90, 10)).toEqual(Buffer.alloc(10, 7))
      await expect(file.read(90, 11)).rejects.toMatchObject({ code: 'FILE_TRUNCATED' })
      truncateSync(path, 95)
      await expect(file.read(90, 10)).rejects.toMatchObject({ code: 'FILE_TRUNCATED' })
    } finally {
      await file.close()
    }
  })
})
