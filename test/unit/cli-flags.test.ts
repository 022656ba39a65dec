// cli-flags.test.ts: the flags of decoding options: all of the library's, none invented, read as meant.
import { Command } from 'commander'
import { addDecodingFlags, decodingFlags, decodingOptions } from '../../lib/cli/decoding-flags.js'
import { generateNames } from '../../lib/generate-options.js'
import { optionTable } from '../../lib/option-table.js'

function parse(...args: string[]): Record<string, unknown> {
  const command = addDecodingFlags(new Command('test')).exitOverride().configureOutput({ writeErr: () => undefined })
  command.parse(args, { from: 'user' })
  return decodingOptions(command) as Record<string, unknown>
}

test('every option of generate that a command line can give has one flag', () => {
  const flags = Object.values(decodingFlags).flat().map(({ option }) => option)
  // A command has one user, nobody to keep apart; biasSparesStops is fromHuggingFace's.
  const programOnly = ['signal', 'onAbort', 'cacheSalt', 'priority', 'biasSparesStops']
  expect([...flags].sort()).toEqual([...generateNames].filter(name => !programOnly.includes(name)).sort())
})

test('only what was given is passed on', () => {
  expect(parse()).toEqual({})
  expect(parse('--max-tokens', '7')).toEqual({ maxTokens: 7 })
})

test.each<[string[], Record<string, unknown>]>([
  [['--no-repeat-ngram-size', '3'], { noRepeatNgramSize: 3 }],
  [['--temperature', '.5', '--top-p', '9e-1'], { temperature: 0.5, topP: 0.9 }],
  [['--presence-penalty', '-1.5'], { presencePenalty: -1.5 }],
  [['--early-stopping'], { earlyStopping: true }],
  [['--early-stopping', 'never'], { earlyStopping: 'never' }],
  [['--early-stopping=false'], { earlyStopping: false }],
  [['--stop', 'a', '--stop', 'b c'], { stop: ['a', 'b c'] }],
  [['--stop-token-ids', '2, 255999'], { stopTokenIds: [2, 255_999] }],
  [['--stop-token-ids', 'none'], { stopTokenIds: [] }],
  [['--logprobs'], { logprobs: 0 }],
  [['--logprobs', '5'], { logprobs: 5 }],
  [['--bias', '[[17,-1.5],[[4,5],"-inf"]]'], { bias: [[17, -1.5], [[4, 5], -Infinity]] }],
  [['--allow', '{"choices":["yes"]}'], { allow: { choices: ['yes'] } }],
  [['--speculate', 'lookup'], { speculate: 'lookup' }],
  [['--pad-to', '64,0'], { padTo: { length: 64, tokenId: 0 } }],
  [['--no-skip-special-tokens', '--no-parse-special'], { skipSpecialTokens: false, parseSpecial: false }],
  [['--renormalize', '--include-stop'], { renormalize: true, includeStop: true }],
  [['--seed', '9007199254740991'], { seed: Number.MAX_SAFE_INTEGER }],
])('%j', (args, options) => {
  expect(parse(...args)).toEqual(options)
})

test.each([
  ['--max-tokens', 'many'], ['--max-tokens', '1.5'], ['--max-tokens', '0x10'], ['--max-tokens', ''], ['--top-p', 'NaN'],
  ['--temperature', 'Infinity'], ['--seed', '9007199254740992'], ['--pad-to', '64'], ['--early-stopping', 'maybe'],
  ['--bias', '[[1'], ['--beam-scoring', 'hf-4.99'], ['--topk', '3'], ['--stop-token-ids', '2,x'],
])('%s %s is refused', (...args) => {
  expect(() => parse(...args)).toThrow(/option/)
})

test('numbers have the range of the library\'s table', () => {
  for (const { name, type, min, max } of optionTable.filter(row => row.type !== 'bool' && row.max < 2 ** 53 - 1)) {
    if (!generateNames.has(name)) continue
    const flag = `--${name.replace(/[A-Z]/g, letter => `-${letter.toLowerCase()}`)}`
    expect(parse(flag, String(max))).toEqual({ [name]: max })
    const step = type === 'int' ? 1 : 0.5
    expect(() => parse(flag, String(max + step))).toThrow(/from/)
    expect(() => parse(flag, String(Math.max(min, 0) === 0 && min === -1 ? -1 : min - step))).toThrow(/from/)
  }
})
