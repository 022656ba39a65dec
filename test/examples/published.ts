// The call of the authors' README, with the same tokens as Hugging Face transformers 4.31.
import { Model } from '../../lib/index.js'

const dir = process.argv[2] ?? './polylm-1.7b'
const model = await Model.load(dir, { compat: 'hf-4.31', dtype: 'fp32' })
const prompt = 'Beijing is the capital of China.\nTranslate this sentence from English to Chinese.'
const { length } = model.tokenizer.encode(prompt)
const result = await model.generate(prompt, {
  numBeams: 4, earlyStopping: true, maxTokens: 128 - length, stopTokenIds: [2],
})
console.log(prompt + result.text)
await model.dispose()
