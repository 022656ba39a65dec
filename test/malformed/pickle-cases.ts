// pickle-cases.ts: the rows P14 to P29 of the catalogue: pickles that no state dict is, most of
// them attacks on readers that execute. Nothing here would be dangerous to a reader that only
// records.

import { le, type Case } from './case.js'
import { torchRows, type Row } from './torch-cases.js'
import {
  noHooks,
  op,
  pickle,
  stateDict,
  storage,
  tensor,
  torchFile,
  type TensorParts,
} from './torch-file.js'

type Expected = Case['expected']

// A file whose pickle is the protocol, these pieces, and STOP.
const row = (id: string, what: string, expected: Expected, ...pieces: Buffer[]): Row => [
  id,
  what,
  expected,
  () => torchFile(pickle(...pieces)),
]
const raw = (id: string, what: string, expected: Expected, bytes: () => Buffer): Row => [
  id,
  what,
  expected,
  () => torchFile(bytes()),
]
const view = (what: string, expected: Expected, parts: TensorParts, id = 'P23'): Row => [
  id,
  what,
  expected,
  () => torchFile(stateDict({ w: tensor(parts) })),
]
const call = (module: string, name: string, ...args: Buffer[]): Buffer =>
  Buffer.concat([op.global(module, name), op.mark, ...args, op.tuple, op.reduce])
const code = (...bytes: number[]): Buffer => Buffer.from(bytes)
const valid = stateDict({ w: tensor() })
const repeat = (piece: Buffer, count: number): Buffer =>
  Buffer.alloc(piece.length * count, piece as Uint8Array)

const stackRows: readonly Row[] = [
  row('P14', 'LONG_BINPUT 2^31', 'PICKLE_LIMIT', op.dict, code(0x72), le(2 ** 31, 4)),
  row('P14', 'LONG_BINPUT 2^20', 'PICKLE_LIMIT', op.dict, code(0x72), le(2 ** 20, 4)),
  raw('P14', 'LONG_BINPUT 2^20 - 1', 'ok', () => {
    const last = Buffer.concat([code(0x72), le(2 ** 20 - 1, 4)])
    return pickle(op.dict, last, op.text('w'), tensor(), op.setItem)
  }),
  raw('P15', 'no STOP', 'PICKLE_STACK', () => valid.subarray(0, -1)),
  row('P15', 'empty stack at STOP', 'PICKLE_STACK'),
  row('P15', 'two values at STOP', 'PICKLE_STACK', op.dict, op.dict),
  row('P15', 'open MARK at STOP', 'PICKLE_STACK', op.mark, op.dict),
  raw('P15', 'bytes after STOP', 'PICKLE_STACK', () => Buffer.concat([valid, op.stop])),
  row('P15', 'pop below a MARK', 'PICKLE_STACK', op.dict, op.mark, op.tuple1),
  row('P15', 'MARK missing', 'PICKLE_STACK', op.dict, op.tuple),
  row('P15', 'memo entry never stored', 'PICKLE_STACK', op.get(3)),
  raw('P15', 'empty pickle', 'PICKLE_STACK', () => Buffer.alloc(0)),
  row('P26', 'BINUNICODE beyond the buffer', 'PICKLE_STACK', code(0x58), le(100, 4)),
  row('P26', 'BINUNICODE of 4 GiB', 'PICKLE_STACK', code(0x58), le(0xffffffff, 4)),
  row('P26', 'BINUNICODE not UTF-8', 'PICKLE_STACK', op.text(code(0xff, 0xfe))),
  row('P26', 'a name that does not end', 'PICKLE_STACK', Buffer.from('ctorch')),
]

const opcodes: Readonly<Record<string, Buffer>> = {
  INST: Buffer.from('ios\nsystem\n'),
  OBJ: Buffer.from('o'),
  EXT1: code(0x82, 1),
  'PERSID text': Buffer.from('P1\n'),
  NEWOBJ: code(0x81),
  NEWOBJ_EX: code(0x92),
  STACK_GLOBAL: code(0x93),
  FRAME: Buffer.concat([code(0x95), le(1, 8)]),
  BYTEARRAY8: Buffer.concat([code(0x96), le(0, 8)]),
  MEMOIZE: code(0x94),
  BINFLOAT: Buffer.concat([Buffer.from('G'), le(0, 8)]),
  DUP: Buffer.from('2'),
  'STRING text': Buffer.from("S'x'\n"),
  'INT text': Buffer.from('I1\n'),
  LONG4: Buffer.concat([code(0x8b), le(0x7fffffff, 4)]),
  '0xff': code(0xff),
}

const opcodeRows: readonly Row[] = [
  ...Object.entries(opcodes).map(([name, bytes]) =>
    row('P16', name, 'PICKLE_OPCODE', op.dict, bytes),
  ),
  ...[0, 1, 3, 4, 5].map(protocol =>
    raw('P17', `protocol ${protocol}`, 'PICKLE_OPCODE', () => {
      return Buffer.concat([code(0x80, protocol), valid.subarray(2)])
    }),
  ),
  raw('P17', 'no protocol', 'PICKLE_OPCODE', () => valid.subarray(2)),
  row('P17', 'a second protocol', 'PICKLE_OPCODE', op.proto, op.dict),
]

const globals: readonly (readonly [id: string, module: string, name: string])[] = [
  ['P18', 'os', 'system'],
  ['P18', 'posix', 'system'],
  ['P18', 'builtins', 'eval'],
  ['P18', '__builtin__', 'exec'],
  ['P18', 'pip', 'main'],
  ['P18', 'torch', 'load'],
  ['P18', 'torch._utils', '_rebuild_sparse_tensor'],
  ['P18', 'torch._utils', '_rebuild_tensor'],
  ['P18', 'torch.storage', '_load_from_bytes'],
  ['P18', 'torch', 'ComplexFloatStorage'],
  ['P19', 'os', 'OrderedDict'],
  ['P19', 'collections', 'defaultdict'],
  ['P19', 'torch._utils', 'OrderedDict'],
  ['P19', 'collections\n', 'OrderedDict'],
  ['P19', 'collections ', 'OrderedDict'],
  ['P19', 'torch', 'storage UntypedStorage'],
  ['P19', 'Collections', 'OrderedDict'],
  ['P19', 'c\xf6llections', 'OrderedDict'],
  ['P19', 'collections', 'Ord\u0435redDict'],
  ['P19', '', ''],
  ['P19', 'x'.repeat(10_000), 'x'],
]

const globalRows: readonly Row[] = globals.map(([id, module, name]) =>
  row(
    id,
    JSON.stringify(`${module}.${name}`).slice(0, 60),
    'PICKLE_GLOBAL',
    op.global(module, name),
  ),
)

const orderedDict = op.global('collections', 'OrderedDict')
const rebuild = ['torch._utils', '_rebuild_tensor_v2'] as const
const shape = Buffer.concat([op.int(2), op.int(3), op.tuple2])
const strides = Buffer.concat([op.int(3), op.int(1), op.tuple2])
const good = [storage(), op.int(0), shape, strides, op.no, noHooks] as const
// The arguments of a tensor with one replaced.
const replaced = (position: number, by: Buffer): Buffer =>
  call(...rebuild, ...good.map((piece, i) => (i === position ? by : piece)))
const asWeight = (value: Buffer): Buffer[] => [op.dict, op.text('w'), value, op.setItem]
const list = Buffer.concat([op.list, op.int(1), op.append])

const reduceRows: readonly Row[] = [
  row('P20', 'REDUCE of a text', 'PICKLE_TYPE', op.text('os.system'), op.unit, op.reduce),
  row('P20', 'REDUCE with a list', 'PICKLE_TYPE', orderedDict, op.list, op.reduce),
  row('P20', 'REDUCE of a storage class', 'PICKLE_TYPE', call('torch', 'FloatStorage', op.int(1))),
  row('P20', 'OrderedDict of something', 'PICKLE_TYPE', call('collections', 'OrderedDict', list)),
  row('P20', 'tensor of 0 arguments', 'PICKLE_TYPE', call(...rebuild)),
  row('P20', 'tensor of 5 arguments', 'PICKLE_TYPE', call(...rebuild, ...good.slice(0, 5))),
  row('P20', 'tensor of 8', 'PICKLE_TYPE', call(...rebuild, ...good, op.none, op.none)),
  row('P20', 'tensor of 7, no metadata', 'ok', ...asWeight(call(...rebuild, ...good, op.none))),
  row(
    'P20',
    'tensor with metadata, such as a negated view',
    'PICKLE_TYPE',
    call(...rebuild, ...good, Buffer.concat([op.dict, op.text('neg'), op.yes, op.setItem])),
  ),
  ...[op.none, op.text('0'), op.int(7), orderedDict, op.dict, list].flatMap((wrong, i) =>
    [0, 2, 3, 4, 5]
      .filter(position => !(position === 5 && i === 4))
      .map(position =>
        row('P20', `argument ${position} of kind ${i}`, 'PICKLE_TYPE', replaced(position, wrong)),
      ),
  ),
  row('P20', 'offset a text', 'PICKLE_TYPE', replaced(1, op.text('0'))),
  row(
    'P20',
    'a size that is a text',
    'PICKLE_TYPE',
    replaced(2, Buffer.concat([op.text('2'), op.tuple1])),
  ),
  row(
    'P20',
    'hooks that hold something',
    'PICKLE_TYPE',
    replaced(5, Buffer.concat([noHooks, op.int(0), op.int(0), op.setItem])),
  ),
  row(
    'P20',
    'parameter of no tensor',
    'PICKLE_TYPE',
    call('torch._utils', '_rebuild_parameter', op.none, op.no, noHooks),
  ),
  row(
    'P20',
    'parameter',
    'ok',
    ...asWeight(call('torch._utils', '_rebuild_parameter', tensor(), op.no, noHooks)),
  ),
  row('P20', 'persistent id a text', 'PICKLE_TYPE', op.text('0'), op.persId),
  row(
    'P20',
    'persistent id of a function',
    'PICKLE_TYPE',
    op.mark,
    op.text('storage'),
    orderedDict,
    op.text('0'),
    op.text('cpu'),
    op.int(6),
    op.tuple,
    op.persId,
  ),
  row('P20', 'top level a list', 'PICKLE_TYPE', op.list),
  row('P20', 'top level a tensor', 'PICKLE_TYPE', tensor()),
  row('P20', 'a value that is no tensor', 'PICKLE_TYPE', ...asWeight(op.int(3))),
  row(
    'P20',
    'a nested dict',
    'PICKLE_TYPE',
    op.dict,
    op.text('model'),
    ...asWeight(tensor()),
    op.setItem,
  ),
  row('P20', 'a name that is a number', 'PICKLE_TYPE', op.dict, op.int(3), tensor(), op.setItem),
]

const containerRows: readonly Row[] = [
  row('P21', 'SETITEM on a list', 'PICKLE_TYPE', op.list, op.text('a'), op.int(1), op.setItem),
  row(
    'P21',
    'SETITEMS on a tuple',
    'PICKLE_TYPE',
    op.unit,
    op.mark,
    op.text('a'),
    op.int(1),
    op.setItems,
  ),
  row('P21', 'SETITEM on a storage', 'PICKLE_TYPE', storage(), op.text('a'), op.int(1), op.setItem),
  row('P21', 'SETITEM on a tensor', 'PICKLE_TYPE', tensor(), op.text('a'), op.int(1), op.setItem),
  row('P21', 'APPEND on a dict', 'PICKLE_TYPE', op.dict, op.int(1), op.append),
  row('P21', 'APPENDS on a text', 'PICKLE_TYPE', op.text('a'), op.mark, op.int(1), op.appends),
  row('P21', 'odd SETITEMS', 'PICKLE_TYPE', op.dict, op.mark, op.text('a'), op.setItems),
  row('P21', 'a key that is a list', 'PICKLE_TYPE', op.dict, op.list, op.int(1), op.setItem),
  row('P21', 'a key that is None', 'PICKLE_TYPE', op.dict, op.none, op.int(1), op.setItem),
  row('P22', 'BUILD with a text', 'PICKLE_TYPE', noHooks, op.text('x'), op.build),
  row('P22', 'BUILD with a tuple', 'PICKLE_TYPE', noHooks, op.unit, op.build),
  row('P22', 'BUILD on a plain dict', 'PICKLE_TYPE', op.dict, op.dict, op.build),
  row('P22', 'BUILD on a tensor', 'PICKLE_TYPE', tensor(), op.dict, op.build),
  row('P28', 'list in itself', 'PICKLE_TYPE', op.list, op.put(0), op.get(0), op.append),
  row(
    'P28',
    'list in a tuple in itself',
    'PICKLE_TYPE',
    op.list,
    op.put(0),
    op.get(0),
    op.tuple1,
    op.append,
  ),
  row(
    'P28',
    'dict in itself',
    'PICKLE_TYPE',
    op.dict,
    op.put(0),
    op.text('a'),
    op.get(0),
    op.setItem,
  ),
  row(
    'P28',
    'OrderedDict as its own state',
    'PICKLE_TYPE',
    noHooks,
    op.put(0),
    op.get(0),
    op.build,
  ),
  row(
    'P28',
    'two lists in each other',
    'PICKLE_TYPE',
    op.list,
    op.put(0),
    op.list,
    op.put(1),
    op.get(0),
    op.append,
    op.append,
    op.get(1),
    op.get(0),
    op.append,
  ),
  raw('P27', '2^24 + 1 opcodes', 'PICKLE_LIMIT', () => pickle(repeat(Buffer.from('(0'), 2 ** 23))),
  raw('P27', '2^16 values on the stack', 'PICKLE_STACK', () => pickle(repeat(op.none, 2 ** 16))),
  raw('P27', '2^16 + 1 values on the stack', 'PICKLE_LIMIT', () =>
    pickle(repeat(op.none, 2 ** 16 + 1)),
  ),
  raw('P27', '2^16 + 1 marks', 'PICKLE_LIMIT', () => pickle(repeat(op.mark, 2 ** 16 + 1))),
  raw('P27', 'an integer of 9 bytes', 'PICKLE_LIMIT', () => pickle(code(0x8a, 9), le(1, 9))),
  raw('P29', 'tuples of tuples', 'PICKLE_LIMIT', () => {
    const doubling = Array.from({ length: 30 }, (_, i) => [op.put(i), op.get(i), op.tuple2])
    return pickle(op.unit, ...doubling.flat())
  }),
  raw('P29', 'lists of tuples', 'PICKLE_LIMIT', () => {
    const wide = Buffer.concat([op.mark, repeat(op.none, 60_000), op.tuple, op.put(0), op.list])
    const many = Buffer.concat([op.put(1), op.mark, repeat(op.get(0), 300), op.appends])
    return pickle(wide, many, op.tuple2)
  }),
  raw('P29', '65 tuples in each other', 'PICKLE_LIMIT', () =>
    pickle(op.unit, repeat(op.tuple1, 65)),
  ),
]

const viewRows: readonly Row[] = [
  view('a transposed view', 'ok', { size: [3, 2], stride: [1, 3] }),
  view('the last element', 'ok', { size: [1], stride: [1], offset: 5 }),
  view('an empty view at the end', 'ok', { size: [0, 4], stride: [4, 1], offset: 6 }),
  view('an expanded view', 'ok', { size: [1000, 6], stride: [0, 1] }),
  view('offset one too far', 'STORAGE_MISMATCH', { offset: 1 }),
  view('an empty view behind the end', 'STORAGE_MISMATCH', { size: [0], stride: [1], offset: 7 }),
  view('size one too large', 'STORAGE_MISMATCH', { size: [3, 3] }),
  view('stride one too large', 'STORAGE_MISMATCH', { stride: [4, 1] }),
  view('huge stride', 'STORAGE_MISMATCH', { stride: [2 ** 52, 2 ** 52] }),
  view('product beyond 2^64', 'STORAGE_MISMATCH', {
    size: [2 ** 40, 2 ** 40],
    stride: [2 ** 40, 1],
  }),
  view('negative offset', 'STORAGE_MISMATCH', { offset: -1 }),
  view('negative size', 'STORAGE_MISMATCH', { size: [-2, 3] }),
  view('negative stride', 'STORAGE_MISMATCH', { stride: [-3, 1], offset: 3 }),
  view('stride 0 with huge size', 'STORAGE_MISMATCH', { size: [2 ** 40, 6], stride: [0, 1] }),
  view('stride 0, 2^24 elements', 'ok', { size: [2 ** 24], stride: [0] }),
  view('stride 0, 2^24 + 1 elements', 'STORAGE_MISMATCH', { size: [2 ** 24 + 1], stride: [0] }),
  view('fewer strides than sizes', 'STORAGE_MISMATCH', { stride: [1] }),
  view('rank 9', 'TENSOR_SHAPE', { size: Array(9).fill(1), stride: Array(9).fill(1) }),
  view('numel one less', 'STORAGE_MISMATCH', { elements: 5 }, 'P24'),
  view('numel one more', 'STORAGE_MISMATCH', { elements: 7 }, 'P24'),
  view('numel negative', 'STORAGE_MISMATCH', { elements: -6 }, 'P24'),
  view('another type', 'STORAGE_MISMATCH', { type: 'HalfStorage' }, 'P24'),
  view('key not in the archive', 'STORAGE_MISMATCH', { key: '1' }, 'P25'),
  view('key a/../b', 'STORAGE_MISMATCH', { key: 'a/../b' }, 'P25'),
  view('key ../data/0', 'STORAGE_MISMATCH', { key: '../data/0' }, 'P25'),
  view('key of 1 MB', 'STORAGE_MISMATCH', { key: '0'.repeat(1_000_000) }, 'P25'),
  view('key empty', 'STORAGE_MISMATCH', { key: '' }, 'P25'),
]

const nameRows: readonly Row[] = [512, 513].map(bytes =>
  raw('S45', `tensor name of ${bytes} bytes`, bytes === 512 ? 'ok' : 'LIMIT', () =>
    stateDict({ ['n'.repeat(bytes)]: tensor() }),
  ),
)

/** P14 to P29. */
export const pickleCases: readonly Case[] = torchRows(
  [stackRows, opcodeRows, globalRows, reduceRows, containerRows, viewRows, nameRows].flat(),
)
