// types.ts: what the checkpoint readers produce: plain tables, no bytes of weights. The core opens
// the files again, compares them with FileEntry and checks every range once more, so nothing here
// is a promise that memory safety rests on.

/** Element types of tensors, named as safetensors names them. */
export type DType =
  | 'F64'
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'I64'
  | 'I32'
  | 'I16'
  | 'I8'
  | 'U64'
  | 'U32'
  | 'U16'
  | 'U8'
  | 'BOOL'
  | 'C64'
  | 'F8_E5M2'
  | 'F8_E4M3'
  | 'F8_E8M0'
  | 'F8_E5M2FNUZ'
  | 'F8_E4M3FNUZ'
  | 'F6_E2M3'
  | 'F6_E3M2'
  | 'F4'

/** One tensor: where its elements lie and how they are ordered. */
export interface TensorEntry {
  readonly name: string
  readonly dtype: DType
  readonly shape: readonly number[]
  /**
   * Distance between neighbours along each axis, in elements; published `.bin` files hold
   * transposed views.
   */
  readonly strides: readonly number[]
  /** Equal for tensors that share one storage, for instance a tied `lm_head.weight`. */
  readonly storageId: number
  /** Index in {@link Checkpoint.files}. */
  readonly file: number
  /** Byte position in the file of element (0, 0, ...). */
  readonly offset: number
  /**
   * Bytes from the first element to one past the last; more than the elements' own bytes for a
   * strided view.
   */
  readonly bytes: number
}

/**
 * Identity of a file when its header was read; the core refuses with `FILE_CHANGED` when it differs
 * later.
 */
export interface FileEntry {
  /** Absolute path. */
  readonly path: string
  readonly size: number
  readonly mtimeNs: bigint
  readonly dev: bigint
  readonly ino: bigint
}

/**
 * A storage of a `.bin` file with the checksum of its archive entry, verified by the core while it
 * reads.
 */
export interface StorageCheck {
  readonly file: number
  readonly offset: number
  readonly bytes: number
  readonly crc32: number
}

/** A value of {@link GenerationConfig}. */
export type GenerationValue =
  number | boolean | string | readonly number[] | readonly (readonly number[])[]

/**
 * Generation settings found in a checkpoint, under Hugging Face's own names (`max_length`,
 * `num_beams`, ...). Only settings with a known name are kept, and each was checked to be of its
 * type; null values are absent.
 */
export type GenerationConfig = Readonly<Record<string, GenerationValue>>

/** `config.json`, validated: every number is in range and the numbers agree with each other. */
export interface ModelConfig {
  readonly family: 'gpt2'
  readonly layers: number
  readonly heads: number
  readonly hiddenSize: number
  readonly innerSize: number
  readonly contextSize: number
  readonly vocabSize: number
  readonly layerNormEpsilon: number
  /**
   * `gelu_new`, `gelu_fast` and `gelu_pytorch_tanh` are one function; `gelu` is the one with erf.
   */
  readonly activation: 'gelu_tanh' | 'gelu_erf'
  /** True also when the key is absent, as in Hugging Face and in every published PolyLM. */
  readonly tieWordEmbeddings: boolean
  /** Scores are divided by the square root of the head size. */
  readonly scaleAttention: boolean
  readonly bosTokenId: number | null
  readonly eosTokenIds: readonly number[]
  readonly padTokenId: number | null
  /** `torch_dtype` without its prefix, for instance `bfloat16`; null when the file does not say. */
  readonly dtype: string | null
  /** Generation settings kept in config.json itself, as older checkpoints do. */
  readonly raw: GenerationConfig
}

/** Everything that can be known of a model directory without reading its weights. */
export interface Checkpoint {
  /** Absolute path of the directory. */
  readonly dir: string
  /** Found by content, not by file name. */
  readonly format: 'safetensors' | 'torch'
  readonly config: ModelConfig
  /** `generation_config.json`, or null when there is none. */
  readonly generationConfig: GenerationConfig | null
  readonly files: readonly FileEntry[]
  readonly tensors: readonly TensorEntry[]
  /** Of `.bin` files only; empty for safetensors, which has no checksums. */
  readonly storages: readonly StorageCheck[]
  readonly warnings: readonly string[]
}

/** The tables of one weight file. */
export interface FileTable {
  readonly tensors: TensorEntry[]
  readonly storages: StorageCheck[]
}

const bitsOf: Readonly<Record<DType, number>> = {
  F64: 64,
  I64: 64,
  U64: 64,
  C64: 64,
  F32: 32,
  I32: 32,
  U32: 32,
  F16: 16,
  BF16: 16,
  I16: 16,
  U16: 16,
  I8: 8,
  U8: 8,
  BOOL: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E5M2FNUZ: 8,
  F8_E4M3FNUZ: 8,
  F6_E2M3: 6,
  F6_E3M2: 6,
  F4: 4,
}

/** Narrows a string from a file to a known element type. */
export function isDType(name: string): name is DType {
  return Object.hasOwn(bitsOf, name)
}

/** Size of one element in bits; below 8 for the packed types. */
export function dtypeBits(dtype: DType): number {
  return bitsOf[dtype]
}
