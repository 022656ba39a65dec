// A translation with beam search, then an answer shown as it is made.
import { demoModel, Model } from '../../lib/index.js'

const model = await Model.load(demoModel)       // or a directory: './polylm-1.7b'
try {
  const prompt = 'Beijing is the capital of China.\nTranslate this sentence from English to Chinese.'
  const { text, usage } = await model.generate(prompt, { numBeams: 4, earlyStopping: true, maxTokens: 64 })
  console.log(text.trim(), usage.completionTokens)

  const messages = [{ role: 'user', content: 'What is the capital of France?' }] as const
  const stream = await model.stream({ messages, template: 'assistant' }, { maxTokens: 40 })
  for await (const piece of stream.textStream) process.stdout.write(piece)
} finally {
  await model.dispose()
}
