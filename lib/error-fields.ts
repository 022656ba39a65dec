// error-fields.ts: which data the errors of each code carry, as types. Types alone: the class is in errors.ts.
// Trap: tests compare this file with every place that throws, here and in the core.

/** Data of an error about a file; each is there when it is known. */
export interface FileFields {
  /** Path of the file or directory. */
  readonly file?: string | undefined
  /** Where in the file, in bytes. */
  readonly offset?: number | undefined
  /** Name of the tensor in question. */
  readonly tensor?: string | undefined
  /** Key of a JSON file. */
  readonly key?: string | undefined
}

/** Data of an error about a thing that is not supported. */
export interface UnsupportedFields extends FileFields {
  /** What the file asks for. */
  readonly found?: string | undefined
  /** What would work. */
  readonly supported?: readonly string[] | undefined
}

/** Data of an error about a full queue. */
export interface QueueFields {
  /** Requests that wait. */
  readonly waiting: number
  /** A guess when to try again. */
  readonly retryAfterMs: number
}

/** Codes without data of their own. */
type PlainCode = 'DISPOSED' | 'DRAINING' | 'STREAM_USED' | 'NUMERIC' | 'INTERNAL' | 'ABORTED'

/** Codes about files. */
type FileCode =
  | 'TOKENIZER_MISSING' | 'FILE_NOT_FOUND' | 'FILE_IO' | 'FILE_TRUNCATED' | 'FILE_CHANGED' | 'FILE_UNCOVERED'
  | 'FORMAT_UNKNOWN' | 'HEADER_SIZE' | 'HEADER_UTF8' | 'JSON_SYNTAX' | 'JSON_DEPTH' | 'JSON_DUPLICATE' | 'JSON_NUMBER'
  | 'LIMIT' | 'METADATA_TYPE' | 'TENSOR_SHAPE' | 'TENSOR_DTYPE' | 'TENSOR_OFFSETS' | 'TENSOR_OVERFLOW'
  | 'SHARD_PATH' | 'SHARD_MISSING' | 'SHARD_CONFLICT' | 'ZIP_FORMAT' | 'ZIP_UNSUPPORTED' | 'ZIP_CRC'
  | 'PICKLE_GLOBAL' | 'PICKLE_LIMIT' | 'PICKLE_OPCODE' | 'PICKLE_STACK' | 'PICKLE_TYPE' | 'STORAGE_MISMATCH'
  | 'CONFIG_MISSING' | 'CONFIG_TYPE' | 'CONFIG_RANGE' | 'CONFIG_CONFLICT'
  | 'WEIGHTS_MISSING' | 'WEIGHTS_SHAPE' | 'WEIGHTS_CONFLICT' | 'WEIGHTS_NONFINITE'
  | 'TOKENIZER_FORMAT' | 'TOKENIZER_RANGE' | 'TOKENIZER_DUPLICATE' | 'TOKENIZER_UNSUPPORTED' | 'TOKENIZER_CONFLICT'
  | 'PROTO_FORMAT'

/** The data of each {@link ErrorCode}: what {@link isPolyLMError} gives an error once its code is known. */
export interface ErrorFields extends Record<PlainCode, object>, Record<FileCode, FileFields> {
  INVALID_OPTION: {
    /** Name of the option. */
    readonly option: string
    /** What was given, as it was given; undefined where it could not be read. */
    readonly value: unknown
    /** What is wrong with it; `unknown` for an option that does not exist. */
    readonly reason: string
    /** Bytes, where the option is a size. */
    readonly required?: number | undefined
  }
  INVALID_PROMPT: {
    /** `empty`, `type`, `token out of range`, `control text`, ... */
    readonly reason: string
    /** Of the message, token or item that it is about. */
    readonly index?: number | undefined
  }
  CONTEXT_OVERFLOW: {
    readonly promptTokens: number
    readonly maxTokens: number
    readonly contextSize: number
  }
  INSUFFICIENT_MEMORY: {
    /** Bytes; missing when the system refused an allocation of unknown size. */
    readonly required?: number | undefined
    /** Bytes. */
    readonly available?: number | undefined
    /** What would need less. */
    readonly suggestions: readonly string[]
  }
  QUEUE_FULL: QueueFields
  QUEUE_TIMEOUT: QueueFields
  DEVICE: {
    /** The device that was asked for, where that is known. */
    readonly device?: string | undefined
    /** Number of the driver's own error. */
    readonly driverCode?: number | undefined
  }
  NO_BINARY: {
    /** As in `linux-x64`. */
    readonly platform: string
    /** The folders that were searched. */
    readonly tried: readonly string[]
    /** The binaries that are there and could not be loaded. */
    readonly found: readonly string[]
  }
  UNSUPPORTED_MODEL: UnsupportedFields
  CONFIG_UNSUPPORTED: UnsupportedFields
  DISK_FULL: FileFields
  OUTPUT_BUSY: FileFields
  OUTPUT_MISMATCH: FileFields & {
    /** What differs: the lines, the options, the weights, ... */
    readonly reason: string
  }
  SESSION_FILE: {
    readonly file: string
    readonly reason: 'damaged' | 'other-weights' | 'version'
    /** With `other-weights`: fingerprint in the file. */
    readonly found?: unknown
    /** With `other-weights`: the model's fingerprint. */
    readonly expected?: string | undefined
  }
}
