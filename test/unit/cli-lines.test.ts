// cli-lines.test.ts: lines in: line ends, byte order marks, broken UTF-8, lines without end; the files they come from.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { decodeUtf8, readFailure, readText, writeFailure } from '../../lib/cli/files.js'
import { linesOf, parseJsonLine, readLines } from '../../lib/cli/lines.js'

let folder: string
beforeEach(() => { folder = mkdtempSync(path.join(tmpdir(), 'polylm-')) })
afterEach(() => { rmSync(folder, { recursive: true }) })
const file = (name: string, content: string | Buffer): string => {
  writeFileSync(path.join(folder, name), content)
  return path.join(folder, name)
}

async function * bytes(...chunks: Array<string | Buffer>): AsyncGenerator<Buffer> {
  for await (const chunk of chunks) yield Buffer.from(chunk)
}

async function lines(...chunks: Array<string | Buffer>): Promise<string[]> {
  const found: string[] = []
  for await (const { number, text } of readLines(bytes(...chunks), 'x')) {
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
  const thai = Buffer.from('ไทย\n')
  expect(await lines(thai.subarray(0, 2), thai.subarray(2, 4), thai.subarray(4))).toEqual(['ไทย'])
})

test('a byte order mark is dropped at the start of the file, and only there', async () => {
  expect(await lines('\ufeffa\n\ufeffb\n')).toEqual(['a', '\ufeffb'])
  expect(await readText(file('text', '\ufeffa\ufeff'))).toBe('a\ufeff')
})

test('each line says which bytes it takes; one without an end is whole only if it may be', async () => {
  const places = async (last: 'any' | 'whole'): Promise<number[][]> => {
    const found: number[][] = []
    for await (const { start, end } of readLines(bytes('ไ\n', 'a', 'b\r\n', Buffer.from([0xe0, 0xb9])), 'x', last)) {
      found.push([start, end])
    }
    return found
  }
  expect(await places('whole')).toEqual([[0, 4], [4, 8]])             // a character that was cut is not looked at
  await expect(places('any')).rejects.toThrow(/x:3 is not UTF-8/)
})

test('text that is not UTF-8 is refused with its place, UTF-16 with what to do', async () => {
  await expect(lines('ok\n', Buffer.from([0x61, 0xff, 0x0a]))).rejects
    .toMatchObject({ code: 'HEADER_UTF8', message: 'x:2 is not UTF-8 text' })
  expect(() => decodeUtf8(Buffer.from('\ufeffa', 'utf16le'), 'x')).toThrow(expect.objectContaining({
    hint: expect.stringContaining('iconv -f UTF-16') as string,
  }) as Error)
})

test('a line without end is refused, not collected', async () => {
  async function * endless(): AsyncGenerator<Buffer> {
    const chunk = Buffer.alloc(8 * 1024 * 1024, 'a')
    for (let i = 0; ; i++) {
      if (i > 20) throw new Error('still reading')
      yield await Promise.resolve(chunk)
    }
  }
  const read = async (): Promise<void> => { for await (const _ of readLines(endless(), 'x')) throw new Error('a line') }
  await expect(read()).rejects.toMatchObject({ code: 'LIMIT' })
})

test('a line that is not JSON is named, without what could move the cursor', () => {
  expect(parseJsonLine({ number: 3, text: '{"a":1}' }, 'in.jsonl')).toEqual({ a: 1 })
  expect(() => parseJsonLine({ number: 3, text: '{' }, 'in.jsonl')).toThrow(expect.objectContaining({
    code: 'JSON_SYNTAX', message: expect.stringMatching(/^in\.jsonl:3 is not JSON/) as string,
  }) as Error)
  expect(() => parseJsonLine({ number: 1, text: '\x1b[2J' }, 'x')).toThrow(/^[^\x1b]*$/)
})

test('files that cannot be read: missing, a folder, behind a file', async () => {
  const read = async (name: string): Promise<void> => { for await (const _ of linesOf(name)) { /* nothing */ } }
  for (const use of [readText, read]) {
    await expect(use(path.join(folder, 'none'))).rejects
      .toMatchObject({ code: 'FILE_NOT_FOUND', hint: 'check the path', message: expect.stringContaining('none" does not exist') as string })
    await expect(use(folder)).rejects
      .toMatchObject({ code: 'FILE_IO', message: expect.stringContaining('is a directory, expected a file') as string })
    await expect(use(path.join(file('a', ''), 'b'))).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' })
  }
})

test.each([
  ['EACCES', 'FILE_IO', 'FILE_IO'], ['EPERM', 'FILE_IO', 'FILE_IO'], ['ENOENT', 'FILE_NOT_FOUND', 'FILE_NOT_FOUND'],
  ['EISDIR', 'FILE_IO', 'FILE_IO'], ['EIO', 'FILE_IO', 'FILE_IO'], ['EMFILE', 'FILE_IO', 'FILE_IO'],
  ['ENOSPC', 'FILE_IO', 'DISK_FULL'], ['EDQUOT', 'FILE_IO', 'DISK_FULL'], ['EFBIG', 'FILE_IO', 'DISK_FULL'],
  ['EPIPE', 'FILE_IO', 'FILE_IO'], ['EROFS', 'FILE_IO', 'FILE_IO'],
])('%s is typed, with a hint', (code, reading, writing) => {
  const cause = Object.assign(new Error(`${code}: x`), { code, syscall: 'open' })
  expect(readFailure('f', cause)).toMatchObject({ code: reading, file: 'f', hint: expect.any(String) as string, cause })
  expect(writeFailure('f', cause)).toMatchObject({ code: writing, file: 'f', hint: expect.any(String) as string, cause })
  expect(readFailure('-', cause)).toMatchObject({ message: expect.stringContaining('standard input') as string })
  expect(writeFailure('-', cause)).toMatchObject({ message: expect.stringContaining('standard output') as string })
})

test('what is no error of the file system stays what it is', () => {
  const error = new Error('x')
  expect([readFailure('f', error), writeFailure('f', error)]).toEqual([error, error])
})
