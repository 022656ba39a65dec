// idle.mjs: a model that was never disposed of must not keep the process alive; a pending call must.
import { demoModel, Model } from './common.mjs'
const model = await Model.load(demoModel, { device: 'cpu' })
await model.generate('Rome is', { maxTokens: 5 })
const late = await model.createSession({ template: 'none' }).stream('Paris is', { maxTokens: 60, stopTokenIds: [] })
late.result.then(result => { console.log(`tokens ${result.usage.completionTokens}`) })
