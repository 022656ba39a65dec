// load-options.ts: the options of load and estimate, checked, with their defaults.
import type { Compat, EstimateOptions, LoadOptions, LoadProgress, Logger } from './options.js'
import { PolyLMError } from './errors.js'
import {
  invalidOption, readBag, readBoolean, readChoice, readFunction, readNumber, readSignal, type OptionBag,
} from './option-reader.js'

const estimateNames: readonly (keyof EstimateOptions)[] = [
  'device', 'dtype', 'contextSize', 'maxSequences', 'kvMemory',
]
const loadNames: ReadonlySet<string> = new Set<keyof LoadOptions>([
  ...estimateNames, 'maxQueue', 'prefixCache', 'threads', 'compat', 'legacyTokenizer', 'logger', 'signal', 'onProgress',
])

/** Checked options of estimate; `undefined` stands for "as the checkpoint or the machine says". */
export interface CheckedEstimate {
  readonly device: string
  readonly precision: 'bf16' | 'fp32'
  readonly contextSize: number | undefined
  readonly maxSequences: number
  /** Bytes, or undefined for 'auto'. */
  readonly kvMemory: number | undefined
}

/** Checked options of load. */
export interface CheckedLoad extends CheckedEstimate {
  readonly maxQueue: number
  readonly prefixCache: boolean
  /** 0 is 'auto'. */
  readonly threads: number
  readonly compat: Compat
  readonly legacyTokenizer: boolean | undefined
  readonly logger: Logger | undefined
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((progress: LoadProgress) => void) | undefined
}

/** @throws PolyLMError INVALID_OPTION. */
export function checkEstimate(source: unknown): CheckedEstimate {
  // What load takes may be handed to estimate as it is; the rest has no say in the sizes.
  return readEstimate(readBag(source, loadNames, 'estimate'))
}

/** @throws PolyLMError INVALID_OPTION. */
export function checkLoad(source: unknown): CheckedLoad {
  const bag = readBag(source, loadNames, 'load')
  const threads = bag['threads'] === 'auto' ? 0 : readNumber(bag, 'threads', { min: 1, max: 1024, integer: true })
  return {
    ...readEstimate(bag),
    maxQueue: readNumber(bag, 'maxQueue', { min: 1, max: 1_000_000, integer: true }) ?? 4096,
    prefixCache: readBoolean(bag, 'prefixCache') ?? true,
    threads: threads ?? 0,
    compat: readChoice(bag, 'compat', ['hf-4.55', 'hf-4.31']) ?? 'hf-4.55',
    legacyTokenizer: readBoolean(bag, 'legacyTokenizer'),
    logger: readFunction<Logger>(bag, 'logger'),
    signal: readSignal(bag),
    onProgress: readFunction<(progress: LoadProgress) => void>(bag, 'onProgress'),
  }
}

function readEstimate(bag: OptionBag): CheckedEstimate {
  return {
    device: readDevice(bag),
    precision: readDtype(bag),
    contextSize: readNumber(bag, 'contextSize', { min: 1, max: 1_048_576, integer: true }),
    maxSequences: readNumber(bag, 'maxSequences', { min: 1, max: 1024, integer: true }) ?? 64,
    kvMemory: readBytes(bag, 'kvMemory'),
  }
}

function readDevice(bag: OptionBag): string {
  const value = bag['device'] ?? 'auto'
  if (typeof value === 'string' && /^(?:auto|cpu|ref|cuda|cuda:\d{1,3})$/.test(value)) return value
  throw invalidOption('device', value, "expected 'auto', 'cpu', 'cuda', 'cuda:0' (or another number) or 'ref'")
}

function readDtype(bag: OptionBag): 'bf16' | 'fp32' {
  const value = bag['dtype']
  if (value === 'int8' || value === 'int4') throw invalidOption('dtype', value, 'not implemented yet')
  return readChoice(bag, 'dtype', ['auto', 'bf16', 'fp32']) === 'fp32' ? 'fp32' : 'bf16'
}

const units: Readonly<Record<string, number>> = {
  B: 1, kB: 1e3, MB: 1e6, GB: 1e9, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30,
}

/** A number of bytes, or text such as '4GiB'; undefined for 'auto'. */
export function readBytes(bag: OptionBag, name: string): number | undefined {
  const value = bag[name]
  if (value === undefined || value === 'auto') return undefined
  const bytes = typeof value === 'number' ? value : typeof value === 'string' ? parseBytes(value) : undefined
  if (bytes !== undefined && Number.isFinite(bytes) && bytes >= 1 && bytes <= 2 ** 50) return Math.floor(bytes)
  throw invalidOption(name, value, "expected 'auto', a number of bytes from 1, or text such as '4GiB' or '500MB'")
}

function parseBytes(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?(B|kB|MB|GB|KiB|MiB|GiB)$/.exec(text)
  return match ? Number(match[1]) * (units[match[2] as string] ?? NaN) : undefined
}

/** The context to use: the option, or all that the checkpoint has. */
export function contextOf(checked: CheckedEstimate, positions: number): number {
  const { contextSize } = checked
  if (contextSize === undefined) return positions
  if (contextSize <= positions) return contextSize
  throw new PolyLMError(
    'INVALID_OPTION',
    `contextSize: found ${contextSize}, the checkpoint has ${positions} positions`,
    { option: 'contextSize', value: contextSize, reason: `more than the ${positions} positions of the checkpoint` },
  )
}
