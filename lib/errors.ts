// errors.ts: the one error class of the package and its codes. The codes are the rows of
// csrc/platform/error_codes.def; a test compares the two lists.

import { printableLines } from './checkpoint/text.js'

/** Every code a {@link PolyLMError} can carry, in the order of the core's table. */
export const errorCodes = [
  'INVALID_OPTION', 'INVALID_PROMPT', 'CONTEXT_OVERFLOW', 'INSUFFICIENT_MEMORY', 'QUEUE_FULL', 'QUEUE_TIMEOUT',
  'DISPOSED', 'DRAINING', 'STREAM_USED', 'TOKENIZER_MISSING', 'DEVICE', 'NUMERIC', 'INTERNAL', 'NO_BINARY',
  'UNSUPPORTED_MODEL', 'SESSION_FILE', 'ABORTED',
  'FILE_NOT_FOUND', 'FILE_IO', 'FILE_TRUNCATED', 'FILE_CHANGED', 'FILE_UNCOVERED', 'FORMAT_UNKNOWN', 'HEADER_SIZE',
  'HEADER_UTF8', 'JSON_SYNTAX', 'JSON_DEPTH', 'JSON_DUPLICATE', 'JSON_NUMBER', 'LIMIT', 'METADATA_TYPE',
  'TENSOR_SHAPE', 'TENSOR_DTYPE', 'TENSOR_OFFSETS', 'TENSOR_OVERFLOW',
  'SHARD_PATH', 'SHARD_MISSING', 'SHARD_CONFLICT', 'ZIP_FORMAT', 'ZIP_UNSUPPORTED', 'ZIP_CRC',
  'PICKLE_GLOBAL', 'PICKLE_LIMIT', 'PICKLE_OPCODE', 'PICKLE_STACK', 'PICKLE_TYPE', 'STORAGE_MISMATCH',
  'CONFIG_MISSING', 'CONFIG_TYPE', 'CONFIG_RANGE', 'CONFIG_CONFLICT', 'CONFIG_UNSUPPORTED',
  'WEIGHTS_MISSING', 'WEIGHTS_SHAPE', 'WEIGHTS_CONFLICT', 'WEIGHTS_NONFINITE',
  'TOKENIZER_FORMAT', 'TOKENIZER_RANGE', 'TOKENIZER_DUPLICATE', 'TOKENIZER_UNSUPPORTED', 'TOKENIZER_CONFLICT',
  'PROTO_FORMAT',
  'DISK_FULL', 'OUTPUT_BUSY', 'OUTPUT_MISMATCH',
] as const

/** What went wrong, as data. See the error table of the documentation for each code's extra fields. */
export type ErrorCode = (typeof errorCodes)[number]

/** Extra fields of a {@link PolyLMError}: whatever its code defines, e.g. `option` and `value` of INVALID_OPTION. */
export interface ErrorData {
  /** What to try next, as one sentence. */
  readonly hint?: string | undefined
  readonly cause?: unknown
  readonly [field: string]: unknown
}

const brand = Symbol.for('polylm.error')
const retryableCodes: ReadonlySet<string> = new Set(['QUEUE_FULL', 'QUEUE_TIMEOUT'])
const fatalCodes: ReadonlySet<string> = new Set(['DEVICE', 'INTERNAL'])

/**
 * The error of every failure that polylm can explain. Its `code` is stable and meant for programs, the
 * message is for people and names the value found and the one expected, `hint` is the next thing to try.
 * Both can be printed as they are: nothing in them is obeyed by a terminal.
 */
export class PolyLMError extends Error {
  readonly code: ErrorCode
  readonly hint: string | undefined
  /** The same call may succeed later without any change. */
  readonly retryable: boolean
  /** The model is unusable and must be loaded again. */
  readonly fatal: boolean;
  readonly [field: string]: unknown

  constructor(code: ErrorCode, message: string, data: ErrorData = {}) {
    const { hint, cause, ...fields } = data
    super(printableLines(message), cause === undefined ? undefined : { cause })
    this.name = 'PolyLMError'
    this.code = code
    this.hint = hint === undefined ? undefined : printableLines(hint)
    this.retryable = retryableCodes.has(code)
    this.fatal = fatalCodes.has(code)
    Object.assign(this, fields)
    Object.defineProperty(this, brand, { value: true })
  }

  /** Message and hint together, as the command line prints them. */
  override toString(): string {
    return `${this.name} [${this.code}]: ${this.message}${this.hint === undefined ? '' : `\n  hint: ${this.hint}`}`
  }
}

/**
 * True when `e` is a {@link PolyLMError}, also one thrown by another copy of the package, and, when
 * codes are given, carries one of them.
 *
 * @example if (isPolyLMError(e, 'QUEUE_FULL')) await delay(1000)
 */
export function isPolyLMError<C extends ErrorCode>(e: unknown, ...codes: C[]): e is PolyLMError & { code: C } {
  try {
    if (typeof e !== 'object' || e === null || !(brand in e)) return false
    const code = (e as unknown as PolyLMError).code
    return codes.length === 0 || codes.some(c => c === code)
  } catch {
    return false                                     // a proxy that throws, or was revoked, is none of ours
  }
}
