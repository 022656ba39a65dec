// gguf.ts: writes a GPT-2 model of any shape with random bfloat16 weights as a GGUF file (version 3), so that llama.cpp
// and node-llama-cpp can be measured without a download. Written from the format's description: a header of counts,
// typed key-value pairs, tensor descriptions, then the tensors, each aligned. Not a converter of real weights.
// Trap: the vocabulary is made up (node-llama-cpp refuses a file without one), so text that comes out means nothing.
import { createWriteStream } from 'node:fs'
import { finished } from 'node:stream/promises'
import type { Shape } from '../../lib/cli/bench-shapes.js'

const alignment = 32
const types = { uint32: 4, int32: 5, float32: 6, string: 8, array: 9 } as const
const tensorTypes = { f32: 0, bf16: 30 } as const

/** One tensor of the file. `dims` are in GGUF's order: the contiguous one first. */
export interface GgufTensor {
  readonly name: string
  readonly dims: readonly number[]
  readonly type: keyof typeof tensorTypes
  /** Numbers are spread evenly in [-scale, scale], or all `scale` when they are f32. */
  readonly scale: number
}

const elements = ({ dims }: GgufTensor): number => dims.reduce((product, size) => product * size, 1)
const align = (bytes: number): number => Math.ceil(bytes / alignment) * alignment

/** Bytes of a tensor's data, without what aligns the next one. */
export const tensorBytes = (tensor: GgufTensor): number => elements(tensor) * (tensor.type === 'f32' ? 4 : 2)

/** All tensors of a GPT-2 network with a tied head, in the order of the file. */
export function tensorsOf({ layers, hiddenSize: c, innerSize: f, vocabSize, contextSize }: Shape): GgufTensor[] {
  const matrix = (name: string, k: number, n: number): GgufTensor =>
    ({ name: `${name}.weight`, dims: [k, n], type: 'bf16', scale: 1 / Math.sqrt(k) })
  const vector = (name: string, n: number, value: number): GgufTensor => ({ name, dims: [n], type: 'f32', scale: value })
  const norm = (name: string): GgufTensor[] => [vector(`${name}.weight`, c, 1), vector(`${name}.bias`, c, 0.01)]
  const linear = (name: string, k: number, n: number): GgufTensor[] => [matrix(name, k, n), vector(`${name}.bias`, n, 0.01)]
  const blocks = Array.from({ length: layers }, (_, i) => [
    ...norm(`blk.${i}.attn_norm`), ...linear(`blk.${i}.attn_qkv`, c, 3 * c), ...linear(`blk.${i}.attn_output`, c, c),
    ...norm(`blk.${i}.ffn_norm`), ...linear(`blk.${i}.ffn_up`, c, f), ...linear(`blk.${i}.ffn_down`, f, c),
  ])
  const positions = vector('position_embd.weight', c, 0.01)
  return [
    matrix('token_embd', c, vocabSize), { ...positions, dims: [c, contextSize] },
    ...blocks.flat(), ...norm('output_norm'),
  ]
}

function uint32(value: number): Buffer {
  const buffer = Buffer.alloc(4)
  buffer.writeUInt32LE(value)
  return buffer
}

function uint64(value: number): Buffer {
  const buffer = Buffer.alloc(8)
  buffer.writeBigUInt64LE(BigInt(value))
  return buffer
}

function float32(value: number): Buffer {
  const buffer = Buffer.alloc(4)
  buffer.writeFloatLE(value)
  return buffer
}

function string(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([uint64(bytes.length), bytes])
}

/** The made-up vocabulary: three special tokens, all bytes, and names that no text holds; as many as the network has. */
export function vocabularyOf(size: number): { pieces: string[]; kinds: number[] } {
  const [normal, unknown, control, byte] = [1, 2, 3, 6]
  const special = ['<unk>', '<s>', '</s>']
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`)
  const names = Array.from({ length: Math.max(0, size - 259) }, (_, i) => `token${i}`)
  const kinds = [unknown, control, control, ...bytes.map(() => byte), ...names.map(() => normal)]
  return { pieces: [...special, ...bytes, ...names].slice(0, size), kinds: kinds.slice(0, size) }
}

function vocabularyPairs(size: number): [string, number, Buffer][] {
  const { pieces, kinds } = vocabularyOf(size)
  const array = (type: number, items: readonly Buffer[]): Buffer =>
    Buffer.concat([uint32(type), uint64(items.length), ...items])
  return [
    ['tokenizer.ggml.model', types.string, string('llama')],
    ['tokenizer.ggml.tokens', types.array, array(types.string, pieces.map(string))],
    ['tokenizer.ggml.scores', types.array, array(types.float32, pieces.map((_, i) => float32(-i)))],
    ['tokenizer.ggml.token_type', types.array, array(types.int32, kinds.map(uint32))],
  ]
}

function pairs({ layers, heads, hiddenSize, innerSize, contextSize, vocabSize }: Shape): Buffer[] {
  const key = (name: string, type: number, value: Buffer): Buffer => Buffer.concat([string(name), uint32(type), value])
  const count = (name: string, value: number): Buffer => key(name, types.uint32, uint32(value))
  return [
    key('general.architecture', types.string, string('gpt2')),
    key('general.name', types.string, string('random weights')),
    count('general.alignment', alignment),
    count('general.file_type', 32),                       // mostly bfloat16
    count('gpt2.context_length', contextSize),
    count('gpt2.embedding_length', hiddenSize),
    count('gpt2.feed_forward_length', innerSize),
    count('gpt2.block_count', layers),
    count('gpt2.attention.head_count', heads),
    key('gpt2.attention.layer_norm_epsilon', types.float32, float32(1e-5)),
    count('gpt2.vocab_size', vocabSize),
    ...vocabularyPairs(vocabSize).map(pair => key(...pair)),
  ]
}

/** Everything before the tensors' data, aligned. */
export function ggufHeader(shape: Shape): Buffer {
  const tensors = tensorsOf(shape)
  const keys = pairs(shape)
  let offset = 0
  const descriptions = tensors.map(tensor => {
    const at = offset
    offset += align(tensorBytes(tensor))
    return Buffer.concat([
      string(tensor.name), uint32(tensor.dims.length), ...tensor.dims.map(uint64),
      uint32(tensorTypes[tensor.type]), uint64(at),
    ])
  })
  const all = Buffer.concat([
    Buffer.from('GGUF'), uint32(3), uint64(tensors.length), uint64(keys.length), ...keys, ...descriptions])
  return Buffer.concat([all, Buffer.alloc(align(all.length) - all.length)])
}

const blockBytes = 1 << 20

/** A megabyte of a tensor's numbers, which is written again and again: speed does not depend on their values. */
export function randomBlock({ type, scale }: GgufTensor): Buffer {
  const block = Buffer.alloc(blockBytes)
  if (type === 'f32') {
    for (let i = 0; i < blockBytes; i += 4) block.writeFloatLE(scale, i)
    return block
  }
  const number = new DataView(new ArrayBuffer(4))
  let state = 0x2545f491
  for (let i = 0; i < blockBytes; i += 2) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    number.setFloat32(0, (state / 2 ** 31 - 1) * scale)
    block.writeUInt16LE(number.getUint16(0), i)           // the upper half of a float32
  }
  return block
}

/** Writes the file; returns its size. */
export async function writeGguf(file: string, shape: Shape): Promise<number> {
  const stream = createWriteStream(file, { highWaterMark: 8 * blockBytes })
  let size = 0
  const put = async (bytes: Buffer): Promise<void> => {
    size += bytes.length
    if (!stream.write(bytes)) await new Promise<void>(resolve => { stream.once('drain', resolve) })
  }
  const failed = new Promise<never>((_, reject) => { stream.once('error', reject) })
  failed.catch(() => { /* the race below tells */ })
  const blocks = new Map<string, Buffer>()
  const write = async (): Promise<void> => {
    await put(ggufHeader(shape))
    for (const tensor of tensorsOf(shape)) {
      const key = `${tensor.type} ${tensor.scale}`
      const block = blocks.get(key) ?? randomBlock(tensor)
      blocks.set(key, block)
      const bytes = tensorBytes(tensor)
      for (let done = 0; done < bytes; done += blockBytes) await put(block.subarray(0, Math.min(blockBytes, bytes - done)))
      await put(Buffer.alloc(align(bytes) - bytes))
    }
    stream.end()
    await finished(stream)
  }
  await Promise.race([write(), failed])
  return size
}
