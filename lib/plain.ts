// plain.ts: values as JSON can hold them: typed arrays as arrays, and for errors, whose data may be anything that a
// caller passed, short copies that never throw. Not here: text for messages (option-reader.ts, checkpoint/text.ts).

type TypedArray = Float32Array | Float64Array | Int32Array | Uint32Array | Uint8Array

const isTypedArray = (value: unknown): value is TypedArray => ArrayBuffer.isView(value) && !(value instanceof DataView)

/**
 * Base of results that hold typed arrays, which JSON would show as objects with a key per index. `toJSON` stands on
 * the prototype, so that `structuredClone` and `postMessage` copy the data and meet no function.
 */
class Result {
  constructor(fields: object) {
    Object.assign(this, fields)
  }

  toJSON(): object {
    return Object.fromEntries(Object.entries(this).map(([name, value]) => [name, plain(value)]))
  }
}

/** A class for results of type T; `name` is what people see when they print one. */
export function resultClass<T extends object>(name: string): new (fields: Omit<T, 'toJSON'>) => T {
  const made = class extends Result {}
  Object.defineProperty(made, 'name', { value: name })
  return made as unknown as new (fields: Omit<T, 'toJSON'>) => T
}

function plain(value: unknown): unknown {
  if (isTypedArray(value)) return Array.from(value)
  if (Array.isArray(value)) return value.map(plain)
  return value instanceof Result ? value.toJSON() : value
}

const maxText = 4000
const maxEntries = 100
const maxDepth = 4
/** Values in all: lists of lists would multiply what each level may have. */
const maxValues = 1000

// Writing a wide one in decimal digits takes quadratic time.
const tooWide = 10n ** 40n

/** A bigint as text, a wide one described. */
export const bigintText = (value: bigint): string =>
  (value > -tooWide && value < tooWide ? String(value) : 'a bigint of more than 40 digits')

/**
 * A value that nobody vouches for as JSON can show it: numbers without JSON form as text, long texts and lists cut,
 * what cannot be read named. Never throws.
 */
export const jsonSafe = (value: unknown): unknown => safe(value, 0, { left: maxValues })

interface Budget {
  left: number
}

function safe(value: unknown, depth: number, budget: Budget): unknown {
  budget.left--
  switch (typeof value) {
    case 'string':
      return value.length > maxText ? `${value.slice(0, maxText)}... (${value.length} characters)` : value
    case 'number':
      return Number.isFinite(value) ? value : String(value)
    case 'bigint':
      return bigintText(value)
    case 'boolean':
    case 'undefined':
      return value
    case 'object':
      return value === null ? null : safeObject(value, depth, budget)
    default:
      return `[${typeof value}]`
  }
}

function safeObject(value: object, depth: number, budget: Budget): unknown {
  try {
    if (isError(value)) return safeError(value, depth, budget)
    if (depth >= maxDepth) return Array.isArray(value) ? '[array]' : '[object]'
    if (isTypedArray(value) || Array.isArray(value)) {
      return safeList(i => value[i], value.length, depth, budget)
    }
    if (value instanceof Map || value instanceof Set) {
      const items: Iterator<unknown> = value[Symbol.iterator]()
      return safeList(() => items.next().value, value.size, depth, budget)
    }
    const entries = Object.entries(value)
    const shown: Array<[string, unknown]> = []
    for (const [name, member] of entries) {
      if (shown.length === maxEntries || budget.left <= 0) break
      shown.push([name, safe(member, depth + 1, budget)])
    }
    if (shown.length < entries.length) shown.push(['...', `${entries.length} members`])
    return Object.fromEntries(shown)
  } catch {
    return '[cannot be read]'
  }
}

function safeList(item: (i: number) => unknown, length: number, depth: number, budget: Budget): unknown[] {
  const shown: unknown[] = []
  while (shown.length < Math.min(length, maxEntries) && budget.left > 0) {
    shown.push(safe(item(shown.length), depth + 1, budget))
  }
  return shown.length < length ? [...shown, `... (${length} in all)`] : shown
}

// By its members: an error of another realm is no instance of this one's Error.
const isError = (value: object): value is Error =>
  value instanceof Error || (Object.prototype.toString.call(value) === '[object Error]')

function safeError(error: Error, depth: number, budget: Budget): object {
  const { name, message, code, cause } = error as Error & { code?: unknown; cause?: unknown }
  return {
    name: safe(name, depth, budget), message: safe(message, depth, budget),
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    ...(cause === undefined || depth >= maxDepth ? {} : { cause: safe(cause, depth + 1, budget) }),
  }
}
