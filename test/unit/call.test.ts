// call.test.ts: what a call makes of a failure of the engine, or of its own request.
import { startCall, type Engine } from '../../lib/call.js'
import { PolyLMError } from '../../lib/errors.js'

/** An engine that fails the one call it gets. */
function engineThatFails(state: 'ready' | 'failed', error: PolyLMError): Engine {
  const native = { submit: () => 1, cancel: () => undefined, stats: () => ({ state }) }
  const router = { add: (_id: number, listener: { failed: (e: unknown) => void }) => { queueMicrotask(() => { listener.failed(error) }) } }
  return { native, router } as unknown as Engine
}

const request = { kind: 2, prompt: [] } as const
const rules = { signal: undefined, returnOnAbort: false }

test.each([['ready', false], ['failed', true]] as const)(
  'INTERNAL while the engine is %s is fatal: %s', async (state, fatal) => {
    const engine = engineThatFails(state, new PolyLMError('INTERNAL', 'a check failed', { hint: 'report it' }))
    await expect(startCall(engine, request, rules).result)
      .rejects.toMatchObject({ code: 'INTERNAL', message: 'a check failed', hint: 'report it', fatal })
  })

test('a device that is gone is fatal for its model, whatever the engine says', async () => {
  const engine = engineThatFails('ready', new PolyLMError('DEVICE', 'lost'))
  await expect(startCall(engine, request, rules).result).rejects.toMatchObject({ code: 'DEVICE', fatal: true })
})
