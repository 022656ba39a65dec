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

/**
 * A value that nobody vouches for as JSON can show it: numbers without JSON form as text, long texts and lists cut,
 * what cannot be read named. Never throws.
 */
export function jsonSafe(value: unknown, depth = 0): unknown {
  switch (typeof value) {
    case 'string':
      return value.length > maxText ? `${value.slice(0, maxText)}... (${value.length} characters)` : value
    case 'number':
      return Number.isFinite(value) ? value : String(value)
    case 'bigint':
      return value.toString().slice(0, maxText)
    case 'boolean':
    case 'undefined':
      return value
    case 'object':
      return value === null ? null : safeObject(value, depth)
    default:
      return `[${typeof value}]`
  }
}

function safeObject(value: object, depth: number): unknown {
  try {
    if (isError(value)) return safeError(value, depth)
    if (depth >= maxDepth) return Array.isArray(value) ? '[array]' : '[object]'
    if (isTypedArray(value) || Array.isArray(value)) return safeList(value, depth)
    if (value instanceof Map || value instanceof Set) return safeList([...value], depth)
    const entries = Object.entries(value)
    const safe = entries.slice(0, maxEntries).map(([name, member]) => [name, jsonSafe(member, depth + 1)])
    return Object.fromEntries(entries.length > maxEntries ? [...safe, ['...', `${entries.length} members`]] : safe)
  } catch {
    return '[cannot be read]'
  }
}

function safeList(list: ArrayLike<unknown>, depth: number): unknown[] {
  const safe = Array.from({ length: Math.min(list.length, maxEntries) }, (_, i) => jsonSafe(list[i], depth + 1))
  return list.length > maxEntries ? [...safe, `... (${list.length} in all)`] : safe
}

// By its members: an error of another realm is no instance of this one's Error.
const isError = (value: object): value is Error =>
  value instanceof Error || (Object.prototype.toString.call(value) === '[object Error]')

function safeError(error: Error, depth: number): object {
  const { name, message, code, cause } = error as Error & { code?: unknown; cause?: unknown }
  return {
    name: jsonSafe(name), message: jsonSafe(message),
    ...(typeof code === 'string' || typeof code === 'number' ? { code } : {}),
    ...(cause === undefined || depth >= maxDepth ? {} : { cause: jsonSafe(cause, depth + 1) }),
  }
}
