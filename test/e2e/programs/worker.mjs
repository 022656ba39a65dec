// worker.mjs: a worker that loads the demonstration model and generates until it is terminated.
import { busy, demoModel, Model } from './common.mjs'
const model = await Model.load(demoModel, { device: 'cpu' })
await Promise.all([busy(model), busy(model), model.generate('Paris is', { numBeams: 4, maxTokens: 200, stopTokenIds: [] })])
