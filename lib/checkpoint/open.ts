// open.ts: a model directory in Hugging Face's layout as one Checkpoint: the config, and where
// every tensor lies. Only headers are read, so it is quick for 26 GB; the weights are read, and
// every range checked again, by the core.

import { join } from 'node:path'

import { PolyLMError } from '../errors.js'
import { readConfigWithWarnings } from './config.js'
import { isThere, withFile, type CheckpointFile } from './file.js'
import { readGenerationConfig } from './generation-config.js'
import { maxExpansion, maxExpansionBytes, maxTensors } from './limits.js'
import { checkModelDirectory, foreignWeights, missingConfig } from './model-directory.js'
import { readSafetensors } from './safetensors.js'
import { readShardIndex } from './shards.js'
import { Slicer } from './slicer.js'
import { sniffFormat } from './sniff.js'
import { quote, quotePath } from './text.js'
import { readTorchBin } from './torch-bin.js'
import { dtypeBits, type Checkpoint, type FileEntry, type StorageCheck, type TensorEntry } from './types.js'

/** Options of {@link openCheckpoint}. */
export interface OpenCheckpointOptions {
  /** Aborting rejects with the signal's reason. */
  readonly signal?: AbortSignal | undefined
}

// In this order the first that exists is used: safetensors before `.bin`, an index before a single
// file of its kind.
const candidates = [
  { name: 'model.safetensors.index.json', isIndex: true },
  { name: 'model.safetensors', isIndex: false },
  { name: 'pytorch_model.bin.index.json', isIndex: true },
  { name: 'pytorch_model.bin', isIndex: false },
] as const

/**
 * Opens a model directory: reads `config.json`, `generation_config.json` and the headers of the
 * weight files. `model.safetensors` comes before `pytorch_model.bin`, and an index before a single
 * file of the same kind; what a file contains is told by its first bytes, not by its name. Nothing
 * in any file is executed.
 *
 * @throws PolyLMError with one code per kind of damage; `file`, and `tensor` or `offset` where they
 * apply.
 * @example
 * const { config, tensors } = await openCheckpoint('./polylm-1.7b')
 */
export async function openCheckpoint(
  dir: string,
  options: OpenCheckpointOptions = {},
): Promise<Checkpoint> {
  const { signal } = options
  signal?.throwIfAborted()
  const root = await checkModelDirectory(dir)
  if (!(await isThere(join(root, 'config.json')))) throw await missingConfig(root)
  const { config, warnings } = await readConfigWithWarnings(root, signal)
  const generation = await readGenerationConfig(root, config.vocabSize, signal)
  const collector = new Collector(signal)
  const weights = await findWeights(root)
  if (weights.isIndex) await readShards(root, weights.path, collector)
  else await collector.add(weights.path)
  const { format, files, tensors, storages } = collector
  checkExpansion(files, tensors)
  return {
    dir: root,
    format: format ?? 'safetensors',
    config,
    generationConfig: generation.config,
    files,
    tensors,
    storages,
    warnings: [...warnings, ...generation.warnings, ...collector.warnings],
  }
}

async function findWeights(root: string): Promise<{ path: string; isIndex: boolean }> {
  for (const { name, isIndex } of candidates) {
    const path = join(root, name)
    // A link to nowhere is an interrupted download of the file that is meant, not its absence.
    if (await isThere(path)) return { path, isIndex }
  }
  const names = candidates
    .filter(({ isIndex }) => !isIndex)
    .map(({ name }) => name)
    .join(' nor ')
  throw new PolyLMError(
    'FILE_NOT_FOUND',
    `${quotePath(root)} holds neither ${names}, nor an index of them`,
    {
      file: root,
      hint:
        (await foreignWeights(root)) ??
        'the weights are missing: download the model again, with its large files',
    },
  )
}

async function readShards(root: string, indexPath: string, collector: Collector): Promise<void> {
  const slicer = new Slicer(collector.signal)
  const { files, weightMap } = await readShardIndex(indexPath, collector.signal)
  for (const name of files) {
    const path = join(root, name)
    await collector.add(path).catch((e: unknown) => {
      if (!(e instanceof PolyLMError) || e.code !== 'FILE_NOT_FOUND') throw e
      throw new PolyLMError(
        'SHARD_MISSING',
        `${quotePath(indexPath)} names the shard ${quote(name)}, which is missing`,
        { file: path, cause: e, hint: 'download the missing file into the same directory' },
      )
    })
  }
  for (const [tensor, shard] of weightMap) {
    if (collector.fileOf.get(tensor) !== shard) {
      const name = quote(files[shard] ?? '')
      throw new PolyLMError(
        'WEIGHTS_MISSING',
        `${quotePath(indexPath)} says that ${quote(tensor)} is in ${name}, but it is not`,
        { file: indexPath, tensor },
      )
    }
    if (slicer.due()) await slicer.pause()
  }
  const unlisted = collector.tensors.filter(({ name }) => !weightMap.has(name))
  if (unlisted.length > 0) {
    const first = quote(unlisted[0]?.name ?? '')
    collector.warnings.push(
      `the shards hold ${unlisted.length} tensors that the index does not list, first ${first}`,
    )
  }
}

// Views may share and repeat what is stored, but all of them together must stay in proportion.
function checkExpansion(files: readonly FileEntry[], tensors: readonly TensorEntry[]): void {
  let expanded = 0
  for (const { shape, dtype } of tensors) {
    expanded += shape.reduce((product, dim) => product * dim, dtypeBits(dtype) / 8)
  }
  const stored = files.reduce((sum, { size }) => sum + size, 0)
  const most = maxExpansion * stored + maxExpansionBytes
  if (expanded <= most) return
  throw new PolyLMError(
    'LIMIT',
    `the tensors have ${expanded} bytes when every view is written out, but the files hold ` +
      `${stored}, for which at most ${most} are accepted`,
    {
      file: files[0]?.path,
      hint: 'save the model again from tensors that own their memory (tensor.contiguous().clone())',
    },
  )
}

// Gathers the tables of one file after another.
class Collector {
  readonly signal: AbortSignal | undefined
  readonly files: FileEntry[] = []
  readonly tensors: TensorEntry[] = []
  readonly storages: StorageCheck[] = []
  readonly warnings: string[] = []
  readonly fileOf = new Map<string, number>()
  format: Checkpoint['format'] | undefined
  #nextStorageId = 0

  constructor(signal: AbortSignal | undefined) {
    this.signal = signal
  }

  async add(path: string): Promise<void> {
    await withFile(path, async file => await this.#read(file))
  }

  async #read(file: CheckpointFile): Promise<void> {
    const { path } = file.entry
    const slicer = new Slicer(this.signal)
    const format = await sniffFormat(file)
    if (this.format !== undefined && this.format !== format) {
      throw new PolyLMError(
        'SHARD_CONFLICT',
        `${quotePath(path)} is a ${format} file, the shards before it are not`,
        { file: path },
      )
    }
    this.format = format
    const index = this.files.length
    const context = { file: index, firstStorageId: this.#nextStorageId, signal: this.signal }
    const table = await (format === 'torch' ? readTorchBin : readSafetensors)(file, context)
    this.files.push(file.entry)
    for (const tensor of table.tensors) {
      const earlier = this.fileOf.get(tensor.name)
      if (earlier !== undefined) {
        throw new PolyLMError(
          'SHARD_CONFLICT',
          `the tensor ${quote(tensor.name)} is in two shards: ` +
            `${quotePath(this.files[earlier]?.path ?? '')} and ${quotePath(path)}`,
          { file: path, tensor: tensor.name },
        )
      }
      this.fileOf.set(tensor.name, index)
      this.tensors.push(tensor)
      this.#nextStorageId = Math.max(this.#nextStorageId, tensor.storageId + 1)
      if (slicer.due()) await slicer.pause()
    }
    if (this.tensors.length > maxTensors) {
      throw new PolyLMError('LIMIT', `more than ${maxTensors} tensors in all shards`, {
        file: path,
      })
    }
    for (const storage of table.storages) this.storages.push(storage)
  }
}
