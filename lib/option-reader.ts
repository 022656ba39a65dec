// option-reader.ts: reads an options object that nobody vouches for: every own property exactly once
// into a copy without prototype, unknown names refused with the name that was probably meant. Getters
// and proxies can therefore neither change a value after its check nor surprise the code behind it.
// Not here: which options exist (generate-options.ts, load-options.ts).
import { adoptSignal } from './abort.js'
import { printableJson } from './checkpoint/text.js'
import { PolyLMError } from './errors.js'
import { bigintText } from './plain.js'
import { isArray, said } from './untrusted.js'

/** An option that cannot be used. */
export function invalidOption(
  option: string, value: unknown, reason: string, hint?: string, cause?: unknown,
): PolyLMError {
  return new PolyLMError('INVALID_OPTION', `${option}: found ${show(value)}, ${reason}`, {
    option,
    value,
    reason,
    ...(hint === undefined ? {} : { hint }),
    ...(cause === undefined ? {} : { cause }),
  })
}

/** A value of a user's as it may stand in a message: short, one line, never calling into the value. */
export function show(value: unknown): string {
  switch (typeof value) {
    case 'string': {
      const shown = printableJson(JSON.stringify(value.length > 60 ? value.slice(0, 60) : value))
      return value.length > 60 ? `${shown}... (${value.length} characters)` : shown
    }
    case 'number':
      return Object.is(value, -0) ? '-0' : String(value)
    case 'bigint':
      return bigintText(value)
    case 'boolean':
    case 'undefined':
      return String(value)
    case 'symbol':
      return 'a symbol'
    case 'function':
      return 'a function'
    default:
      return value === null ? 'null' : isArray(value) ? 'an array' : 'an object'
  }
}

/** The path of a model directory. */
export function checkDir(dir: unknown): string {
  if (typeof dir === 'string' && dir !== '' && !dir.includes('\0')) return dir
  throw invalidOption('dir', dir, 'expected the path of a model directory')
}

/** A copy of an options object: own properties, read once, `undefined` left out, no prototype. */
export type OptionBag = Readonly<Record<string, unknown>>

/** Copies and checks the names. `what` names the function for messages; `known` are all legal names. */
export function readBag(
  source: unknown, known: ReadonlySet<string>, what: string,
): OptionBag {
  const bag: Record<string, unknown> = Object.create(null) as Record<string, unknown>
  if (source === undefined) return bag
  if (typeof source !== 'object' || source === null || isArray(source)) {
    throw invalidOption('options', source, `expected an object with the options of ${what}`)
  }
  for (const name of ownNames(source, what)) {
    const value = readProperty(source, name)
    if (value === undefined) continue
    if (!known.has(name)) throw unknownOption(name, value, known, what)
    bag[name] = value
  }
  return bag
}

function ownNames(source: object, what: string): string[] {
  try {
    return Object.keys(source)
  } catch (cause) {
    throw invalidOption('options', source, `the options of ${what} cannot be read`, undefined, cause)
  }
}

/** One read of one property; a getter that throws becomes INVALID_OPTION with it as cause. */
export function readProperty(source: object, name: string): unknown {
  try {
    return (source as Record<string, unknown>)[name]
  } catch (cause) {
    throw new PolyLMError('INVALID_OPTION', `${name}: reading it threw`, {
      option: name, value: undefined, reason: 'reading it threw', cause,
    })
  }
}

function unknownOption(
  name: string, value: unknown, known: ReadonlySet<string>, what: string,
): PolyLMError {
  const meant = nearest(name, known)
  const shown = name.length > 60 ? `${name.slice(0, 60)}...` : name
  const hint = meant === undefined && isHuggingFaceName(name)
    ? 'fromHuggingFace() turns generate(**kwargs) into options'
    : undefined
  return new PolyLMError(
    'INVALID_OPTION',
    `${shown}: is not an option of ${what}${meant === undefined ? '' : `; did you mean ${meant}?`}`,
    { option: name, value, reason: 'unknown', ...(hint === undefined ? {} : { hint }) },
  )
}

// Names that other libraries use for the same thing.
const aliases: Readonly<Record<string, string>> = {
  maxnewtokens: 'maxTokens', maxlength: 'maxTokens', numpredict: 'maxTokens', maxcompletiontokens: 'maxTokens',
  minnewtokens: 'minTokens', numreturnsequences: 'n', numresults: 'n', beams: 'numBeams', beamsize: 'numBeams',
  stopsequences: 'stop', stopstrings: 'stop', eostokenid: 'stopTokenIds', abortsignal: 'signal',
  repeatpenalty: 'repetitionPenalty', logitbias: 'bias', badwordsids: 'bias', sequencebias: 'bias',
  randomseed: 'seed', maxcontext: 'contextSize', nctx: 'contextSize', contextlength: 'contextSize',
  topk: 'topK', topp: 'topP', numthreads: 'threads', nthreads: 'threads', precision: 'dtype',
}

const huggingFaceNames: ReadonlySet<string> = new Set([
  'do_sample', 'max_new_tokens', 'max_length', 'num_beams', 'top_k', 'top_p', 'pad_token_id', 'use_cache',
  'eos_token_id', 'num_return_sequences', 'renormalize_logits', 'bad_words_ids', 'forced_eos_token_id',
])
const isHuggingFaceName = (name: string): boolean => huggingFaceNames.has(name)

/** The known name that was probably meant: same letters, another library's name, or at most two slips. */
export function nearest(name: string, known: ReadonlySet<string>): string | undefined {
  if (name.length > 40) return undefined
  const plain = squeeze(name)
  for (const candidate of known) if (squeeze(candidate) === plain) return candidate
  const alias = Object.hasOwn(aliases, plain) ? aliases[plain] : undefined
  if (alias !== undefined && known.has(alias)) return alias
  let best: string | undefined
  let fewest = Math.min(2, Math.floor(plain.length / 3)) + 1
  for (const candidate of known) {
    const slips = distance(plain, squeeze(candidate), fewest)
    if (slips < fewest) [best, fewest] = [candidate, slips]
  }
  return best
}

const squeeze = (name: string): string => name.toLowerCase().replace(/[^a-z0-9]/g, '')

// Edits (insert, delete, replace, swap of neighbours) from a to b; `limit` when there are so many.
function distance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit
  let before: number[] = []
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      let cost = Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, (row[j - 1] ?? 0) + (same ? 0 : 1))
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      if (swapped) cost = Math.min(cost, (before[j - 2] ?? 0) + 1)
      next.push(cost)
    }
    [before, row] = [row, next]
  }
  return Math.min(row[b.length] ?? limit, limit)
}

/** A number in [min, max], an exact integer where `integer` says so. */
export function readNumber(
  bag: OptionBag, name: string, range: { min: number; max: number; integer: boolean },
): number | undefined {
  const value = bag[name]
  if (value === undefined) return undefined
  const { min, max, integer } = range
  const right = typeof value === 'number' && (integer ? Number.isSafeInteger(value) : Number.isFinite(value))
  if (!right || value < min || value > max) {
    throw invalidOption(name, value, `expected ${integer ? 'an integer' : 'a number'} from ${min} to ${max}`)
  }
  return value === 0 ? 0 : value
}

/** true or false. */
export function readBoolean(bag: OptionBag, name: string): boolean | undefined {
  const value = bag[name]
  if (value === undefined || typeof value === 'boolean') return value
  throw invalidOption(name, value, 'expected true or false')
}

/** One of the given strings. */
export function readChoice<T extends string>(
  bag: OptionBag, name: string, choices: readonly T[],
): T | undefined {
  const value = bag[name]
  if (value === undefined) return undefined
  const found = choices.find(choice => choice === value)
  if (found !== undefined) return found
  throw invalidOption(name, value, `expected ${choices.map(c => `'${c}'`).join(' or ')}`)
}

/** A function. */
export function readFunction<T extends (...args: never[]) => unknown>(
  bag: OptionBag, name: string,
): T | undefined {
  const value = bag[name]
  if (value === undefined || typeof value === 'function') return value as T | undefined
  throw invalidOption(name, value, 'expected a function')
}

const maxSaltLength = 256

/** The salt of the prefix cache. Text that UTF-8 cannot hold is refused: two such salts would become one. */
export function readSalt(bag: OptionBag): string | undefined {
  const value = bag['cacheSalt']
  if (value === undefined) return undefined
  if (typeof value !== 'string') throw invalidOption('cacheSalt', value, 'expected text')
  if (value.length > maxSaltLength) {
    throw invalidOption('cacheSalt', value, `has ${value.length} characters, expected at most ${maxSaltLength}`)
  }
  if (/\p{Cs}/u.test(value)) throw invalidOption('cacheSalt', value, 'holds half of a surrogate pair')
  return value
}

/** Who goes first. */
export function readPriority(bag: OptionBag): 'interactive' | 'batch' | undefined {
  return readChoice(bag, 'priority', ['interactive', 'batch'])
}

/** An AbortSignal, also one of another realm or a look-alike. */
export function readSignal(bag: OptionBag): AbortSignal | undefined {
  const value = bag['signal']
  if (value === undefined) return undefined
  const signal = adoptSignal(value)
  if (signal === undefined) throw invalidOption('signal', value, 'expected an AbortSignal')
  return signal
}

/**
 * A copy of a list of token ids, each checked to be an integer in [0, limit). The copy comes first, so
 * memory that changes meanwhile (a SharedArrayBuffer) cannot pass the check with other values.
 */
export function readIds(
  value: unknown, limit: number, complain: (reason: string) => Error, most = maxIds,
): Int32Array {
  const length = countIds(value, complain)
  if (length > most) throw complain(`expected at most ${most} token ids, found ${length}`)
  const ids = new Int32Array(length)
  copyIds(value, ids, 0, length, limit, complain)
  return ids
}

/** The same for lists of any length, letting others run in between. Memory that changes meanwhile is read as it is. */
export async function readManyIds(
  value: unknown, limit: number, complain: (reason: string) => Error, most: number,
): Promise<Int32Array> {
  const length = countIds(value, complain)
  if (length > most) throw complain(`expected at most ${most} token ids, found ${length}`)
  const ids = new Int32Array(length)
  for (let from = 0; from < length; from += sliceIds) {
    if (from > 0) await new Promise(resolve => { setImmediate(resolve) })
    copyIds(value, ids, from, Math.min(length, from + sliceIds), limit, complain)
  }
  return ids
}

/** Token ids that one list may have where nothing else limits it: the longest context that options allow. */
export const maxIds = 1 << 20
/** Token ids of a text that need not fit a context. */
export const maxManyIds = 1 << 24
const sliceIds = 1 << 16

/** The length of something that is like an array. */
export function countIds(value: unknown, complain: (reason: string) => Error): number {
  if (typeof value !== 'object' || value === null) throw complain('expected an array of token ids')
  let length: unknown
  try {
    length = (value as { length?: unknown }).length
  } catch (cause) {
    throw complain(`reading its length threw: ${said(cause)}`)
  }
  if (typeof length !== 'number' || !Number.isSafeInteger(length) || length < 0) {
    throw complain('expected an array of token ids')
  }
  return length
}

function copyIds(
  value: unknown, ids: Int32Array, from: number, to: number, limit: number, complain: (reason: string) => Error,
): void {
  const list = value as ArrayLike<unknown>
  let i = from
  let id: unknown
  try {
    for (; i < to; i++) {
      id = list[i]
      if (typeof id !== 'number' || (id | 0) !== id || id < 0 || id >= limit) break
      ids[i] = id
    }
  } catch (cause) {
    throw complain(`reading index ${i} threw: ${said(cause)}`)
  }
  if (i === to) return
  throw complain(`token out of range: index ${i} is ${show(id)}, expected an integer from 0 to ${limit - 1}`)
}
