// forgotten.mjs: models that are collected without dispose: each is reported, and its memory comes back.
import { demoModel, Model } from './common.mjs'
let warnings = 0
process.on('warning', ({ code }) => { if (code === 'POLYLM_NOT_DISPOSED') warnings++ })
const forget = async () => {
  const model = await Model.load(demoModel, { device: 'cpu' })
  await model.generate('Rome is', { maxTokens: 3 })
}
const collect = async () => {
  for (let i = 0; i < 10; i++) {
    globalThis.gc()
    await new Promise(resolve => setTimeout(resolve, 10))
  }
}
await forget()
await collect()
const before = process.memoryUsage.rss()
for (let i = 0; i < 12; i++) await forget()
await collect()
console.log(JSON.stringify({ warnings, grown: process.memoryUsage.rss() - before }))
