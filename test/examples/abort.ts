// A deadline for loading and for answering; an abort rejects with the signal's own reason.
import { demoModel, Model } from '../../lib/index.js'

const model = await Model.load(demoModel, {
  signal: AbortSignal.timeout(60_000),
  onProgress: ({ loaded, total }) => { if (loaded === total) console.log('read', total, 'bytes') },
})
try {
  await model.generate('Bonjour', { maxTokens: 200, minTokens: 200, signal: AbortSignal.timeout(1) })
} catch (e) {
  console.log((e as Error).name)
} finally {
  await model.dispose()
}
