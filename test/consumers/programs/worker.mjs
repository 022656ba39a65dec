// The main thread and two workers each load the model; one worker is ended in the middle of a stream.
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { demoModel, Model } from 'polylm'

const prompt = 'Beijing is the capital of China.\nTranslate this sentence from English to Chinese.'

async function answer() {
  const model = await Model.load(demoModel)
  const { text } = await model.generate(prompt, { maxTokens: 64 })
  await model.dispose()
  return text.trim()
}

if (isMainThread) {
  const file = new URL(import.meta.url)
  const said = worker => new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
  const good = new Worker(file, { workerData: 'answer' })
  const ended = new Worker(file, { workerData: 'stream' })
  const [text] = await Promise.all([said(good), said(ended).then(() => ended.terminate())])
  const own = await answer()
  if (own !== text) throw new Error(`the worker said ${text}, the main thread ${own}`)
  console.log(own)
} else if (workerData === 'answer') {
  parentPort.postMessage(await answer())
} else {
  const model = await Model.load(demoModel)
  const stream = await model.stream(prompt, { maxTokens: 200, minTokens: 200 })
  for await (const piece of stream.textStream) parentPort.postMessage(piece)
}
