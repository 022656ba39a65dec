// save-full.mjs <file>: saves a long conversation where no file may grow beyond a few kilobytes (ulimit -f).
import { demoModel, Model } from './common.mjs'
const model = await Model.load(demoModel, { device: 'cpu' })
const chat = model.createSession({ template: 'none' })
for (let i = 0; i < 200; i++) await chat.append('a message of some length '.repeat(10))
try {
  await chat.save(process.argv[2])
  console.log('saved')
} catch (e) {
  console.log(e.code, e.cause.code, chat.history.length)
}
await model.dispose()
