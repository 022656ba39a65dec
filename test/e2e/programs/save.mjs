// save.mjs <file>: saves two conversations in turn for ever; prints a line when the first is there.
import { demoModel, Model } from './common.mjs'
const model = await Model.load(demoModel, { device: 'cpu' })
const make = name => model.createSession({ history: Array.from({ length: 100 }, (_, i) => (
  { role: i % 2 === 0 ? 'user' : 'assistant', content: `${name} `.repeat(20) })) })
const sessions = ['one', 'two'].map(make)
await sessions[0].save(process.argv[2])
console.log('saved')
for (let i = 1; ; i++) await sessions[i % 2].save(process.argv[2])
