// wake-ups.test.ts: how often the engine disturbs the event loop: at most once for a step, whatever its requests
// stream, and once for each admission at most. Counted where Node is called, and where JavaScript is.
import { checkLoad } from '../../lib/load-options.js'
import { loadModel } from '../../lib/load.js'
import { makeModel } from '../../lib/model.js'
import { demoModel } from '../../lib/index.js'

test('64 streams at once: at most one wake-up for a step', async () => {
  const parts = await loadModel(demoModel, checkLoad({ device: 'cpu' }))
  const { native, router } = parts.core.engine
  const model = makeModel(parts)
  const before = { wakeUps: native.stats().wakeUps, steps: native.stats().steps }
  let events = 0
  const read = async (i: number): Promise<void> => {
    const stream = await model.stream(`Rome is ${i}`, { maxTokens: 60, stopTokenIds: [], logprobs: 1 })
    for await (const event of stream) if (event.type === 'text') events++
  }
  await Promise.all(Array.from({ length: 64 }, (_, i) => read(i)))
  const wakeUps = native.stats().wakeUps - before.wakeUps
  const steps = native.stats().steps - before.steps
  expect(router.pending).toBe(0)
  expect(events).toBeGreaterThan(1500)
  expect(wakeUps).toBeGreaterThan(0)
  expect(wakeUps).toBeLessThanOrEqual(steps + 64)
  expect(wakeUps).toBeLessThan(events / 4)
  await model.dispose()
})
