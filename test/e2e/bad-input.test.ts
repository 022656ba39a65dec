// bad-input.test.ts: each code of the error table out of a real model, and a process that lives on.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createRandomModel } from '../../lib/bench-support.js'
import { demoModel, isPolyLMError, Model } from '../../lib/index.js'
import { failure, idle, loadDemo, loadTiny, recorded, tinyDir } from './models.js'

let folder: string
let tiny: Model
beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), 'polylm-bad-'))
  tiny = await loadTiny({ maxSequences: 4, maxQueue: 8 })
})
afterAll(async () => {
  await tiny.dispose()
  rmSync(folder, { recursive: true, force: true })
})
// Whatever was thrown at it: the model still answers as before.
afterEach(async () => {
  await idle(tiny)
  const { prompt, generated } = recorded.greedy[0] ?? { prompt: [], generated: [] }
  const { outputs } = await tiny.generate({ tokens: prompt }, { maxTokens: 8, stopTokenIds: [] })
  expect(Array.from(outputs[0]?.tokens ?? [])).toEqual(generated.slice(0, 8))
  expect(tiny.stats()).toMatchObject({ state: 'ready', running: 0, waiting: 0, kv: { usedTokens: 0 } })
})

/** A copy of the fixture with another config.json, or other bytes of a tensor. */
function variant(name: string, config: object, tensor?: { name: string; from: number; value: number[] }): string {
  const dir = path.join(folder, name)
  cpSync(tinyDir, dir, { recursive: true })
  const file = path.join(dir, 'config.json')
  writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')) as object, ...config }))
  if (tensor !== undefined) {
    const weights = path.join(dir, 'model.safetensors')
    const bytes = readFileSync(weights)
    const headerBytes = Number(bytes.readBigUInt64LE(0))
    const header = JSON.parse(bytes.toString('utf8', 8, 8 + headerBytes)) as Record<string, { data_offsets: number[] }>
    const [start = 0] = header[tensor.name]?.data_offsets ?? []
    Buffer.from(Uint16Array.from(tensor.value).buffer).copy(bytes, 8 + headerBytes + start + tensor.from * 2)
    writeFileSync(weights, bytes)
  }
  return dir
}

describe('calls', () => {
  const tokens = [5, 6, 7]
  const busy = { maxTokens: 200, stopTokenIds: [] }

  test.each<[string, unknown, object | undefined, object]>([
    ['an empty prompt', { tokens: [] }, undefined, { code: 'INVALID_PROMPT', reason: 'empty' }],
    ['a token beyond the vocabulary', { tokens: [512] }, undefined, { code: 'INVALID_PROMPT', reason: 'token out of range' }],
    ['a prompt of no kind', 7, undefined, { code: 'INVALID_PROMPT', reason: 'type' }],
    ['text without a tokenizer', 'text', undefined, { code: 'TOKENIZER_MISSING' }],
    ['a conversation without a tokenizer', { messages: [{ role: 'user', content: 'x' }] }, undefined, { code: 'TOKENIZER_MISSING' }],
    ['a stop string without a tokenizer', { tokens }, { stop: 'x' }, { code: 'TOKENIZER_MISSING' }],
    ['a prompt that is too long', { tokens: new Array(257).fill(1) }, undefined,
      { code: 'CONTEXT_OVERFLOW', promptTokens: 257, contextSize: 256 }],
    ['too many new tokens', { tokens }, { maxTokens: 254 }, { code: 'CONTEXT_OVERFLOW', promptTokens: 3, maxTokens: 254 }],
    ['an unknown option', { tokens }, { maxtoken: 1 }, { code: 'INVALID_OPTION', option: 'maxtoken', reason: 'unknown' }],
    ['a value out of range', { tokens }, { topP: 1.5 }, { code: 'INVALID_OPTION', option: 'topP', value: 1.5 }],
    ['greedy with several outputs', { tokens }, { n: 2 }, { code: 'INVALID_OPTION', option: 'n', value: 2 }],
    ['more outputs than beams', { tokens }, { n: 3, numBeams: 2 }, { code: 'INVALID_OPTION', option: 'n', value: 3 }],
    ['more beams than sequences', { tokens }, { numBeams: 5 }, { code: 'INVALID_OPTION', option: 'numBeams', value: 5 }],
    ['beams with a temperature', { tokens }, { numBeams: 2, temperature: 1 }, { code: 'INVALID_OPTION' }],
    ['minTokens above maxTokens', { tokens }, { minTokens: 5, maxTokens: 4 }, { code: 'INVALID_OPTION', option: 'minTokens' }],
    ['a forced token beyond the vocabulary', { tokens }, { forcedFirstToken: 512 }, { code: 'INVALID_OPTION', option: 'forcedFirstToken' }],
    ['guesses with beams', { tokens }, { speculate: 'lookup', numBeams: 2 }, { code: 'INVALID_OPTION', option: 'speculate' }],
  ])('%s', async (_, prompt, options, expected) => {
    const errors = [
      await failure(tiny.generate(prompt as never, options as never)), await failure(tiny.stream(prompt as never, options as never)),
    ]
    for (const e of errors) {
      expect(e).toMatchObject(expected)
      expect(isPolyLMError(e)).toBe(true)
      expect([e.retryable, e.fatal]).toEqual([false, false])
    }
  })

  test('a full queue says how many wait and when to come again', async () => {
    const calls = Array.from({ length: 40 }, () => tiny.generate({ tokens }, { ...busy, maxTokens: 20 }))
    const errors = (await Promise.allSettled(calls)).flatMap(result => (result.status === 'rejected' ? [result.reason as Error] : []))
    expect(errors.length).toBeGreaterThan(0)
    expect(errors.length).toBeLessThanOrEqual(32)
    for (const e of errors) {
      expect(e).toMatchObject({ code: 'QUEUE_FULL', retryable: true, waiting: expect.any(Number), retryAfterMs: expect.any(Number) })
    }
    expect(tiny.stats().counters.rejected).toBeGreaterThanOrEqual(errors.length)
  })

  test('generateEach and loglikelihood wait for room instead', async () => {
    let answers = 0
    const inputs = Array.from({ length: 60 }, (_, i) => ({ tokens: [i + 1] }))
    for await (const item of tiny.generateEach(inputs, { maxTokens: 2, stopTokenIds: [] })) if (item.ok) answers++
    expect(answers).toBe(60)
    const items = inputs.map(context => ({ context, continuation: { tokens: [9] } }))
    expect(await tiny.loglikelihood(items)).toHaveLength(60)
  })

  test('waiting longer than queueTimeoutMs', async () => {
    const running = Array.from({ length: 4 }, () => tiny.generate({ tokens }, busy))
    expect(await failure(tiny.generate({ tokens }, { ...busy, queueTimeoutMs: 1 }))).toMatchObject({
      code: 'QUEUE_TIMEOUT', retryable: true })
    await Promise.all(running)
  })

  test('nothing throws synchronously', () => {
    const bad = undefined as never
    for (const promise of [
      tiny.generate(bad), tiny.stream(bad), tiny.logits(bad), tiny.score(bad), tiny.loglikelihood(bad),
      Model.load(bad), Model.estimate(bad),
      tiny.dispose({ drainMs: -1 }),
    ]) {
      expect(promise).toBeInstanceOf(Promise)
      promise.catch(() => { /* expected */ })
    }
  })
})

describe('memory', () => {
  test('a request larger than the whole KV cache', async () => {
    const model = await loadTiny({ kvMemory: '400KiB' })
    expect(model.info.kvTokens).toBeLessThan(256)
    const e = await failure(model.generate({ tokens: [5] }, { maxTokens: 200 }))
    expect(e).toMatchObject({ code: 'INSUFFICIENT_MEMORY', required: expect.any(Number), available: expect.any(Number) })
    expect(e['required']).toBeGreaterThan(e['available'] as number)
    await model.dispose()
  })

  test('a model larger than the machine is refused before its weights are read', async () => {
    const dir = variant('huge', { n_layer: 512, n_embd: 65536, n_head: 512 })
    const e = await failure(Model.load(dir))
    expect(e).toMatchObject({ code: 'INSUFFICIENT_MEMORY', required: expect.any(Number), available: expect.any(Number) })
    expect(e['suggestions']).toEqual(expect.arrayContaining([expect.stringContaining('contextSize')]))
    expect((await Model.estimate(dir)).fits).toBe(false)
  })

  test('neither are random weights made for a benchmark that does not fit', async () => {
    const shape = { layers: 512, heads: 512, hiddenSize: 65536, innerSize: 262144, contextSize: 2048, vocabSize: 256000 }
    expect(await failure(createRandomModel(shape))).toMatchObject({ code: 'INSUFFICIENT_MEMORY' })
  })

  test('a KV cache smaller than a block', async () => {
    expect(await failure(loadTiny({ kvMemory: 1 }))).toMatchObject({ code: 'INVALID_OPTION', option: 'kvMemory', value: 1 })
  })

  test.each([['bf16'], ['fp32']] as const)('the estimate of %s is what it takes', async dtype => {
    const [estimate, model] = [await Model.estimate(tinyDir, { dtype }), await loadTiny({ dtype })]
    const { memory } = model.stats()
    expect(memory.weights).toBe(estimate.weights)
    expect(memory.kv).toBe(estimate.kv)
    expect(memory.workspace / estimate.workspace).toBeGreaterThan(0.8)
    expect(memory.workspace / estimate.workspace).toBeLessThan(1.25)
    await model.dispose()
  })
})

describe('loading', () => {
  test('a device that is not there', async () => {
    for (const device of ['cuda', 'cuda:3'] as const) {
      const cuda = (await Model.devices()).find(({ kind }) => kind === 'cuda')
      if (cuda?.usable === true) continue
      expect(await failure(loadTiny({ device }))).toMatchObject({ code: 'DEVICE', device })
    }
  })

  test.each<[string, string | object | null, object]>([
    ['no directory', '/nonexistent/model', { code: 'FILE_NOT_FOUND' }],
    ['a path that is no text', null, { code: 'INVALID_OPTION', option: 'dir' }],
    ['an empty path', '', { code: 'INVALID_OPTION', option: 'dir' }],
    ['another kind of model', { model_type: 'llama', architectures: ['LlamaForCausalLM'] }, { code: 'UNSUPPORTED_MODEL' }],
    ['heads that do not divide', { n_head: 3 }, { code: 'CONFIG_CONFLICT' }],
    ['a layer too many', { n_layer: 4 }, { code: 'WEIGHTS_MISSING' }],
    ['another width', { n_embd: 128 }, { code: 'WEIGHTS_SHAPE' }],
  ])('%s', async (name, given, expected) => {
    const dir = typeof given === 'object' && given !== null ? variant(name, given) : given
    expect(await failure(Model.load(dir as string))).toMatchObject(expected)
  })

  test('weights that are not numbers are found while they are read', async () => {
    const dir = variant('nan', {}, { name: 'transformer.wpe.weight', from: 9, value: [0x7fc0] })
    expect(await failure(Model.load(dir))).toMatchObject({ code: 'WEIGHTS_NONFINITE', fatal: false })
  })

  test('weights that overflow later are NUMERIC for the call alone', async () => {
    const huge = new Array<number>(256).fill(0x7f7f)
    const dir = variant('overflow', {}, { name: 'transformer.wpe.weight', from: 5 * 256, value: huge })
    const model = await Model.load(dir, { dtype: 'fp32' })
    const options = { maxTokens: 2, stopTokenIds: [] }
    expect(await failure(model.generate({ tokens: [1, 2, 3, 4, 5, 6] }, options))).toMatchObject({ code: 'NUMERIC', fatal: false })
    expect((await model.generate({ tokens: [1, 2] }, options)).outputs[0]?.tokens).toHaveLength(2)
    expect(model.stats().state).toBe('ready')
    await model.dispose()
  })

  test('ids that the model does not have load with a warning, and only a prompt with one is refused', async () => {
    const dir = path.join(folder, 'beyond')
    cpSync(demoModel, dir, { recursive: true })
    const config = JSON.parse(readFileSync(path.join(dir, 'config.json'), 'utf8')) as { vocab_size: number }
    const beyond = config.vocab_size
    writeFileSync(path.join(dir, 'config.json'), JSON.stringify({ ...config, eos_token_id: [2, beyond, -1] }))
    writeFileSync(path.join(dir, 'added_tokens.json'), JSON.stringify({ '[PAD]': beyond }))
    const model = await Model.load(dir, { device: 'cpu' })
    const text = 'a [PAD] b'
    try {
      expect(model.info.stopTokenIds).toEqual([2])
      expect(model.info.warnings.map(warning => /eos_token_id|\[PAD\]/.exec(warning)?.[0])).toEqual(['eos_token_id', '[PAD]'])
      expect([...model.tokenizer.encode(text)]).toContain(beyond)
      const refused = { code: 'INVALID_PROMPT', reason: 'token out of range', hint: expect.stringContaining('"[PAD]"') as string }
      expect(await failure(model.generate(text, { maxTokens: 1 }))).toMatchObject(refused)
      expect(await failure(model.score(text))).toMatchObject({ code: 'INVALID_PROMPT' })
      expect(await failure(model.generate('a', { maxTokens: 1, allow: { choices: ['[PAD]'] } }))).toMatchObject({ code: 'INVALID_OPTION' })
      expect((await model.generate(text, { maxTokens: 1, parseSpecial: false })).outputs).toHaveLength(1)
      const session = model.createSession({ template: 'none' })
      expect(await failure(session.append(text))).toMatchObject({ code: 'INVALID_PROMPT', reason: 'token out of range' })
      await session.append('a b')
      expect((await session.send('c', { maxTokens: 1 })).outputs).toHaveLength(1)
      expect(model.stats().state).toBe('ready')
    } finally {
      await model.dispose()
    }
  })

  test('a callback that throws ends the load with what it threw', async () => {
    const mine = new RangeError('mine')
    expect(await failure(loadTiny({ onProgress: () => { throw mine } }))).toBe(mine)
  })

  test('an abort ends it with its reason, whenever it comes', async () => {
    const reason = { why: 'enough' }
    expect(await failure(loadTiny({ signal: AbortSignal.abort(reason) }))).toBe(reason)
    let ended = 0
    for (let i = 0; i < 20; i++) {
      const controller = new AbortController()
      setTimeout(() => { controller.abort(reason) }, i)
      await loadDemo({ signal: controller.signal }).then(async model => { await model.dispose() }, (e: unknown) => {
        expect(e).toBe(reason)
        ended++
      })
    }
    expect(ended).toBeGreaterThan(0)
  })

  test('progress counts the bytes that are read', async () => {
    const seen: Array<{ phase: string; loaded: number; total: number }> = []
    const model = await loadDemo({ onProgress: progress => seen.push(progress) })
    await model.dispose()
    expect([...new Set(seen.map(({ phase }) => phase))]).toEqual(['read', 'prepare', 'warmup'])
    const read = seen.filter(({ phase }) => phase === 'read')
    expect(read.at(-1)?.loaded).toBe(read.at(-1)?.total)
    expect(read.map(({ loaded }) => loaded)).toEqual(read.map(({ loaded }) => loaded).sort((a, b) => a - b))
  })

  test('what the logger hears and what the info says', async () => {
    const lines: string[] = []
    const model = await loadTiny({ logger: (level, message) => lines.push(`${level}: ${message}`) })
    expect(lines.some(line => line.startsWith('info: loaded on'))).toBe(true)
    expect(model.info).toMatchObject({
      family: 'gpt2', layers: 3, heads: 2, hiddenSize: 256, vocabSize: 512, contextSize: 256, kvTokens: 1024, dtype: 'fp32',
      parameters: 2_566_400, stopTokenIds: [2], warnings: [],
    })
    expect(model.info.weightsFingerprint).toMatch(/^[0-9a-f]{16}$/)
    expect(model.generationConfig).toMatchObject({ eos_token_id: 2 })
    expect(() => model.tokenizer).toThrow(expect.objectContaining({ code: 'TOKENIZER_MISSING' }))
    await model.dispose()
  })
})
