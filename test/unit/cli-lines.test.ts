// cli-lines.test.ts: JSON lines in and out: line ends, byte order marks, broken UTF-8, outputs cut by a crash.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { JsonLinesFile, countLines, parseJsonLine, readLines, writtenIndices } from '../../lib/cli/lines.js'

let folder: string
beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'polylm-')) })
afterEach(() => { rmSync(folder, { recursive: true }) })
const file = (name: string): string => path.join(folder, name)

async function lines(...chunks: Array<string | Buffer>): Promise<string[]> {
  async function * source(): AsyncGenerator<Buffer> { for (const chunk of chunks) yield Buffer.from(chunk) }
  const found: string[] = []
  for await (const { number, text } of readLines(source(), 'x')) {
    expect(number).toBe(found.length + 1)
    found.push(text)
  }
  return found
}

test('lines end at \\n, with or without \\r, wherever chunks end', async () => {
  expect(await lines('a\nb\r\n\nc')).toEqual(['a', 'b', '', 'c'])
  expect(await lines('a', 'b\r', '\nc\n')).toEqual(['ab', 'c'])
  expect(await lines()).toEqual([])
  expect(await lines('"\u2028"\n"\u2029"\n')).toEqual(['"\u2028"', '"\u2029"'])
  expect(await lines('\ufeffa\n')).toEqual(['a'])
  const thai = Buffer.from('ไทย\n')
  expect(await lines(thai.subarray(0, 2), thai.subarray(2, 4), thai.subarray(4))).toEqual(['ไทย'])
})

test('text that is not UTF-8 is refused with its place', async () => {
  await expect(lines('ok\n', Buffer.from([0x61, 0xff, 0x0a]))).rejects.toThrow('x:2 is not valid UTF-8')
})

test('a line that is not JSON is named', () => {
  expect(parseJsonLine({ number: 3, text: '{"a":1}' }, 'in.jsonl')).toEqual({ a: 1 })
  expect(() => parseJsonLine({ number: 3, text: '{' }, 'in.jsonl')).toThrow(/^in\.jsonl:3 is not JSON/)
})

test('counts lines that hold something', async () => {
  writeFileSync(file('in'), '"a"\n\n  \n"b"')
  expect(await countLines(file('in'))).toBe(2)
})

test('an output with content is neither overwritten nor mixed up', async () => {
  writeFileSync(file('out'), '{"index":0}\n')
  await expect(JsonLinesFile.open(file('out'), false)).rejects.toThrow(/already exists/)
  expect(readFileSync(file('out'), 'utf8')).toBe('{"index":0}\n')
})

test('resuming removes a line that was cut and goes on behind the others', async () => {
  writeFileSync(file('out'), '{"index":4}\n{"index":2}\n{"ind')
  const out = await JsonLinesFile.open(file('out'), true)
  expect(await writtenIndices(file('out'))).toEqual(new Set([4, 2]))
  await out.append({ index: 0, text: 'ß\u2028' })
  await out.close()
  expect(readFileSync(file('out'), 'utf8')).toBe('{"index":4}\n{"index":2}\n{"index":0,"text":"ß\u2028"}\n')
})

test('resuming into a new file is a fresh start; into a strange one an error', async () => {
  const out = await JsonLinesFile.open(file('new'), true)
  expect(await writtenIndices(file('new'))).toEqual(new Set())
  await out.close()
  writeFileSync(file('strange'), '{"text":"hello"}\n')
  await expect(writtenIndices(file('strange'))).rejects.toThrow(/has no whole number "index"/)
})
