// Keyword arguments of Hugging Face's generate become options, and options say what they would do.
import { demoModel, fromHuggingFace, Model } from '../../lib/index.js'

const { options, dropped } = fromHuggingFace({
  do_sample: false, num_beams: 4, early_stopping: true, max_new_tokens: 64, length_penalty: 1, use_cache: true,
})
console.log(dropped.length, 'arguments have no effect on the output')

const model = await Model.load(demoModel)
const { processors, huggingFace } = model.explain(options)
console.log(processors, huggingFace)
const prompt = 'Rome is the capital of Italy.\nTranslate this sentence from English to Thai.'
const { outputs } = await model.generate(prompt, { ...options, n: 2, logprobs: 1 })
for (const { text, score } of outputs) console.log(score?.toFixed(3), text.trim())
await model.dispose()
