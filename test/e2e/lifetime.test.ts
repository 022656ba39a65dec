// lifetime.test.ts: every method in every state, ends at bad moments, and processes that end while a model
// works. The processes run the built package (npm run build:js), as users do.
import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Model, Session } from '../../lib/index.js'
import { failure, idle, loadDemo, loadTiny, sleep } from './models.js'

const busyOptions = { maxTokens: 200, stopTokenIds: [] }
const prompt = { tokens: [5, 6, 7] }

// ------------------------------------------------------------------------------------------ methods and states

type State = 'ready' | 'generating' | 'draining' | 'disposed'
type SessionState = State | 'busy' | 'ended'         // itself; else the model
type Cell = 'works' | 'DISPOSED' | 'DRAINING'
const states: readonly State[] = ['ready', 'generating', 'draining', 'disposed']
const sessionStates: readonly SessionState[] = [...states, 'busy', 'ended']

const folder = mkdtempSync(path.join(tmpdir(), 'polylm-'))
const savedFile = path.join(folder, 'saved.plm')
beforeAll(async () => {
  const model = await loadDemo()
  await model.createSession({ template: 'none' }).save(savedFile)
  await model.dispose()
})
afterAll(() => { rmSync(folder, { recursive: true }) })

/** What each public member does in each state. A new member must get a row here. */
const ofModel: Readonly<Record<keyof Model, { readonly use: (m: Model) => unknown; readonly cells: Readonly<Record<State, Cell>> }>> = {
  generate: { use: m => m.generate(prompt, { maxTokens: 1 }), cells: running() },
  generateEach: { use: async m => { for await (const item of m.generateEach([prompt], { maxTokens: 1 })) return item }, cells: running() },
  stream: { use: async m => await (await m.stream(prompt, { maxTokens: 1 })).result, cells: running() },
  logits: { use: m => m.logits(prompt), cells: running() },
  loglikelihood: { use: m => m.loglikelihood([{ context: prompt, continuation: prompt }]), cells: running() },
  score: { use: m => m.score(prompt), cells: running() },
  explain: { use: m => m.explain({}), cells: { ...always(), disposed: 'DISPOSED' } },
  createSession: { use: m => m.createSession({ template: 'none' }), cells: { ...always(), disposed: 'DISPOSED' } },
  restoreSession: { use: m => m.restoreSession(savedFile), cells: { ...always(), disposed: 'DISPOSED' } },
  stats: { use: m => m.stats(), cells: always() },
  info: { use: m => m.info, cells: always() },
  generationConfig: { use: m => m.generationConfig, cells: always() },
  tokenizer: { use: m => m.tokenizer.encode('x'), cells: always() },
  dispose: { use: m => m.dispose(), cells: always() },
  [Symbol.asyncDispose]: { use: async m => { await m[Symbol.asyncDispose]() }, cells: always() },
}

const ofSession: Readonly<Record<keyof Session, {
  readonly use: (s: Session) => unknown
  readonly cells: Readonly<Record<SessionState, Cell>>
}>> = {
  send: { use: s => s.send(prompt, { maxTokens: 1 }), cells: turns() },
  stream: { use: async s => await (await s.stream(prompt, { maxTokens: 1 })).result, cells: turns() },
  fork: { use: s => s.fork().history, cells: open() },
  rewind: { use: s => s.rewind({ turns: 0 }), cells: open() },
  append: { use: s => s.append(prompt), cells: open() },
  logits: { use: async s => { await s.append(prompt); return await s.logits() }, cells: turns() },
  save: { use: s => s.save(path.join(folder, 'other.plm')), cells: open() },
  history: { use: s => s.history, cells: anyTime() },
  tokens: { use: s => s.tokens, cells: open() },
  contextUsed: { use: s => s.contextUsed, cells: open() },
  dispose: { use: s => s.dispose(), cells: anyTime() },
  [Symbol.asyncDispose]: { use: s => s[Symbol.asyncDispose](), cells: anyTime() },
}

function turns(): Record<SessionState, Cell> {
  return { ...running(), busy: 'works', ended: 'DISPOSED' }
}

function open(): Record<SessionState, Cell> {
  return { ...always(), disposed: 'DISPOSED', busy: 'works', ended: 'DISPOSED' }
}

function anyTime(): Record<SessionState, Cell> {
  return { ...always(), busy: 'works', ended: 'works' }
}

function running(): Record<State, Cell> {
  return { ready: 'works', generating: 'works', draining: 'DRAINING', disposed: 'DISPOSED' }
}

function always(): Record<State, Cell> {
  return { ready: 'works', generating: 'works', draining: 'works', disposed: 'works' }
}

/** Brings a fresh model into a state; `after` waits for what that left behind. */
async function inState(state: SessionState): Promise<{ model: Model; session: Session; after: () => Promise<unknown> }> {
  const model = await loadDemo()
  const session = model.createSession({ template: 'none' })
  const calls: Promise<unknown>[] = []
  if (state === 'generating' || state === 'draining') calls.push(model.generate(prompt, busyOptions).catch((e: unknown) => e))
  if (state === 'draining') calls.push(model.dispose({ drainMs: 5000 }))
  if (state === 'disposed') await model.dispose()
  if (state === 'busy') calls.push(session.send(prompt, { ...busyOptions, maxTokens: 40 }).catch((e: unknown) => e))
  if (state === 'ended') await session.dispose()
  return { model, session, after: async () => { await Promise.all([...calls, model.dispose()]) } }
}

async function outcome(use: () => unknown): Promise<Cell> {
  try {
    await use()
    return 'works'
  } catch (e) {
    return (e as { code?: Cell }).code ?? (e as Error).message as Cell
  }
}

describe.each(states)('%s', state => {
  test.each(Object.getOwnPropertyNames(ofModel).concat('asyncDispose'))('model.%s', async name => {
    const row = name === 'asyncDispose' ? ofModel[Symbol.asyncDispose] : ofModel[name as keyof typeof ofModel]
    const { model, after } = await inState(state)
    expect(await outcome(() => row.use(model))).toBe(row.cells[state])
    await after()
  })
})

describe.each(sessionStates)('%s', state => {
  test.each(Object.getOwnPropertyNames(ofSession).concat('asyncDispose'))('session.%s', async name => {
    const row = name === 'asyncDispose' ? ofSession[Symbol.asyncDispose] : ofSession[name as keyof typeof ofSession]
    const { session, after } = await inState(state)
    expect(await outcome(() => row.use(session))).toBe(row.cells[state])
    await after()
  })
})

test('the tables have a row for every member', async () => {
  const model = await loadTiny()
  const session = model.createSession()
  const members = (object: object): string[] => {
    const names = new Set([...Object.keys(object), ...Object.getOwnPropertyNames(Object.getPrototypeOf(object))])
    names.delete('constructor')
    return [...names].sort()
  }
  expect(members(model)).toEqual(Object.getOwnPropertyNames(ofModel).sort())
  expect(members(session)).toEqual(Object.getOwnPropertyNames(ofSession).sort())
  await model.dispose()
})

// ------------------------------------------------------------------------------------------------ ends

test('dispose in the middle: every call ends, DISPOSED or whole; the counters stay', async () => {
  for (let i = 0; i < 15; i++) {
    const model = await loadDemo()
    const calls = [
      ...[1, 2, 3].map(() => model.generate('Rome is', busyOptions)), model.generate('Rome is', { ...busyOptions, numBeams: 4 }),
      model.stream('Rome is', busyOptions).then(async stream => await stream.result), model.score('Rome is the capital.'),
    ].map(call => call.then(() => 'whole', (e: unknown) => (e as { code: string }).code))
    await sleep(Math.random() * 15)
    await Promise.all([model.dispose(), model.dispose()])
    for (const end of await Promise.all(calls)) expect(['whole', 'DISPOSED']).toContain(end)
    expect(model.stats()).toMatchObject({ state: 'disposed', running: 0, waiting: 0, memory: { total: 0 } })
  }
})

test('a drain lets running calls finish, and no longer than it may', async () => {
  const model = await loadDemo()
  const call = model.generate('Rome is', { ...busyOptions, maxTokens: 50 })
  const disposal = model.dispose({ drainMs: 20_000 })
  expect(model.stats().state).toBe('draining')
  expect((await call).outputs[0]?.tokens).toHaveLength(50)
  await disposal
  const other = await loadDemo()
  const cut = failure(Promise.all(Array.from({ length: 64 }, () => other.generate('Rome is', busyOptions))))
  await other.dispose({ drainMs: 1 })
  expect((await cut).code).toBe('DISPOSED')
})

test('aborts at random moments give everything back', async () => {
  const model = await loadDemo()
  const reason = { why: 'enough' }
  let [whole, aborted] = [0, 0]
  const one = async (i: number): Promise<void> => {
    const controller = new AbortController()
    const options = { maxTokens: 1 + i % 40, stopTokenIds: [], signal: controller.signal, ...(i % 3 === 0 ? { numBeams: 1 + i % 5 } : {}) }
    // However fast the machine is, some end by themselves and some are aborted at once.
    const timer = i % 8 === 0 ? undefined : setTimeout(() => { controller.abort(reason) }, i % 8 === 1 ? 0 : Math.random() * 60)
    try {
      if (i % 4 === 1) for await (const _ of await model.stream('Rome is', options)) { /* all of them */ }
      else await model.generate('Rome is', options)
      whole++
    } catch (e) {
      expect(e).toBe(reason)
      aborted++
    }
    clearTimeout(timer)
  }
  let next = 0
  await Promise.all(Array.from({ length: 12 }, async () => { while (next < 800) await one(next++) }))
  expect(Math.min(whole, aborted)).toBeGreaterThan(20)
  await idle(model)
  expect(model.stats().kv.usedTokens).toBe(0)
  await model.dispose()
})

test('a thousand conversations at once give the tokens of each alone', async () => {
  const model = await loadTiny()
  const options = { maxTokens: 8, stopTokenIds: [] }
  const ask = async (i: number): Promise<string> =>
    (await model.createSession({ template: 'none' }).send({ tokens: [i % 512, (i * 7) % 512] }, options)).outputs[0]?.tokens.join() ?? ''
  const together = await Promise.all(Array.from({ length: 1000 }, (_, i) => ask(i)))
  for (let i = 0; i < 1000; i += 83) expect(await ask(i)).toBe(together[i])
  await model.dispose()
})

test('a blocked event loop does not slow the engine', async () => {
  const model = await loadDemo()
  const call = model.generate('Rome is', busyOptions)
  await sleep(20)
  const end = performance.now() + 2000
  while (performance.now() < end) { /* nobody else may run */ }
  expect(model.stats()).toMatchObject({ running: 0, waiting: 0 })
  expect((await call).outputs[0]?.tokens).toHaveLength(200)
  await model.dispose()
})

test('two copies of the package in one process', async () => {
  let other: typeof import('../../lib/index.js') | undefined
  jest.isolateModules(() => { other = jest.requireActual('../../lib/index.js') })
  const { demoModel, Model: Other } = other as typeof import('../../lib/index.js')
  const [a, b] = await Promise.all([loadDemo(), Other.load(demoModel, { device: 'cpu' })])
  const [x, y] = await Promise.all([a.generate('Rome is', busyOptions), b.generate('Rome is', busyOptions)])
  expect(x.text).toBe(y.text)
  expect(a.info.weightsFingerprint).toBe(b.info.weightsFingerprint)
  await Promise.all([a.dispose(), b.dispose()])
})

// ------------------------------------------------------------------------------------------- processes

interface Ended {
  readonly code: number | string | null | undefined
  readonly signal: NodeJS.Signals | null | undefined
  readonly stdout: string
}

function run(program: string, args: readonly string[] = [], flags: readonly string[] = []): Promise<Ended> {
  const root = path.join(__dirname, '../..')
  if (!existsSync(path.join(root, 'dist/index.js'))) throw new Error('dist/index.js is missing: npm run build:js')
  return new Promise(resolve => {
    const child = execFile(process.execPath, [...flags, path.join(__dirname, 'programs', program), ...args],
      { timeout: 50_000 }, (error, stdout) => { resolve({ code: error?.code ?? child.exitCode, signal: error?.signal ?? null, stdout }) })
  })
}

describe('a process', () => {
  test('terminates workers at random moments and lives', async () => {
    expect(await run('terminate.mjs', ['40'])).toEqual({ code: 0, signal: null, stdout: 'done\n' })
  })

  test.each([['exit', 7, null], ['throw', 1, null], ['kill', null, 'SIGTERM'], ['exit-in-dispose', 9, null]] as const)(
    'ends by %s in the middle as Node would', async (how, code, signal) => {
      for (let i = 0; i < 4; i++) {
        const ended = await run('end.mjs', [how])
        expect([ended.code, ended.signal]).toEqual([code, signal])
      }
    })

  test('ends by itself when no call is pending, and not before', async () => {
    expect(await run('idle.mjs')).toEqual({ code: 0, signal: null, stdout: 'tokens 60\n' })
  })

  test('reports models that were forgotten and gets their memory back', async () => {
    const { code, stdout } = await run('forgotten.mjs', [], ['--expose-gc', '--no-warnings'])
    expect(code).toBe(0)
    const { warnings, grown } = JSON.parse(stdout) as { warnings: number; grown: number }
    expect(warnings).toBe(13)
    expect(grown).toBeLessThan(60e6)              // the weights of twelve are 84 MB
  })
})
