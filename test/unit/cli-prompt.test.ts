// cli-prompt.test.ts: what a line of `generate --input` may be.
import { inputLine } from '../../lib/cli/prompt.js'

test.each<[unknown, unknown]>([
  ['text', { prompt: 'text', options: {}, id: undefined }],
  [{ prompt: 'text', id: 7 }, { prompt: 'text', options: {}, id: 7 }],
  [{ tokens: [1, 2] }, { prompt: { tokens: [1, 2] }, options: {}, id: undefined }],
  [
    { prompt: 'a', options: { maxTokens: 5, bias: [[3, '-inf']] } },
    { prompt: 'a', options: { maxTokens: 5, bias: [[3, -Infinity]] }, id: undefined },
  ],
  [
    { messages: [{ role: 'user', content: 'a' }], template: 'assistant' },
    { prompt: { messages: [{ role: 'user', content: 'a' }], template: 'assistant' }, options: {}, id: undefined },
  ],
  [
    { prompt: 'a', template: 'multialpaca' },
    { prompt: { messages: [{ role: 'user', content: 'a' }], template: 'multialpaca' }, options: {}, id: undefined },
  ],
])('%j', (value, line) => {
  expect(inputLine(value, 'in:1', {})).toEqual(line)
})

test('the template of the command line holds for lines without their own', () => {
  expect(inputLine('a', 'in:1', { template: 'assistant' }).prompt)
    .toEqual({ messages: [{ role: 'user', content: 'a' }], template: 'assistant' })
  expect(inputLine({ prompt: 'a', template: 'none' }, 'in:1', { template: 'assistant' }).prompt)
    .toEqual({ messages: [{ role: 'user', content: 'a' }], template: 'none' })
})

test.each<[unknown, RegExp]>([
  [7, /neither a JSON string nor an object/], [null, /neither/], [['a'], /neither/],
  [{}, /exactly one of prompt, tokens and messages/], [{ prompt: 'a', tokens: [1] }, /exactly one/],
  [{ prompt: 7 }, /prompt must be text/], [{ tokens: 'a' }, /tokens must be a list/],
  [{ prompt: 'a', maxTokens: 3 }, /unknown key "maxTokens"/], [{ prompt: 'a', options: 3 }, /options must be an object/],
  [{ messages: [{ role: 'tool', content: 'a' }] }, /must hold a list/], [{ prompt: 'a', template: 'x' }, /template must be/],
])('%j is refused', (value, message) => {
  expect(() => inputLine(value, 'in.jsonl:1', {})).toThrow(message)
})
