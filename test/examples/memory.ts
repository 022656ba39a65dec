// What a model needs is known before it is loaded; what it took is known after.
import { demoModel, Model } from '../../lib/index.js'

const plan = await Model.estimate(demoModel, { contextSize: 128, maxSequences: 4 })
if (!plan.fits) throw new Error(`${plan.total} bytes are not free`)
const model = await Model.load(demoModel, { contextSize: 128, maxSequences: 4 })
const { memory, kv } = model.stats()
console.log(`planned ${plan.total} bytes, took ${memory.total}; room for ${kv.totalTokens} tokens`)
await model.dispose()
