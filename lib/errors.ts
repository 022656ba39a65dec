// errors.ts: the one error class of the package and its codes. The codes are the rows of
// csrc/platform/error_codes.def; a test compares the two lists. Which data belongs to a code: error-fields.ts.
import type { ErrorFields } from './error-fields.js'
import { jsonSafe } from './plain.js'

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
  /** Whether the model must be loaded again. @default by the code */
  readonly fatal?: boolean | undefined
  readonly [field: string]: unknown
}

/** What {@link PolyLMError.toJSON} gives; the data of the code stands beside these members. */
export interface ErrorJson {
  readonly name: 'PolyLMError'
  readonly code: ErrorCode
  readonly message: string
  readonly hint?: string | undefined
  readonly retryable: boolean
  readonly fatal: boolean
  readonly cause?: unknown
  readonly [field: string]: unknown
}

/** A {@link PolyLMError} with a known code and the data of that code; of several codes, a union of them. */
export type PolyLMErrorOf<C extends ErrorCode> =
  C extends ErrorCode ? PolyLMError & { readonly code: C } & Readonly<ErrorFields[C]> : never

const brand = Symbol.for('polylm.error')
const allCodes: ReadonlySet<unknown> = new Set(errorCodes)
const retryableCodes: ReadonlySet<string> = new Set(['QUEUE_FULL', 'QUEUE_TIMEOUT'])
const fatalCodes: ReadonlySet<string> = new Set(['DEVICE', 'INTERNAL'])

/**
 * The error of every failure that polylm can explain. Its `code` is stable and meant for programs, the
 * message is for people and names the value found and the one expected, `hint` is the next thing to try.
 * Both can be printed as they are: nothing in them is obeyed by a terminal.
 *
 * `JSON.stringify` gives everything but the stack. `structuredClone` and `postMessage` keep message and stack of any
 * error and nothing else, whatever its class: post `error.toJSON()` to another thread, which {@link isPolyLMError}
 * knows there.
 */
export class PolyLMError extends Error {
  readonly code: ErrorCode
  /** The next thing to try, where there is one. */
  declare readonly hint?: string | undefined
  /** The same call may succeed later without any change. */
  readonly retryable: boolean
  /** The model is unusable and must be loaded again. */
  readonly fatal: boolean;
  readonly [field: string]: unknown

  constructor(code: ErrorCode, message: string, data: ErrorData = {}) {
    const { hint, cause, fatal, ...fields } = data
    super(printableLines(message), cause === undefined ? undefined : { cause })
    this.code = code
    if (hint !== undefined) this.hint = printableLines(hint)
    this.retryable = retryableCodes.has(code)
    this.fatal = fatal ?? fatalCodes.has(code)
    for (const [name, value] of Object.entries(fields)) if (!(name in this)) Object.assign(this, { [name]: value })
    Object.defineProperty(this, brand, { value: true })
    headStack(this)
  }

  /** Message and hint together, as the command line prints them. */
  override toString(): string {
    return `${this.name} [${this.code}]: ${this.message}${this.hint === undefined ? '' : `\n  hint: ${this.hint}`}`
  }

  /**
   * The error as data, for logs and other threads: all of it but the stack. A cause is shown by its name, message and
   * code; values that JSON does not have are shown as text, long ones are cut.
   */
  toJSON(): ErrorJson {
    const { code, hint, retryable, fatal, ...fields } = this as PolyLMError & { cause?: unknown }
    const data = Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, jsonSafe(value)]))
    return {
      name: 'PolyLMError', code, message: this.message, ...(hint === undefined ? {} : { hint }), retryable, fatal,
      ...data, ...(this.cause === undefined ? {} : { cause: jsonSafe(this.cause) }),
    }
  }
}

// On the prototype, as in the errors of the language: it is no data.
Object.defineProperty(PolyLMError.prototype, 'name', { value: 'PolyLMError', writable: true, configurable: true })

// The code stands in the first line of the stack, as Node does with its own errors: in a clone it is all that is left
// of it. That line is made when the stack is first read.
function headStack(error: PolyLMError): void {
  Object.defineProperty(error, 'name', { value: `PolyLMError [${error.code}]`, configurable: true })
  Error.captureStackTrace(error, PolyLMError)
  void error.stack
  Reflect.deleteProperty(error, 'name')
}

/**
 * True when `e` is a {@link PolyLMError}, also one of another copy of the package, one that reached this thread as
 * {@link PolyLMError.toJSON} made it or as a worker's `error` event, and, when codes are given, carries one of them.
 * The data of the codes is then typed.
 *
 * @example if (isPolyLMError(e, 'QUEUE_FULL')) await delay(e.retryAfterMs)
 */
export function isPolyLMError<C extends ErrorCode = ErrorCode>(
  e: unknown, ...codes: readonly C[]
): e is PolyLMErrorOf<C> {
  try {
    if (typeof e !== 'object' || e === null) return false
    const { name, code, message } = e as { name?: unknown; code?: unknown; message?: unknown }
    const known = brand in e || (name === 'PolyLMError' && typeof message === 'string' && allCodes.has(code))
    return known && (codes.length === 0 || codes.some(c => c === code))
  } catch {
    return false                          // a proxy or getter that throws
  }
}
