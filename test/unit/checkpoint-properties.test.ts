// Damage at random: whatever happens to a valid file, the readers answer with a table or a typed
// error, and a table that is accepted describes the same tensors, as far as the format protects
// them by checksums.

import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import fc from 'fast-check'

import { withFile } from '../../lib/checkpoint/file.js'
import { openCheckpoint } from '../../lib/checkpoint/open.js'
import { readSafetensors } from '../../lib/checkpoint/safetensors.js'
import { sniffFormat } from '../../lib/checkpoint/sniff.js'
import { readTorchBin } from '../../lib/checkpoint/torch-bin.js'
import { dtypeBits, type FileTable } from '../../lib/checkpoint/types.js'
import { isPolyLMError } from '../../lib/errors.js'
import { tinyConfig, withScratch, writeFiles } from '../malformed/case.js'
import { crc32 } from '../malformed/crc.js'
import { hashTensor } from '../malformed/read-tensor.js'
import { safetensors, tinyData, tinyHeader } from '../malformed/safetensors-cases.js'
import { index, shard, sharded } from '../malformed/shard-cases.js'
import { members, archive, stateDict, tensor, tinyTorch } from '../malformed/torch-file.js'

const validSafetensors = safetensors({ __metadata__: { format: 'pt' }, ...tinyHeader })
const validTorch = tinyTorch.bytes
const plainTorch = archive(members(stateDict({ w: tensor() })), { flags: 0, zip64: false }).bytes

type Outcome = FileTable | 'refused'

// The table of one file, or 'refused'; anything but a typed error fails the test.
async function read(path: string, bytes: Buffer): Promise<Outcome> {
  rmSync(path, { force: true })                                 // ext4 waits for the disk when a file is cut and written again
  writeFileSync(path, bytes)
  try {
    return await withFile(path, async file => {
      const reader = (await sniffFormat(file)) === 'torch' ? readTorchBin : readSafetensors
      return await reader(file, { file: 0, firstStorageId: 0 })
    })
  } catch (e) {
    if (isPolyLMError(e) && e.code !== 'INTERNAL') return 'refused'
    throw e
  }
}

// What the core checks again: every range in the file and as long as shape and type say.
function checkRanges({ tensors }: FileTable, bytes: Buffer): void {
  for (const { offset, bytes: span, shape, strides, dtype } of tensors) {
    expect(Number.isSafeInteger(offset) && offset >= 0).toBe(true)
    expect(offset + span).toBeLessThanOrEqual(bytes.length)
    const count = shape.reduce((product, dim) => product * dim, 1)
    const last = shape.reduce((sum, dim, axis) => sum + (dim - 1) * (strides[axis] ?? 0), 0)
    expect(span).toBe(count === 0 ? 0 : ((last + 1) * dtypeBits(dtype)) / 8)
  }
}

// The tensors as values, after the checksums that the core verifies; null when one of them fails.
function values({ tensors, storages }: FileTable, bytes: Buffer): readonly string[] | null {
  const intact = storages.every(
    ({ offset, bytes: size, crc32: crc }) => crc32(bytes.subarray(offset, offset + size)) === crc,
  )
  const describe = (entry: (typeof tensors)[number]): string =>
    [entry.name, entry.dtype, entry.shape, hashTensor(bytes, entry)].join(' ')
  return intact ? tensors.map(describe) : null
}

async function checkTorch(path: string, damaged: Buffer, valid: readonly string[] | null) {
  const table = await read(path, damaged)
  if (table === 'refused') return
  checkRanges(table, damaged)
  const found = values(table, damaged)
  if (found !== null) expect(found).toEqual(valid)
}

async function checkSafetensors(path: string, damaged: Buffer): Promise<void> {
  const table = await read(path, damaged)
  if (table === 'refused') return
  checkRanges(table, damaged)
  const total = table.tensors.reduce((sum, entry) => sum + entry.bytes, 0)
  const header = Number(damaged.readBigUInt64LE(0))
  expect(8 + header + total).toBe(damaged.length)
}

const torchFiles = [
  ['as PyTorch writes it', validTorch],
  ['without descriptors and zip64', plainTorch],
] as const

describe('systematic damage', () => {
  test('safetensors cut at every byte', async () => {
    await withScratch(async dir => {
      for (let length = 0; length < validSafetensors.length; length++) {
        expect(await read(join(dir, 'f'), validSafetensors.subarray(0, length))).toBe('refused')
      }
    })
  })

  test('safetensors with every bit of length and header flipped', async () => {
    await withScratch(async dir => {
      const headerEnd = validSafetensors.length - tinyData.length
      for (let bit = 0; bit < 8 * headerEnd; bit++) {
        await checkSafetensors(join(dir, 'f'), flipped(validSafetensors, bit))
      }
    })
  })

  test('safetensors with each pair of neighbouring tokens swapped', async () => {
    const text = JSON.stringify({ __metadata__: { format: 'pt' }, ...tinyHeader })
    const tokens = text.match(/"[^"]*"|[^",:{}[\]]+|[",:{}[\]]/g) ?? []
    expect(tokens.length).toBeGreaterThan(50)
    await withScratch(async dir => {
      for (let i = 0; i + 1 < tokens.length; i++) {
        const swapped = [...tokens]
        swapped.splice(i, 2, tokens[i + 1] ?? '', tokens[i] ?? '')
        await checkSafetensors(join(dir, 'f'), safetensors(swapped.join('')))
      }
    })
  })

  test.each(torchFiles)('.bin %s cut at every byte', async (_, valid) => {
    await withScratch(async dir => {
      for (let length = 0; length < valid.length; length++) {
        expect(await read(join(dir, 'f'), valid.subarray(0, length))).toBe('refused')
      }
    })
  })

  test.each(torchFiles)('.bin %s with every bit of it flipped', async (_, valid) => {
    await withScratch(async dir => {
      const path = join(dir, 'f')
      const table = await read(path, valid)
      if (table === 'refused') throw new Error('the valid file was refused')
      const wanted = values(table, valid)
      expect(wanted).not.toBeNull()
      for (let bit = 0; bit < 8 * valid.length; bit++) {
        await checkTorch(path, flipped(valid, bit), wanted)
      }
    })
  })
})

function flipped(bytes: Buffer, bit: number): Buffer {
  const copy = Buffer.from(bytes)
  copy[bit >> 3] = (copy[bit >> 3] ?? 0) ^ (1 << (bit & 7))
  return copy
}

// Several edits in a row: bytes replaced, removed, inserted, or a part copied elsewhere.
const edit = fc.oneof(
  fc.record({
    kind: fc.constant('set' as const),
    at: fc.nat(),
    bytes: fc.uint8Array({ maxLength: 8 }),
  }),
  fc.record({ kind: fc.constant('cut' as const), at: fc.nat(), count: fc.nat(40) }),
  fc.record({
    kind: fc.constant('add' as const),
    at: fc.nat(),
    bytes: fc.uint8Array({ maxLength: 40 }),
  }),
  fc.record({
    kind: fc.constant('copy' as const),
    at: fc.nat(),
    from: fc.nat(),
    count: fc.nat(80),
  }),
)
type Edit = typeof edit extends fc.Arbitrary<infer T> ? T : never

function apply(bytes: Buffer, edits: readonly Edit[]): Buffer {
  return edits.reduce((now, change) => {
    const at = now.length === 0 ? 0 : change.at % now.length
    const head = now.subarray(0, at)
    switch (change.kind) {
      case 'set': {
        const tail = now.subarray(at + change.bytes.length)
        return Buffer.concat([head, change.bytes, tail])
      }
      case 'cut':
        return Buffer.concat([head, now.subarray(at + change.count)])
      case 'add':
        return Buffer.concat([head, change.bytes, now.subarray(at)])
      case 'copy': {
        const from = now.length === 0 ? 0 : change.from % now.length
        return Buffer.concat([head, now.subarray(from, from + change.count), now.subarray(at)])
      }
    }
  }, bytes)
}

const edits = fc.array(edit, { minLength: 1, maxLength: 4 })

describe('random damage', () => {
  test('safetensors', async () => {
    await withScratch(async dir => {
      await fc.assert(
        fc.asyncProperty(edits, async changes => {
          await checkSafetensors(join(dir, 'f'), apply(validSafetensors, changes))
        }),
        { numRuns: 3000 },
      )
    })
  })

  test.each(torchFiles)('.bin %s', async (_, valid) => {
    await withScratch(async dir => {
      const table = await read(join(dir, 'f'), valid)
      const wanted = table === 'refused' ? null : values(table, valid)
      await fc.assert(
        fc.asyncProperty(edits, async changes => {
          await checkTorch(join(dir, 'f'), apply(valid, changes), wanted)
        }),
        { numRuns: 3000 },
      )
    })
  })

  test('pickles, with a checksum that matches', async () => {
    const valid = stateDict({ a: tensor(), b: tensor({ size: [3, 2], stride: [1, 3] }) })
    await withScratch(async dir => {
      await fc.assert(
        fc.asyncProperty(edits, async changes => {
          const bytes = archive(members(apply(valid, changes))).bytes
          const table = await read(join(dir, 'f'), bytes)
          if (table !== 'refused') checkRanges(table, bytes)
        }),
        { numRuns: 4000 },
      )
    })
  })

  test('pickles of random opcodes', async () => {
    const opcodes = [
      ...'(.)0NQRXabcehjqrst u]}',
      '\x80\x02',
      '\x85',
      '\x86',
      '\x87',
      '\x88',
      '\x8a',
    ]
    const pieces = [
      ...opcodes.map(text => Buffer.from(text, 'latin1')),
      ...[tensor(), Buffer.from('q\0'), Buffer.from('h\0'), Buffer.from('X\x01\0\0\0a')],
      ...[Buffer.from('K\x02'), Buffer.from('ccollections\nOrderedDict\n')],
    ]
    await withScratch(async dir => {
      await fc.assert(
        fc.asyncProperty(fc.array(fc.constantFrom(...pieces), { maxLength: 30 }), async parts => {
          const pickle = Buffer.concat([Buffer.from([0x80, 2]), ...parts, Buffer.from('.')])
          const bytes = archive(members(pickle)).bytes
          const table = await read(join(dir, 'f'), bytes)
          if (table !== 'refused') checkRanges(table, bytes)
        }),
        { numRuns: 4000 },
      )
    })
  })

  test.each([
    ['config.json', tinyConfig()],
    ['model.safetensors.index.json', index({ a: 'model-00001-of-00002.safetensors' })],
    ['generation_config.json', '{"eos_token_id":[2,3],"num_beams":4,"top_p":0.9}'],
  ])('%s of a sharded model', async (name, text) => {
    await withScratch(async dir => {
      writeFiles(dir, sharded({ 'model-00002-of-00002.safetensors': shard('c') }))
      await fc.assert(
        fc.asyncProperty(edits, async changes => {
          writeFileSync(join(dir, name), apply(Buffer.from(text), changes))
          const opened: unknown = await openCheckpoint(dir).catch((e: unknown) => e)
          if (opened instanceof Error || isPolyLMError(opened)) {
            expect(isPolyLMError(opened) && opened.code !== 'INTERNAL').toBe(true)
          } else {
            expect(opened).toHaveProperty('tensors')
          }
        }),
        { numRuns: 800 },
      )
    })
  })
})
