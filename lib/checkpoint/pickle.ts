// pickle.ts: reads the pickles that PyTorch writes, as data. A pickle is a program for a stack
// machine that can call anything by name; this machine knows the thirty-odd opcodes of protocol 2
// that a state dict needs, a fixed list of names, and builds records. It calls nothing, imports
// nothing, and refuses the first thing it does not know. The trap is to accept more "to be
// helpful": every escape from other readers began so.

import { isUtf8 } from 'node:buffer'

import { PolyLMError, type ErrorCode } from '../errors.js'
import {
  maxPickleDepth,
  maxPickleMemo,
  maxPickleNodes,
  maxPickleOps,
  maxPickleStack,
  maxPickleStringBytes,
} from './limits.js'
import { op } from './pickle-opcodes.js'
import {
  callables,
  isCompound,
  isDict,
  isGlobal,
  isList,
  isStorage,
  isTensor,
  isTuple,
  kindOf,
  storageTypes,
  type PickleDict,
  type PickleStorage,
  type PickleTensor,
  type PickleValue,
  type PickleWeight,
} from './pickle-values.js'
import type { Slicer } from './slicer.js'
import { quote, quotePath } from './text.js'

const maxNameBytes = 256
// Opcodes between two looks at the clock.
const stepOps = 512

/**
 * Reads one pickle.
 *
 * @param file - named in errors.
 * @throws PolyLMError PICKLE_GLOBAL, PICKLE_LIMIT, PICKLE_OPCODE, PICKLE_STACK or PICKLE_TYPE.
 */
export async function readPickle(
  bytes: Buffer,
  file: string,
  slicer: Slicer,
): Promise<PickleValue> {
  const machine = new Machine(bytes, file)
  while (!machine.run(stepOps)) {
    if (slicer.due()) await slicer.pause()
  }
  return machine.result
}

class Machine {
  result: PickleValue = null
  readonly #bytes: Buffer
  readonly #file: string
  #at = 0
  #opAt = 0
  #ops = 0
  #stack: PickleValue[] = []
  // Height of the stack at each open MARK.
  readonly #marks: number[] = []
  readonly #memo = new Map<number, PickleValue>()

  constructor(bytes: Buffer, file: string) {
    this.#bytes = bytes
    this.#file = file
    if (this.#u8() !== op.proto)
      throw this.#fail('PICKLE_OPCODE', 'it does not begin with a protocol number')
    const protocol = this.#u8()
    if (protocol !== 2) throw this.#fail('PICKLE_OPCODE', `its protocol is ${protocol}, expected 2`)
  }

  // Runs up to `count` opcodes; true after STOP.
  run(count: number): boolean {
    for (let i = 0; i < count; i++) {
      if (++this.#ops > maxPickleOps)
        throw this.#fail('PICKLE_LIMIT', `more than ${maxPickleOps} opcodes`)
      this.#opAt = this.#at
      const code = this.#u8()
      if (code === op.stop) {
        this.#stop()
        return true
      }
      if (!this.#constant(code) && !this.#structure(code)) this.#compound(code)
      if (this.#stack.length + this.#marks.length > maxPickleStack) {
        throw this.#fail('PICKLE_LIMIT', `more than ${maxPickleStack} values on the stack`)
      }
    }
    return false
  }

  #stop(): void {
    this.result = this.#pop()
    if (this.#stack.length > 0 || this.#marks.length > 0)
      throw this.#fail('PICKLE_STACK', 'values are left at the end')
    if (this.#at !== this.#bytes.length) throw this.#fail('PICKLE_STACK', 'bytes follow the end')
  }

  // Opcodes that push a value found in the stream itself.
  #constant(code: number): boolean {
    switch (code) {
      case op.none:
        this.#push(null)
        return true
      case op.newTrue:
        this.#push(true)
        return true
      case op.newFalse:
        this.#push(false)
        return true
      case op.binInt1:
        this.#push(this.#u8())
        return true
      case op.binInt2:
        this.#push(this.#take(2).readUInt16LE(0))
        return true
      case op.binInt:
        this.#push(this.#take(4).readInt32LE(0))
        return true
      case op.long1:
        this.#push(this.#long())
        return true
      case op.binUnicode:
        this.#push(this.#unicode())
        return true
      case op.global:
        this.#push(this.#global())
        return true
      case op.emptyTuple:
        this.#push(this.#tuple([]))
        return true
      case op.emptyList:
        this.#push({ kind: 'list', items: [], nodes: 1, depth: 1, placed: false })
        return true
      case op.emptyDict:
        this.#push(newDict(false))
        return true
      default:
        return false
    }
  }

  // Opcodes that move values about: marks and memo.
  #structure(code: number): boolean {
    switch (code) {
      case op.mark:
        this.#marks.push(this.#stack.length)
        return true
      case op.pop:
        this.#popOrMark()
        return true
      case op.popMark:
        this.#popToMark()
        return true
      case op.binPut:
        this.#put(this.#u8())
        return true
      case op.longBinPut:
        this.#put(this.#take(4).readUInt32LE(0))
        return true
      case op.binGet:
        this.#get(this.#u8())
        return true
      case op.longBinGet:
        this.#get(this.#take(4).readUInt32LE(0))
        return true
      default:
        return false
    }
  }

  // Opcodes that combine values.
  #compound(code: number): void {
    switch (code) {
      case op.tuple:
        return this.#push(this.#tuple(this.#popToMark()))
      case op.tuple1:
        return this.#push(this.#tuple(this.#popMany(1)))
      case op.tuple2:
        return this.#push(this.#tuple(this.#popMany(2)))
      case op.tuple3:
        return this.#push(this.#tuple(this.#popMany(3)))
      case op.append:
        return this.#append(this.#popMany(1))
      case op.appends:
        return this.#append(this.#popToMark())
      case op.setItem:
        return this.#setItems(this.#popMany(2))
      case op.setItems:
        return this.#setItems(this.#popToMark())
      case op.binPersId:
        return this.#push(this.#storage(this.#pop()))
      case op.reduce:
        return this.#reduce()
      case op.build:
        return this.#build()
      default:
        throw this.#fail(
          'PICKLE_OPCODE',
          `opcode 0x${code.toString(16).padStart(2, '0')} is not one of a state dict`,
        )
    }
  }

  #u8(): number {
    const byte = this.#bytes[this.#at]
    if (byte === undefined) throw this.#fail('PICKLE_STACK', 'it ends before its STOP')
    this.#at++
    return byte
  }

  #take(count: number): Buffer {
    const end = this.#at + count
    if (end > this.#bytes.length) {
      throw this.#fail(
        'PICKLE_STACK',
        `${count} bytes are announced, ${this.#bytes.length - this.#at} are left`,
      )
    }
    const bytes = this.#bytes.subarray(this.#at, end)
    this.#at = end
    return bytes
  }

  #unicode(): string {
    const count = this.#take(4).readUInt32LE(0)
    const bytes = this.#take(count)
    if (count > maxPickleStringBytes) throw this.#fail('PICKLE_LIMIT', `a string of ${count} bytes`)
    if (!isUtf8(bytes)) throw this.#fail('PICKLE_STACK', 'a string that is not UTF-8')
    return bytes.toString('utf8')
  }

  #long(): number {
    const bytes = this.#take(this.#u8())
    if (bytes.length > 8) throw this.#fail('PICKLE_LIMIT', `an integer of ${bytes.length} bytes`)
    let value = 0n
    for (const [i, byte] of bytes.entries()) value |= BigInt(byte) << BigInt(8 * i)
    const number = Number(BigInt.asIntN(8 * bytes.length, value))
    if (!Number.isSafeInteger(number)) throw this.#fail('PICKLE_LIMIT', `the integer ${number}`)
    return number
  }

  #global(): PickleValue {
    const name = `${this.#line()} ${this.#line()}`
    if (callables.has(name) || storageTypes.has(name)) return { kind: 'global', name }
    throw this.#fail(
      'PICKLE_GLOBAL',
      `it names ${quote(name.replace(' ', '.'))}, which is not a part of tensors`,
      'nothing was executed; do not load this file with a reader that would',
    )
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at)
    if (end < 0) throw this.#fail('PICKLE_STACK', 'a name that does not end')
    if (end - this.#at > maxNameBytes)
      throw this.#fail('PICKLE_GLOBAL', `a name of ${end - this.#at} bytes`)
    const line = this.#bytes.toString('latin1', this.#at, end)
    this.#at = end + 1
    return line
  }

  #push(value: PickleValue): void {
    this.#stack.push(value)
  }

  #pop(): PickleValue {
    const floor = this.#marks.at(-1) ?? 0
    if (this.#stack.length <= floor)
      throw this.#fail('PICKLE_STACK', 'a value is missing on the stack')
    return this.#stack.pop() as PickleValue
  }

  #popMany(count: number): PickleValue[] {
    const values: PickleValue[] = []
    for (let i = 0; i < count; i++) values.push(this.#pop())
    return values.reverse()
  }

  #popToMark(): PickleValue[] {
    const height = this.#marks.pop()
    if (height === undefined) throw this.#fail('PICKLE_STACK', 'a MARK is missing')
    return this.#stack.splice(height)
  }

  #popOrMark(): void {
    if (this.#marks.at(-1) === this.#stack.length) this.#marks.pop()
    else this.#pop()
  }

  #top(): PickleValue {
    const value = this.#pop()
    this.#stack.push(value)
    return value
  }

  #put(index: number): void {
    if (index >= maxPickleMemo)
      throw this.#fail('PICKLE_LIMIT', `memo index ${index}, at most ${maxPickleMemo - 1}`)
    this.#memo.set(index, this.#top())
  }

  #get(index: number): void {
    const value = this.#memo.get(index)
    if (value === undefined)
      throw this.#fail('PICKLE_STACK', `memo entry ${index} was never stored`)
    this.#push(value)
  }

  #tuple(items: PickleValue[]): PickleValue {
    const tuple = { kind: 'tuple', items, nodes: 1, depth: 1, placed: false } as const
    return this.#place(tuple, items)
  }

  #append(items: PickleValue[]): void {
    const target = this.#top()
    if (!isList(target)) {
      throw this.#fail('PICKLE_TYPE', `APPEND to ${kindOf(target)}, expected a list`)
    }
    this.#place(target, items)
    for (const item of items) target.items.push(item)
  }

  #setItems(items: PickleValue[]): void {
    const target = this.#top()
    if (!isDict(target))
      throw this.#fail('PICKLE_TYPE', `SETITEM on ${kindOf(target)}, expected a dict`)
    if (items.length % 2 !== 0) throw this.#fail('PICKLE_TYPE', 'a key without a value')
    this.#place(target, items)
    for (let i = 0; i < items.length; i += 2) {
      const key = items[i] ?? null
      if (key === null || typeof key === 'object')
        throw this.#fail('PICKLE_TYPE', `a dict key of kind ${kindOf(key)}`)
      target.items.set(key, items[i + 1] ?? null)
    }
  }

  // Accounts for `items` becoming parts of `whole`. A part can no longer change, and a value cannot
  // hold itself.
  #place<T extends PickleValue & PickleWeight>(whole: T, items: readonly PickleValue[]): T {
    if (whole.placed)
      throw this.#fail(
        'PICKLE_TYPE',
        `a ${kindOf(whole)} changes after it became part of another value`,
      )
    for (const item of items) {
      if (item === whole) throw this.#fail('PICKLE_TYPE', `a ${kindOf(whole)} that contains itself`)
      if (isCompound(item)) item.placed = true
      whole.nodes += isCompound(item) ? item.nodes : 1
      whole.depth = Math.max(whole.depth, isCompound(item) ? item.depth + 1 : 2)
    }
    if (whole.nodes > maxPickleNodes)
      throw this.#fail('PICKLE_LIMIT', `a value of more than ${maxPickleNodes} parts`)
    if (whole.depth > maxPickleDepth)
      throw this.#fail('PICKLE_LIMIT', `nesting deeper than ${maxPickleDepth}`)
    return whole
  }

  // The persistent id of a storage: ('storage', class, key, location, elements).
  #storage(id: PickleValue): PickleStorage {
    const [tag, type, key, location, elements] = isTuple(id) ? id.items : []
    const name = isGlobal(type) ? type.name : ''
    const dtype = storageTypes.get(name)
    if (
      !isTuple(id) ||
      id.items.length !== 5 ||
      tag !== 'storage' ||
      dtype === undefined ||
      typeof key !== 'string' ||
      typeof location !== 'string' ||
      typeof elements !== 'number'
    ) {
      throw this.#fail('PICKLE_TYPE', 'a persistent id that is not a storage')
    }
    return { kind: 'storage', dtype, key, elements }
  }

  #reduce(): void {
    const args = this.#pop()
    const callee = this.#pop()
    if (!isTuple(args))
      throw this.#fail('PICKLE_TYPE', `REDUCE with ${kindOf(args)}, expected a tuple`)
    const name = isGlobal(callee) ? callee.name : ''
    if (name === 'collections OrderedDict' && args.items.length === 0)
      return this.#push(newDict(true))
    if (name === 'torch._utils _rebuild_tensor_v2') return this.#push(this.#tensor(args.items))
    if (name === 'torch._utils _rebuild_parameter') return this.#push(this.#parameter(args.items))
    throw this.#fail(
      'PICKLE_TYPE',
      name === ''
        ? `REDUCE of ${kindOf(callee)}, expected a function`
        : `REDUCE of ${quote(name)} with ${args.items.length} arguments`,
    )
  }

  // _rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks[,
  // metadata])
  #tensor(args: readonly PickleValue[]): PickleTensor {
    const [storage, offset, size, stride, grad, hooks, metadata] = args
    const shape = integers(size)
    const strides = integers(stride)
    const plain =
      metadata === undefined || metadata === null || (isDict(metadata) && metadata.items.size === 0)
    if (
      (args.length !== 6 && args.length !== 7) ||
      !isStorage(storage) ||
      typeof offset !== 'number' ||
      shape === undefined ||
      strides === undefined ||
      typeof grad !== 'boolean' ||
      !isEmptyDict(hooks) ||
      !plain
    ) {
      const kinds = args.slice(0, 8).map(kindOf).join(', ')
      throw this.#fail(
        'PICKLE_TYPE',
        `a tensor made of (${kinds}), expected (storage, int, ints, ints, bool, {})`,
      )
    }
    return { kind: 'tensor', storage, offset, shape, strides }
  }

  // _rebuild_parameter(tensor, requires_grad, backward_hooks)
  #parameter(args: readonly PickleValue[]): PickleTensor {
    const [tensor, grad, hooks] = args
    if (
      args.length !== 3 ||
      !isTensor(tensor) ||
      typeof grad !== 'boolean' ||
      !isEmptyDict(hooks)
    ) {
      const kinds = args.slice(0, 8).map(kindOf).join(', ')
      throw this.#fail('PICKLE_TYPE', `a parameter made of (${kinds}), expected (tensor, bool, {})`)
    }
    return tensor
  }

  // An OrderedDict carries its attributes, such as _metadata, as a dict; they say nothing about
  // tensors.
  #build(): void {
    const state = this.#pop()
    const target = this.#top()
    if (!isDict(target) || !target.ordered || !isDict(state)) {
      throw this.#fail(
        'PICKLE_TYPE',
        `BUILD of ${kindOf(target)} with ${kindOf(state)}, expected OrderedDict and dict`,
      )
    }
    this.#place(target, [state])
  }

  #fail(code: ErrorCode, text: string, hint?: string): PolyLMError {
    return new PolyLMError(
      code,
      `${quotePath(this.#file)}: its pickle cannot be read: ${text} (at byte ${this.#opAt})`,
      { file: this.#file, offset: this.#opAt, hint },
    )
  }
}

function newDict(ordered: boolean): PickleDict {
  return { kind: 'dict', ordered, items: new Map(), nodes: 1, depth: 1, placed: false }
}

function integers(value: PickleValue | undefined): readonly number[] | undefined {
  if (!isTuple(value)) return undefined
  return value.items.every(item => typeof item === 'number')
    ? (value.items as readonly number[])
    : undefined
}

const isEmptyDict = (value: PickleValue | undefined): boolean =>
  isDict(value) && value.items.size === 0
