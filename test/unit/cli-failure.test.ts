// cli-failure.test.ts: exit codes and what a person reads when a command fails; numbers for people.
import { CommanderError } from 'commander'
import { describeFailure, exitCodeOf, QuietFailure, UsageError } from '../../lib/cli/failure.js'
import { bytes, count, paint, printable, table } from '../../lib/cli/terminal.js'
import { PolyLMError } from '../../lib/errors.js'

test.each<[string, unknown, number]>([
  ['help', new CommanderError(0, 'commander.helpDisplayed', ''), 0],
  ['unknown option', new CommanderError(1, 'commander.unknownOption', ''), 2],
  ['wrong usage', new UsageError('x'), 2],
  ['bad option value', new PolyLMError('INVALID_OPTION', 'x'), 2],
  ['other error', new PolyLMError('FILE_NOT_FOUND', 'x'), 1],
  ['foreign error', new Error('x'), 1],
  ['something thrown', 'x', 1],
  ['interrupted', new QuietFailure(130), 130],
])('exit code of %s', (_, error, code) => {
  expect(exitCodeOf(error)).toBe(code)
})

test('code, message and hint, and no stack unless asked', () => {
  const error = new PolyLMError('FILE_NOT_FOUND', 'no such model', { hint: 'check the path', cause: new Error('ENOENT') })
  expect(describeFailure(error, false)).toBe('error [FILE_NOT_FOUND]: no such model\nhint: check the path\n')
  const debug = describeFailure(error, true)
  expect(debug).toContain('cli-failure.test.ts')
  expect(debug).toContain('caused by:')
  expect(describeFailure(new UsageError('no'), false)).toBe('error: no\n')
  expect(describeFailure(new CommanderError(1, 'x', 'shown by commander'), false)).toBe('')
})

test('numbers', () => {
  expect([0, 999, 1000, 3_680_000_000, 999_600].map(bytes)).toEqual(['0 B', '999 B', '1.00 kB', '3.68 GB', '1.00 MB'])
  expect(count(255_999)).toBe('255,999')
  expect(table([['a', 'b'], ['long', 'c']])).toBe('a     b\nlong  c\n')
})

test('colours and escape sequences depend on the terminal', () => {
  const terminal = { isTTY: true } as NodeJS.WriteStream
  const pipe = {} as NodeJS.WriteStream
  const before = process.env
  try {
    process.env = { ...before, TERM: 'xterm' }
    delete process.env['NO_COLOR']
    expect(paint('red', 'x', terminal)).toBe('\x1b[31mx\x1b[0m')
    expect(paint('red', 'x', pipe)).toBe('x')
    process.env['NO_COLOR'] = '1'
    expect(paint('red', 'x', terminal)).toBe('x')
  } finally {
    process.env = before
  }
  expect(printable('a\x1b[2Jb\n\tไทย', terminal)).toBe('a\ufffd[2Jb\n\tไทย')
  expect(printable('a\x1b[2Jb', pipe)).toBe('a\x1b[2Jb')
})
