// shard-cases.ts: the rows X01 to X14 of the catalogue.

import type { Case, Files } from './case.js'
import { safetensors } from './safetensors-cases.js'

const f32 = { dtype: 'F32', shape: [2], data_offsets: [0, 8] }

/** A valid shard that holds one tensor of each name. */
export function shard(...names: string[]): Buffer {
  const entries = names.map(
    (name, i) => [name, { ...f32, data_offsets: [8 * i, 8 * i + 8] }] as const,
  )
  return safetensors(Object.fromEntries(entries), Buffer.alloc(8 * names.length, 1))
}

/** An index file. */
export function index(weightMap: unknown, totalSize: unknown = 16): string {
  return JSON.stringify({ metadata: { total_size: totalSize }, weight_map: weightMap }, null, 2)
}

const one = 'model-00001-of-00002.safetensors'
const two = 'model-00002-of-00002.safetensors'
const validMap = { a: one, b: two }
const indexName = 'model.safetensors.index.json'

/** A valid sharded model with changes. */
export function sharded(changes: Files = {}): Files {
  return { [indexName]: index(validMap), [one]: shard('a'), [two]: shard('b'), ...changes }
}

const withName = (id: string, name: string): Case => ({
  id,
  what: `shard name ${JSON.stringify(name.slice(0, 40))}`,
  expected: 'SHARD_PATH',
  files: () => sharded({ [indexName]: index({ a: one, b: name }) }),
})

const badNames: Readonly<Record<string, readonly string[]>> = {
  X01: ['../../etc/passwd', '..\\..\\x'],
  X02: ['/etc/passwd', 'C:\\x', '\\\\host\\x', 'C:x'],
  X03: ['a/../b.safetensors', './x', 'a//b', 'sub/model.safetensors'],
  X04: ['x\0y', '', '.', '..', '...', 'x'.repeat(256), 'mod\u00e9l', 'x\ny'],
  X05: ['CON', 'con.safetensors', 'LPT1.bin', 'x.', 'x ', ' x', 'AUX'],
}

const shardNames = (count: number): readonly string[] =>
  Array.from({ length: count }, (_, i) => `s${i}.safetensors`)

const manyShards = (count: number, written: number): Files => {
  const names = shardNames(count)
  return {
    [indexName]: index(Object.fromEntries(names.map((name, i) => [`t${i}`, name]))),
    ...Object.fromEntries(names.slice(0, written).map((name, i) => [name, shard(`t${i}`)])),
  }
}

/** X01 to X14. */
export const shardCases: readonly Case[] = [
  { id: 'X00', what: 'valid', expected: 'ok', files: () => sharded() },
  ...Object.entries(badNames).flatMap(([id, names]) => names.map(name => withName(id, name))),
  {
    id: 'X06',
    what: 'shard file missing',
    expected: 'SHARD_MISSING',
    hint: 'download',
    files: () => sharded({ [two]: null }),
  },
  {
    id: 'X07',
    what: 'weight_map names a tensor its shard lacks',
    expected: 'WEIGHTS_MISSING',
    files: () => sharded({ [indexName]: index({ ...validMap, c: two }) }),
  },
  {
    id: 'X07',
    what: 'weight_map gives a tensor the wrong shard',
    expected: 'WEIGHTS_MISSING',
    files: () => sharded({ [indexName]: index({ a: two, b: one }) }),
  },
  {
    id: 'X07',
    what: 'weight_map is empty',
    expected: 'WEIGHTS_MISSING',
    files: () => sharded({ [indexName]: index({}) }),
  },
  {
    id: 'X08',
    what: 'same tensor in two shards',
    expected: 'SHARD_CONFLICT',
    files: () => sharded({ [two]: shard('b', 'a') }),
  },
  {
    id: 'X09',
    what: 'shard holds tensors not in the map',
    expected: 'ok',
    warning: 'does not list',
    files: () => sharded({ [two]: shard('b', 'c') }),
  },
  ...[['x'], 'x', null, { a: 7 }, { a: null }, { a: [one] }].map((map): Case => ({
    id: 'X10',
    what: `weight_map is ${JSON.stringify(map)}`,
    expected: 'JSON_SYNTAX',
    files: () => sharded({ [indexName]: index(map) }),
  })),
  {
    id: 'X10',
    what: 'index is an array',
    expected: 'JSON_SYNTAX',
    files: () => sharded({ [indexName]: '[]' }),
  },
  { id: 'X11', what: '1,025 shards', expected: 'LIMIT', files: () => manyShards(1025, 0) },
  { id: 'X11', what: '1,024 shards', expected: 'ok', files: () => manyShards(1024, 1024) },
  {
    id: 'X12',
    what: 'index names itself as a shard',
    expected: 'FORMAT_UNKNOWN',
    files: () => sharded({ [indexName]: index({ a: indexName }) }),
  },
  ...[0, -1, 1e300, 2 ** 53, 'many', null].map((total): Case => ({
    id: 'X13',
    what: `total_size ${JSON.stringify(total)}`,
    expected: 'ok',
    files: () => sharded({ [indexName]: index(validMap, total) }),
  })),
  {
    id: 'X14',
    what: 'an index wins over a single file',
    expected: 'ok',
    files: () => sharded({ 'model.safetensors': 'not even a weight file' }),
  },
  {
    id: 'X14',
    what: 'safetensors wins over .bin',
    expected: 'ok',
    files: () => ({ 'model.safetensors': shard('a'), 'pytorch_model.bin': 'not a weight file' }),
  },
]
