// terminate.mjs <n>: starts n workers, two at a time, and terminates each at a random moment.
import { Worker } from 'node:worker_threads'
let left = Number(process.argv[2])
const lane = async () => {
  while (left-- > 0) {
    const worker = new Worker(new URL('./worker.mjs', import.meta.url))
    worker.on('error', e => { console.error(e); process.exitCode = 3 })
    await new Promise(resolve => setTimeout(resolve, Math.random() * 500))
    await worker.terminate()
  }
}
await Promise.all([lane(), lane()])
console.log('done')
