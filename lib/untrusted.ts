// untrusted.ts: values that nobody vouches for: any read of them may throw (getters, proxies, revoked ones), even
// Array.isArray. What is read here either comes back as a plain value or as one PolyLMError that says so.
import { PolyLMError } from './errors.js'

/** Array.isArray, false instead of a throw for a revoked proxy. */
export function isArray(value: unknown): value is readonly unknown[] {
  try {
    return Array.isArray(value)
  } catch {
    return false
  }
}

/** What was thrown, as a few words; never throws itself. */
export function said(thrown: unknown): string {
  try {
    const message = typeof thrown === 'object' && thrown !== null ? (thrown as { message?: unknown }).message : thrown
    return typeof message === 'string' ? message.slice(0, 200) : typeof message
  } catch {
    return 'something unreadable'
  }
}

/**
 * Runs the reading of what a caller gave. An error of ours passes; whatever else is thrown came out of the value and
 * becomes an error with this code, with it as cause. Never put a caller's function in here: what that throws is theirs.
 */
export function reading<T>(code: 'INVALID_OPTION' | 'INVALID_PROMPT', what: string, read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (isOurs(cause)) throw cause
    const reason = `reading it threw: ${said(cause)}`
    const about = code === 'INVALID_OPTION' ? { option: what, value: undefined } : {}
    throw new PolyLMError(code, `${what}: ${reason}`, { ...about, reason, cause })
  }
}

function isOurs(thrown: unknown): boolean {
  try {
    return thrown instanceof PolyLMError
  } catch {
    return false
  }
}

/** Something that is not looked at any further; if it is a promise, what it rejects with must not end the process. */
export function ignore(value: unknown): void {
  if ((typeof value !== 'object' || value === null) && typeof value !== 'function') return
  new Promise(resolve => { resolve(value) }).catch(() => { /* nobody asked */ })
}
