// shards.ts: the index of a sharded checkpoint: which tensor lies in which file. The trap is the
// file names, which come from the file: only plain names are accepted, never a path.

import { PolyLMError, type ErrorCode } from '../errors.js'
import { isJsonObject, readJsonFile } from './json.js'
import { maxIndexBytes, maxShardNameBytes, maxShards, maxTensors } from './limits.js'
import { Slicer } from './slicer.js'
import { describe, quote, quotePath } from './text.js'

/** A checked index. */
export interface ShardIndex {
  /** File names, in order of first mention. */
  readonly files: readonly string[]
  /** Tensor name to position in `files`. */
  readonly weightMap: ReadonlyMap<string, number>
}

// Names that Windows takes for devices, with or without an extension.
const deviceName = /^(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)/i

/**
 * Reads `*.index.json`. Its `metadata.total_size` is not trusted and not looked at.
 *
 * @throws PolyLMError JSON_SYNTAX and the other codes of JSON, SHARD_PATH, WEIGHTS_MISSING or
 * LIMIT.
 */
export async function readShardIndex(
  path: string,
  signal?: AbortSignal | undefined,
): Promise<ShardIndex> {
  const slicer = new Slicer(signal)
  const fail = (code: ErrorCode, text: string): PolyLMError =>
    new PolyLMError(code, `${quotePath(path)}: ${text}`, { file: path })
  const root = await readJsonFile(path, { maxBytes: maxIndexBytes, allowBom: true, signal })
  if (!isJsonObject(root)) throw fail('JSON_SYNTAX', `found ${describe(root)}, expected an object`)
  const map = root.get('weight_map')
  if (!isJsonObject(map))
    throw fail('JSON_SYNTAX', `weight_map is ${describe(map)}, expected an object`)
  if (map.size === 0) throw fail('WEIGHTS_MISSING', 'weight_map names no tensors')
  if (map.size > maxTensors)
    throw fail('LIMIT', `${map.size} tensors, at most ${maxTensors} are accepted`)

  const positions = new Map<string, number>()
  const weightMap = new Map<string, number>()
  for (const [tensor, name] of map) {
    if (typeof name !== 'string') {
      throw fail(
        'JSON_SYNTAX',
        `weight_map gives ${describe(name)} for ${quote(tensor)}, expected a file name`,
      )
    }
    let position = positions.get(name)
    if (position === undefined) {
      if (!isPlainName(name)) {
        throw fail(
          'SHARD_PATH',
          `the shard name ${quote(name)} is not a plain file name; expected letters, digits, ` +
            "'.', '_' and '-' only",
        )
      }
      position = positions.size
      positions.set(name, position)
      if (positions.size > maxShards) throw fail('LIMIT', `more than ${maxShards} shards`)
    }
    weightMap.set(tensor, position)
    if (slicer.due()) await slicer.pause()
  }
  return { files: [...positions.keys()], weightMap }
}

function isPlainName(name: string): boolean {
  return (
    name.length <= maxShardNameBytes &&
    /^[A-Za-z0-9._-]+$/.test(name) &&
    !/^\.+$/.test(name) &&
    !name.endsWith('.') &&
    !deviceName.test(name)
  )
}
