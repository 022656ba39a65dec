// pickle-values.ts: what a pickle of tensors can contain. These are records about data, never the
// objects that Python would build; there is no kind for code.

import type { DType } from './types.js'

/** A storage class named by a pickle, and the element type it stands for. */
export const storageTypes: ReadonlyMap<string, DType> = new Map<string, DType>([
  ['torch BFloat16Storage', 'BF16'],
  ['torch HalfStorage', 'F16'],
  ['torch FloatStorage', 'F32'],
  ['torch DoubleStorage', 'F64'],
  ['torch LongStorage', 'I64'],
  ['torch IntStorage', 'I32'],
  ['torch ByteStorage', 'U8'],
  ['torch BoolStorage', 'BOOL'],
  ['torch.storage UntypedStorage', 'U8'],
])

/** The functions a pickle may name. */
export const callables: ReadonlySet<string> = new Set([
  'collections OrderedDict',
  'torch._utils _rebuild_tensor_v2',
  'torch._utils _rebuild_parameter',
])

/** An allowed name. */
export interface PickleGlobal {
  readonly kind: 'global'
  readonly name: string
}

/** A reference to a storage: its file in the archive is `data/KEY`. */
export interface PickleStorage {
  readonly kind: 'storage'
  readonly dtype: DType
  readonly key: string
  /** Elements that the pickle says it has. */
  readonly elements: number
}

/** A view of a storage; nothing of it is checked against the storage yet. */
export interface PickleTensor {
  readonly kind: 'tensor'
  readonly storage: PickleStorage
  readonly offset: number
  readonly shape: readonly number[]
  readonly strides: readonly number[]
}

/** How much a compound value holds, shared parts counted each time. */
export interface PickleWeight {
  nodes: number
  depth: number
  /** Set once the value is part of another; it cannot change after that, so no cycle can arise. */
  placed: boolean
}

/** A tuple, which is complete from the start. */
export interface PickleTuple extends PickleWeight {
  readonly kind: 'tuple'
  readonly items: readonly PickleValue[]
}

/** A list. */
export interface PickleList extends PickleWeight {
  readonly kind: 'list'
  readonly items: PickleValue[]
}

/** A dict or OrderedDict; keys of other kinds than strings are kept apart by their spelling. */
export interface PickleDict extends PickleWeight {
  readonly kind: 'dict'
  readonly ordered: boolean
  readonly items: Map<string | number | boolean, PickleValue>
}

/** Any value on the stack of the reader. */
export type PickleValue =
  | null
  | boolean
  | number
  | string
  | PickleGlobal
  | PickleStorage
  | PickleTensor
  | PickleTuple
  | PickleList
  | PickleDict

/** The kind of a value, for messages and comparisons. */
export function kindOf(value: PickleValue | undefined): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'None'
  if (typeof value === 'object') return value.kind
  return { boolean: 'bool', number: 'int', string: 'str' }[
    typeof value as 'boolean' | 'number' | 'string'
  ]
}

type Kinded<K> = Extract<PickleValue, { readonly kind: K }>
type Value = PickleValue | undefined

function isKind<K extends string>(value: Value, kind: K): value is Kinded<K> {
  return typeof value === 'object' && value !== null && value.kind === kind
}

/** The kinds, as type guards. */
export const isTuple = (value: Value): value is PickleTuple => isKind(value, 'tuple')
export const isGlobal = (value: Value): value is PickleGlobal => isKind(value, 'global')
export const isStorage = (value: Value): value is PickleStorage => isKind(value, 'storage')
export const isTensor = (value: Value): value is PickleTensor => isKind(value, 'tensor')
export const isList = (value: Value): value is PickleList => isKind(value, 'list')
export const isDict = (value: Value): value is PickleDict => isKind(value, 'dict')

/** True for values that hold others. */
export function isCompound(value: Value): value is PickleTuple | PickleList | PickleDict {
  return isTuple(value) || isDict(value) || isList(value)
}
