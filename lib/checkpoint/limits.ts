// limits.ts: every limit of the checkpoint readers. A file beyond one of them is refused with a
// typed error before anything of that size is allocated; tests stand at each limit and one past it.

const kib = 1024
const mib = 1024 * kib

/** Safetensors header; the format's own cap. */
export const maxHeaderBytes = 100_000_000
export const maxTensorsPerFile = 65_536
export const maxTensors = 262_144
export const maxTensorNameBytes = 512
export const maxRank = 8
export const maxDimension = 2 ** 40
/**
 * A `.bin` view may repeat elements of its storage (stride 0), but not blow up beyond this: no
 * published weight is such a view, and a reader that expanded one could be made to work for years.
 */
export const maxRepeatedElements = 2 ** 24
/**
 * All tensors of a checkpoint, every view written out, have at most this many times the bytes of its
 * files, and a little more for small ones: without a bound on the sum a file of kilobytes becomes a
 * model of gigabytes, one allowed view after the other. Published checkpoints share at most the
 * output layer with the embedding.
 */
export const maxExpansion = 4
export const maxExpansionBytes = 64 * mib

export const maxConfigBytes = mib
export const maxIndexBytes = 64 * mib
export const maxShards = 1024
export const maxShardNameBytes = 255

export const maxJsonDepth = 64
/**
 * Values in one JSON text: bounds memory, which a file of `[[],[],...` would multiply otherwise.
 */
export const maxJsonValues = 2_097_152
/** Members of one object: a Map grows by copying itself, which takes 10 ms at this size. */
export const maxJsonMembers = maxTensors
export const maxJsonStringBytes = mib
export const maxJsonNumberBytes = kib

export const maxZipEntries = 65_536
export const maxZipNameBytes = 1024

export const maxPickleBytes = 64 * mib
export const maxPickleStack = 2 ** 16
export const maxPickleMemo = 2 ** 20
export const maxPickleOps = 2 ** 24
/** Values reachable from one value when shared parts are counted each time ("billion laughs"). */
export const maxPickleNodes = 2 ** 24
export const maxPickleDepth = 64
export const maxPickleStringBytes = mib
export const maxStorageKeyBytes = 64

export const maxLayers = 512
export const maxHeads = 512
export const maxHiddenSize = 65_536
export const maxInnerSize = 2 ** 24
export const maxContextSize = 2 ** 20
export const maxVocabSize = 2 ** 20
export const maxHeadSize = 256
/** The head size must be a multiple of this; the core pads it to its own vector width. */
export const headSizeStep = 8
/** Weights that a config implies, in fp32. */
export const maxWeightBytes = 2 ** 50
