// end.mjs <how>: ends the process in the middle of generating.
import { busy, demoModel, Model } from './common.mjs'
const how = process.argv[2]
const model = await Model.load(demoModel, { device: 'cpu' })
for (let i = 0; i < 3; i++) busy(model).catch(() => { /* the end */ })
setTimeout(() => {
  if (how === 'exit') process.exit(7)
  if (how === 'throw') throw new Error('boom')
  if (how === 'kill') process.kill(process.pid, 'SIGTERM')
  if (how === 'exit-in-dispose') {
    void model.dispose()
    process.exit(9)
  }
}, Math.random() * 60)
