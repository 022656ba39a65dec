// callbacks.mjs: every callback of the API fails in every way; prints what each call ended with. An unhandled
// rejection, or an exception in an event handler, would end this process before the last line.
import { demoModel, Model } from './common.mjs'

const mine = new Error('mine')
const ways = {
  throws: () => { throw mine },
  rejects: async () => { throw mine },
  rejectsLater: async () => { await new Promise(resolve => setTimeout(resolve, 5)); throw mine },
  thenThrows: () => ({ then() { throw mine } }),
  thenRejects: () => ({ then(_, reject) { reject(mine) } }),
  thenGetter: () => ({ get then() { throw mine } }),
}
const end = promise => promise.then(() => 'ok', e => (e === mine ? 'mine' : typeof e?.code === 'string' ? e.code : e?.name ?? String(e)))
const model = await Model.load(demoModel, { device: 'cpu' })
const load = async options => { await (await Model.load(demoModel, { device: 'cpu', ...options })).dispose() }
const items = [{ context: 'a', continuation: 'b' }, { context: 'c', continuation: 'd' }]
const messages = [{ role: 'user', content: 'x' }]
const all = async inputs => { for await (const _ of model.generateEach(inputs, { maxTokens: 1 })) { /* all */ } }
const signal = extra => Object.assign(new EventTarget(), { aborted: false, ...extra })

for (const [name, way] of Object.entries(ways)) {
  console.log(JSON.stringify({
    way: name,
    onProgress: await end(load({ onProgress: way })),
    logger: await end(load({ logger: way })),
    scoring: await end(model.loglikelihood(items, { onProgress: way })),
    template: await end(model.generate({ messages, template: way }, { maxTokens: 1 })),
    session: await end(model.createSession({ template: 'none' }).send('a', { maxTokens: 1, signal: signal({ addEventListener: way }) })),
    next: await end(all({ [Symbol.iterator]: () => ({ next: way }) })),
    asyncNext: await end(all({ [Symbol.asyncIterator]: () => ({ next: way }) })),
    iterator: await end(all({ [Symbol.iterator]: way })),
  }))
}
// Signals that are none of the platform's: without throwIfAborted, with a reason that throws, aborted by a stranger.
const own = signal({})
const aborted = end(model.generate('a', { maxTokens: 200, stopTokenIds: [], signal: own }))
own.aborted = true
own.reason = mine
own.dispatchEvent(new Event('abort'))
const bad = signal({})
Object.defineProperty(bad, 'reason', { get() { throw mine } })
const unreadable = end(model.generate('a', { maxTokens: 200, stopTokenIds: [], signal: bad }))
bad.dispatchEvent(new Event('abort'))
const changed = new AbortController()
Object.defineProperty(changed.signal, 'reason', { get() { throw mine } })
const redefined = end(model.score('a b c', { signal: changed.signal }))
changed.abort()
console.log(JSON.stringify({ aborted: await aborted, unreadable: await unreadable, redefined: await redefined }))
const { text } = await model.generate('Rome is', { maxTokens: 3 })
await model.dispose()
console.log(JSON.stringify({ alive: text.length > 0 }))
