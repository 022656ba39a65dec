// Sizes of a checkpoint from its table alone.

import fc from 'fast-check'

import { tensorSummary } from '../../lib/checkpoint/summary.js'
import type { ModelConfig, TensorEntry } from '../../lib/checkpoint/types.js'

const config = (tieWordEmbeddings: boolean): ModelConfig => ({ tieWordEmbeddings }) as ModelConfig

const entry = (name: string, storageId: number, offset: number, shape: number[]): TensorEntry => ({
  name,
  dtype: 'BF16',
  shape,
  strides: shape.map(() => 1),
  storageId,
  file: 0,
  offset,
  bytes: 2 * shape.reduce((product, dim) => product * dim, 1),
})

const table = entry('transformer.wte.weight', 0, 0, [10, 4])
const mask = entry('transformer.h.0.attn.bias', 1, 80, [1, 1, 5, 5])
const bias = entry('transformer.h.0.attn.c_attn.bias', 2, 130, [12])

describe.each([
  ['one storage, head first', [entry('lm_head.weight', 0, 0, [10, 4]), table], 40, 80],
  ['one storage, head last', [table, entry('lm_head.weight', 0, 0, [10, 4])], 40, 80],
  ['a copy', [table, entry('lm_head.weight', 3, 200, [10, 4])], 40, 160],
])('a tied head as %s', (_, tensors, parameters, bytes) => {
  test('is counted once', () => {
    const summary = tensorSummary({ config: config(true), tensors: [...tensors, mask, bias] })
    expect(summary.parameters).toBe(parameters + 12)
    expect(summary.bytesByDtype).toEqual({ BF16: bytes + 50 + 24 })
    expect(summary.uniqueBytes).toBe(bytes + 50 + 24)
    expect(summary.tensors).toBe(4)
  })
})

test('an untied head is counted', () => {
  const tensors = [table, entry('lm_head.weight', 3, 200, [10, 4])]
  expect(tensorSummary({ config: config(false), tensors }).parameters).toBe(80)
})

test('unique bytes are the bytes that some range covers', () => {
  const range = fc.record({ file: fc.nat(1), offset: fc.nat(60), count: fc.nat(10) })
  fc.assert(
    fc.property(fc.array(range, { maxLength: 12 }), ranges => {
      const tensors = ranges.map(({ file, offset, count }, i) => ({
        ...entry(`t${i}`, i, offset, [count]),
        file,
      }))
      const covered = new Set(
        tensors.flatMap(({ file, offset, bytes }) =>
          Array.from({ length: bytes }, (_, i) => `${file}:${offset + i}`),
        ),
      )
      expect(tensorSummary({ config: config(true), tensors }).uniqueBytes).toBe(covered.size)
    }),
    { numRuns: 2000 },
  )
})
