#!/usr/bin/env node
// Writes a fixture directory (config.json, expected.json, model.safetensors) as one flat file that
// the native tests read without a JSON parser: a sequence of named arrays. A test format, never a
// product format. Usage: node scripts/flatten-fixture.mjs <fixture dir> <out file>
//
// Record: u32 name length, name, u8 kind, u32 rank, i64 dims[rank], u64 bytes, data.
// Kind 0: float64 numbers (every number, array of numbers, boolean or short string of the JSON
// files, under its path, e.g. "expected/beam/0/variants/3/sequences_scores"; a string is its char
// codes); kind 1: bfloat16 tensors, under "tensor/<name>".
import { closeSync, openSync, readFileSync, writeSync, mkdirSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

function * leaves (value, name) {
  if (typeof value === 'number') yield [name, [value]]
  else if (typeof value === 'boolean') yield [name, [value ? 1 : 0]]
  else if (typeof value === 'string') yield [name, [...value].map(c => c.codePointAt(0))]
  else if (Array.isArray(value) && value.every(v => typeof v === 'number')) yield [name, value]
  else if (Array.isArray(value)) {
    yield [`${name}/length`, [value.length]]
    for (let i = 0; i < value.length; i++) yield * leaves(value[i], `${name}/${i}`)
  } else if (value !== null && typeof value === 'object') {
    for (const [key, v] of Object.entries(value)) yield * leaves(v, `${name}/${key}`)
  }
}

function record (name, kind, dims, data) {
  const label = Buffer.from(name)
  const head = Buffer.alloc(4 + label.length + 1 + 4 + dims.length * 8 + 8)
  let at = head.writeUInt32LE(label.length, 0)
  at += label.copy(head, at)
  at = head.writeUInt8(kind, at)
  at = head.writeUInt32LE(dims.length, at)
  for (const d of dims) at = head.writeBigInt64LE(BigInt(d), at)
  head.writeBigUInt64LE(BigInt(data.byteLength), at)
  return Buffer.concat([head, Buffer.from(data.buffer, data.byteOffset, data.byteLength)])
}

export function flatten (dir, out) {
  mkdirSync(path.dirname(path.resolve(out)), { recursive: true })
  const fd = openSync(out, 'w')
  for (const file of ['config', 'expected']) {
    const json = JSON.parse(readFileSync(path.join(dir, `${file}.json`), 'utf8'))
    for (const [name, numbers] of leaves(json, file)) {
      writeSync(fd, record(name, 0, [numbers.length], Float64Array.from(numbers)))
    }
  }
  const weights = readFileSync(path.join(dir, 'model.safetensors'))
  const headerBytes = Number(weights.readBigUInt64LE(0))
  const header = JSON.parse(weights.subarray(8, 8 + headerBytes).toString('utf8'))
  for (const [name, t] of Object.entries(header)) {
    if (name === '__metadata__') continue
    if (t.dtype !== 'BF16') throw new Error(`${name} is ${t.dtype}, expected BF16`)
    const [begin, end] = t.data_offsets
    writeSync(fd, record(`tensor/${name}`, 1, t.shape, weights.subarray(8 + headerBytes + begin, 8 + headerBytes + end)))
  }
  closeSync(fd)
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [dir, out] = process.argv.slice(2)
  if (out === undefined) {
    console.error('usage: flatten-fixture.mjs <fixture dir> <out file>')
    process.exit(2)
  }
  flatten(dir, out)
}
