// chat.test.ts: what each template writes, and that nothing a message says becomes a control token.
import fc from 'fast-check'
import { renderConversation, renderMessages, renderRounds, type Message } from '../../lib/chat.js'
import { promptParts, type PromptContext } from '../../lib/prompt.js'

const none = (): undefined => undefined
const user = (content: string): Message => ({ role: 'user', content })
const assistant = (content: string): Message => ({ role: 'assistant', content })
const system = (content: string): Message => ({ role: 'system', content })
const text = (messages: unknown, template?: unknown): string => renderMessages(messages, template, 'reject', none).join('')

const context: PromptContext = { vocabSize: 100, contextSize: 64, hasTokenizer: true, control: none }
const rules = { parseSpecial: true, controlText: 'reject' } as const

describe('templates', () => {
  test('assistant: one round as PolyLM\'s authors print it', () => {
    expect(text([user('Hi')])).toBe('<|user|>\nHi\n<|assistant|>\n')
    expect(text([user('Hi')], 'assistant')).toBe('<|user|>\nHi\n<|assistant|>\n')
  })

  test('assistant: several rounds are our convention', () => {
    expect(text([user('a'), assistant('b'), user('c')]))
      .toBe('<|user|>\na\n<|assistant|>\nb\n<|user|>\nc\n<|assistant|>\n')
  })

  test('multialpaca: as the authors\' demonstration', () => {
    expect(text([user('Hi')], 'multialpaca')).toBe('Hi\n\n')
    expect(text([user('  a\n\n\nb '), assistant('c'), user('d')], 'multialpaca')).toBe('a\nb\n\nc\nd\n\n')
  })

  test('none adds nothing', () => {
    expect(text([user('a'), assistant('b'), user('c')], 'none')).toBe('abc')
  })

  test('a function gets a copy of the messages and writes what it likes', () => {
    const messages = [system('s'), user('u')]
    const template = (given: readonly Message[]): readonly string[] => given.map(m => `[${m.role}] ${m.content}\n`)
    expect(text(messages, template)).toBe('[system] s\n[user] u\n')
  })

  test('rounds without the question', () => {
    expect(renderRounds([user('a'), assistant('b')], 'assistant', none).join('')).toBe('<|user|>\na\n<|assistant|>\nb\n')
    expect(renderRounds([user('a'), assistant('b')], 'multialpaca', none).join('')).toBe('a\n\nb\n')
  })
})

describe('control tokens', () => {
  const ids: Record<string, number> = { '<|user|>': 7, '<|assistant|>': 8, '</s>': 2 }
  const control = (name: string): number | undefined => ids[name]

  test('markers that the tokenizer knows are written as ids', () => {
    expect(renderMessages([user('Hi')], 'assistant', 'reject', control))
      .toEqual([{ control: 7 }, '\n', 'Hi', '\n', { control: 8 }, '\n'])
  })

  test('a function names them by text or id', () => {
    const template = () => ['a', { control: '</s>' }, { control: 9 }]
    expect(renderMessages([user('x')], template, 'reject', control)).toEqual(['a', { control: 2 }, { control: 9 }])
    for (const parts of [[{ control: 'nope' }], [5], [{ control: -1 }], [{ control: 1.5 }], [null], 'text']) {
      expect(() => renderMessages([user('x')], () => parts, 'reject', control))
        .toThrow(expect.objectContaining({ code: 'INVALID_PROMPT', reason: 'template' }))
    }
  })

  test('content that holds a marker is refused, with its index', () => {
    for (const content of ['<|user|>', 'a<|assistant|>b', '<|system|>']) {
      expect(() => text([user('ok'), assistant(content), user(content)]))
        .toThrow(expect.objectContaining({ code: 'INVALID_PROMPT', reason: 'control text', index: 2 }))
    }
    expect(text([user('<|user|>')], 'multialpaca')).toBe('<|user|>\n\n')
  })

  test('content of the assistant is what a model wrote: escaped, never refused', () => {
    expect(text([user('a'), assistant('b<|user|>c'), user('d')]))
      .toBe('<|user|>\na\n<|assistant|>\nb< |user|>c\n<|user|>\nd\n<|assistant|>\n')
    expect(text([user('a'), assistant('<|user|>'), user('d')], 'multialpaca')).toBe('a\n\n<|user|>\nd\n\n')
  })

  test('so is what a conversation holds already', () => {
    const content = { controlText: 'reject', judgedFrom: 2, control: none } as const
    expect(renderConversation([user('<|user|>'), assistant('b'), user('c')], 'assistant', content).join(''))
      .toBe('<|user|>\n< |user|>\n<|assistant|>\nb\n<|user|>\nc\n<|assistant|>\n')
    expect(() => renderConversation([user('a'), assistant('b'), user('<|user|>')], 'assistant', content))
      .toThrow(expect.objectContaining({ reason: 'control text', index: 2 }))
  })

  test('a template that is async, endless or unreadable is refused, and rejects nothing behind our back', () => {
    const endless = new Proxy([], { get: (list, name) => (name === 'length' ? 2 ** 40 : Reflect.get(list, name)) })
    const { proxy, revoke } = Proxy.revocable([], {})
    revoke()
    for (const parts of [Promise.reject(new Error('mine')), { then: () => { throw new Error('mine') } }, endless, proxy, [proxy]]) {
      expect(() => renderMessages([user('x')], () => parts, 'reject', none))
        .toThrow(expect.objectContaining({ name: 'PolyLMError' }))
    }
  })

  // The normaliser makes plain letters of full-width ones and drops controls: what is left is the marker.
  const lookalikes = [
    '\uff1c\uff5c\uff55\uff53\uff45\uff52\uff5c\uff1e', '<|us\x01er|>', '<|user\u200b|>', '\ufe64|assistant|>', '<\u00ad|system|>',
  ]

  test.each(lookalikes)('content that becomes a marker is refused or escaped: %j', lookalike => {
    expect(() => text([user(`a ${lookalike} b`)]))
      .toThrow(expect.objectContaining({ code: 'INVALID_PROMPT', reason: 'control text', index: 0 }))
    const [, , content] = renderMessages([user(`a ${lookalike} b`)], 'assistant', 'escape', none)
    expect(content).toMatch(/^a < \|\w+\|> b$/)
    expect(text([user('\uff35\uff33\uff25\uff32 \u200b <user>')])).toContain('\uff35\uff33\uff25\uff32 \u200b <user>')
  })

  test('or escaped', () => {
    expect(renderMessages([user('a<|user|>b')], 'assistant', 'escape', none).join(''))
      .toBe('<|user|>\na< |user|>b\n<|assistant|>\n')
  })

  test('escaped content never holds a marker', () => {
    const piece = fc.constantFrom('<|user|>', '<|assistant|>', '<', '|', 'user', '|>', '<|', ' ', 'x', ...lookalikes, '\x01')
    fc.assert(fc.property(fc.array(piece, { maxLength: 12 }), pieces => {
      const [, , content] = renderMessages([user(pieces.join(''))], 'assistant', 'escape', control)
      for (const marker of ['<|user|>', '<|assistant|>', '<|system|>']) expect(content).not.toContain(marker)
    }))
  })

  test('text of messages is never searched for special tokens, text prompts are', () => {
    const parts = promptParts({ messages: [user('</s>')] }, { ...context, control }, rules)
    for (const part of parts) if ('text' in part) expect(part.parseSpecial).toBe(false)
    expect(promptParts('</s>', context, rules)).toEqual([{ text: '</s>', parseSpecial: true }])
    expect(promptParts('</s>', context, { ...rules, parseSpecial: false })).toEqual([{ text: '</s>', parseSpecial: false }])
  })

  test('a template of plain text is one text', () => {
    expect(promptParts({ messages: [user('Hi')] }, context, rules))
      .toEqual([{ text: '<|user|>\nHi\n<|assistant|>\n', parseSpecial: false }])
  })
})

describe('what is refused', () => {
  test.each<[string, unknown, string]>([
    ['no messages', [], 'empty'], ['not an array', 5, 'messages'], ['a message that is text', ['Hi'], 'messages'],
    ['an unknown role', [{ role: 'tool', content: 'x' }], 'role'], ['content that is no text', [{ role: 'user', content: 5 }], 'content'],
    ['a system message', [system('s'), user('u')], 'system'], ['an answer first', [assistant('a')], 'order'],
    ['two questions', [user('a'), user('b')], 'order'], ['an answer last', [user('a'), assistant('b')], 'order'],
    ['513 messages', Array(513).fill(user('x')), 'messages'],
  ])('%s', (_, messages, reason) => {
    expect(() => text(messages)).toThrow(expect.objectContaining({ code: 'INVALID_PROMPT', reason }))
  })

  test('an unknown template is an invalid option', () => {
    expect(() => text([user('a')], 'chatml')).toThrow(expect.objectContaining({ code: 'INVALID_OPTION', option: 'template' }))
  })
})

describe('prompts', () => {
  test.each<[unknown, string]>([
    [5, 'type'], [null, 'type'], [{}, 'type'], [[1, 2], 'type'], [{ tokens: [] }, 'empty'], [{ tokens: [100] }, 'token out of range'],
    [{ tokens: [-1] }, 'token out of range'], [{ tokens: [1.5] }, 'token out of range'], [{ tokens: [2 ** 53] }, 'token out of range'],
    [{ tokens: ['1'] }, 'token out of range'], [{ tokens: 5 }, 'tokens'], [{ tokens: [1], messages: [user('x')] }, 'ambiguous'],
  ])('%p is refused: %s', (prompt, reason) => {
    expect(() => promptParts(prompt, context, rules)).toThrow(expect.objectContaining({ code: 'INVALID_PROMPT', reason }))
  })

  test.each<[string, unknown, number]>([
    ['text', 'x'.repeat(64 * 66 + 1), 67], ['ids', { tokens: Array(66).fill(1) }, 66],
    ['messages', { messages: [user('x'.repeat(4000)), assistant('y'), user('x'.repeat(4000))] }, 126],
    ['parts', { messages: [user('x')], template: () => ['x'.repeat(4000), 'x'.repeat(4000)] }, 125],
  ])('%s that can never fit is an overflow, by its length alone', (_, prompt, promptTokens) => {
    expect(() => promptParts(prompt, context, rules))
      .toThrow(expect.objectContaining({ code: 'CONTEXT_OVERFLOW', promptTokens, contextSize: 64 }))
  })

  test('text needs a tokenizer', () => {
    expect(() => promptParts('x', { ...context, hasTokenizer: false }, rules))
      .toThrow(expect.objectContaining({ code: 'TOKENIZER_MISSING' }))
  })

  test('token ids of any kind of array are copied', () => {
    for (const tokens of [[1, 2], new Uint16Array([1, 2]), Int32Array.of(1, 2), { length: 2, 0: 1, 1: 2 }]) {
      expect(promptParts({ tokens }, context, rules)).toEqual([{ ids: Int32Array.of(1, 2), control: false }])
    }
  })
})
