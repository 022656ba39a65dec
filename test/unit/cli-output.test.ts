// cli-output.test.ts: outputs of a batch: whole lines, one writer, the order of the input, and what --resume believes.
import { appendFileSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { InOrder, OutputFile } from '../../lib/cli/output.js'
import { Earlier, lineHash, modelHash, optionsHash, tidied } from '../../lib/cli/resume.js'
import type { Model } from '../../lib/index.js'

let folder: string
beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'polylm-')) })
afterEach(() => { rmSync(folder, { recursive: true }) })
const file = (name: string): string => path.join(folder, name)
const text = (name: string): string => readFileSync(file(name), 'utf8')

const options = 'a'.repeat(12)
const model = 'b'.repeat(12)
const row = (index: number, line: string, ok = true, more = {}): string =>
  JSON.stringify({ index, ok, hash: `${lineHash(line)}-${options}-${model}`, ...more }) + '\n'

test('an output with content is neither overwritten nor mixed up', async () => {
  writeFileSync(file('out'), '{"index":0}\n')
  await expect(OutputFile.open(file('out'), 'new')).rejects.toThrow(/already exists and holds 12 bytes/)
  expect(text('out')).toBe('{"index":0}\n')
})

test('continuing removes a line that was cut and goes on behind the others', async () => {
  writeFileSync(file('out'), row(4, 'x') + row(2, 'y') + '{"ind\xe0')
  const out = await OutputFile.open(file('out'), 'continue')
  const earlier = await Earlier.read(file('out'), false)
  expect([earlier.size, earlier.get(4)?.ok, earlier.get(0)]).toEqual([2, true, undefined])
  await out.cutTo(earlier.wholeBytes)
  await out.append(row(0, 'ß\u2028'))
  await out.close()
  expect(text('out')).toBe(row(4, 'x') + row(2, 'y') + row(0, 'ß\u2028'))
})

test('one writer at a time, whatever name the file has; the next one may follow', async () => {
  const first = await OutputFile.open(file('out'), 'new')
  symlinkSync(file('out'), file('link'))
  await expect(OutputFile.open(file('link'), 'continue')).rejects.toMatchObject({
    code: 'OUTPUT_BUSY', message: expect.stringContaining(`process ${process.pid}`) as string,
  })
  await first.append('x\n')
  await first.close()
  const second = await OutputFile.open(file('link'), 'continue')
  await second.append('y\n')
  appendFileSync(file('out'), 'from another machine\n')
  await expect(second.append('z\n')).rejects.toMatchObject({ code: 'OUTPUT_BUSY' })
  await second.close()
  expect(text('out')).toBe('x\ny\nfrom another machine\n')
})

test('outputs that cannot be written are typed', async () => {
  await expect(OutputFile.open(folder, 'new')).rejects.toMatchObject({ code: 'FILE_IO' })
  await expect(OutputFile.open(file('none/out'), 'new')).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' })
  if (process.platform !== 'linux') return
  const full = await OutputFile.open('/dev/full', 'new')
  await expect(full.append('x\n')).rejects.toMatchObject({ code: 'DISK_FULL', file: '/dev/full' })
  await full.close()
})

test('lines come in the order of their indices, however they arrive', async () => {
  let written = ''
  const sink = new InOrder(async lines => { await Promise.resolve(); written += lines })
  const order = [3, 1, 0, 2, 5, 4]
  await Promise.all(order.map(index => sink.put(index, `${index}\n`)))
  expect([written, sink.waiting]).toEqual(['0\n1\n2\n3\n4\n5\n', 0])
  await sink.put(7, '7\n')
  expect([written.length, sink.waiting]).toEqual([12, 1])
})

async function read(content: string): Promise<Earlier> {
  writeFileSync(file('out'), content)
  return Earlier.read(file('out'), true)
}

test('an answer must belong to its line, to the options, and to the model', async () => {
  const earlier = await read(row(0, 'a') + row(1, 'b', false))
  earlier.checkLine(0, 'in:1', lineHash('a'), options, false)
  earlier.checkLine(2, 'in:3', lineHash('c'), options, false)                         // not answered yet
  const check = (...args: Parameters<Earlier['checkLine']>) => () => { earlier.checkLine(...args) }
  expect(check(0, 'in:1', lineHash('A'), options, false)).toThrow(expect.objectContaining({
    code: 'OUTPUT_MISMATCH', reason: 'input', message: expect.stringMatching(/line 1, answers another text than in:1 has now/) as string,
  }) as Error)
  expect(check(0, 'in:1', lineHash('a'), 'other', false)).toThrow(expect.objectContaining({ reason: 'options' }) as Error)
  expect(check(1, 'in:2', lineHash('B'), options, false)).toThrow(expect.objectContaining({ reason: 'input' }) as Error)
  expect(check(1, 'in:2', lineHash('B'), 'other', true)).not.toThrow()                // it is tried again
  expect(() => { earlier.checkModel('other', false) }).toThrow(expect.objectContaining({ reason: 'model' }) as Error)
  earlier.checkModel(model, false)
  expect(() => { earlier.checkEnd(index => index < 1, 'in', 1) })
    .toThrow(/has the index 1, for which "in" has no prompt any more \(it has 1\)/)
  earlier.checkEnd(index => index < 2, 'in', 2)
})

test.each([
  ['{"text":"hello"}\n', /has no whole number "index"/], ['{"index":-1}\n', /"index"/], ['{"index":1.5}\n', /"index"/],
  ['[]\n', /"index"/], ['{"index":0}\n', /has no "ok"/], ['{"index":0,"ok":true}\n', /has no "hash"/],
  ['{"index":0,"ok":true,"hash":"x"}\n', /has no "hash"/], ['{"ind\n', /out:1 is not JSON/],
  [row(0, 'a') + row(0, 'b'), /lines 1 and 2 of ".*out" both answer index 0/],
])('%j is no output to continue', async (content, message) => {
  await expect(read(content)).rejects
    .toMatchObject({ message: expect.stringMatching(message) as string, hint: expect.any(String) as string })
})

test('a line that failed and was answered later is answered; equal answers count once', async () => {
  const earlier = await read(row(0, 'a', false) + row(0, 'a', true, { text: 'x' }) + row(1, 'b') + row(1, 'b'))
  expect([earlier.counts(), earlier.get(0)?.text]).toEqual([{ answered: 2, failed: 0 }, 'x'])
  expect((await Earlier.read(file('none'), true)).size).toBe(0)
})

test('a complete output has one line per index, in order if that is wanted', async () => {
  const lines = [row(2, 'ไ'), row(0, 'a', false), row(1, 'b'), row(0, 'a', true)]
  writeFileSync(file('out'), lines.join(''))
  const out = await OutputFile.open(file('out'), 'continue')
  const unsorted = await tidied(file('out'), false)
  if (unsorted === undefined) throw new Error('nothing to do')
  await out.rewrite(unsorted)
  expect(text('out')).toBe([lines[0], lines[3], lines[2]].join(''))
  await out.rewrite((await tidied(file('out'), true)) ?? (function * () { yield 'nothing' })() as unknown as AsyncIterable<string>)
  expect(text('out')).toBe([lines[3], lines[2], lines[0]].join(''))
  expect(await tidied(file('out'), true)).toBeUndefined()
  await out.append('x\n')
  await out.close()
  expect(text('out')).toBe([lines[3], lines[2], lines[0], 'x\n'].join(''))
  expect(readdirSync(folder)).toEqual(['out'])
})

test('hashes depend on what decides the answer, and on nothing else', () => {
  const hash = (...args: Partial<Parameters<typeof optionsHash>>): string => optionsHash(args[0] ?? {}, args[1] ?? {}, args[2] ?? {})
  const different = [
    hash(), hash({ temperature: 1 }), hash({ bias: [[3, -Infinity]] }), hash({ bias: [[3, 0]] }), hash({ compat: 'hf-4.31' } as object),
    hash({}, { compat: 'hf-4.31' }), hash({}, { legacyTokenizer: true }), hash({}, {}, { template: 'assistant' }),
  ]
  expect(new Set(different).size).toBe(different.length)
  expect(hash({ queueTimeoutMs: 1, speculate: 'lookup' }, { threads: 3, device: 'cpu', kvMemory: '1GiB' })).toBe(hash())
  expect(hash({ topK: 1, topP: 1 }, {}, { a: undefined })).toBe(hash({ topP: 1, topK: 1 }))
  const info = { weightsFingerprint: 'w', dtype: 'bf16', contextSize: 9, vocabSize: 5, stopTokenIds: [2] } as unknown as Model['info']
  const models = [{}, { weightsFingerprint: 'v' }, { dtype: 'fp32' }, { contextSize: 8 }, { stopTokenIds: [3] }] as object[]
  expect(new Set(models.map(change => modelHash({ info: { ...info, ...change } }))).size).toBe(models.length)
  expect(modelHash({ info: { ...info, device: { kind: 'cuda', name: 'x' } } })).toBe(modelHash({ info }))
})
