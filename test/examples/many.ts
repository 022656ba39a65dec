// Many prompts share each step; answers come as they are ready.
import { demoModel, isPolyLMError, Model } from '../../lib/index.js'

const countries = [['Rome', 'Italy'], ['Paris', 'France'], ['Warsaw', 'Poland']] as const
const prompts = countries.map(([city, country]) =>
  `${city} is the capital of ${country}.\nTranslate this sentence from English to German.`)

const model = await Model.load(demoModel, { maxSequences: 8 })
for await (const item of model.generateEach(prompts, { maxTokens: 32 })) {
  if (item.ok) console.log(item.index, item.result.text.trim())
  else if (isPolyLMError(item.error, 'CONTEXT_OVERFLOW')) console.error(`prompt ${item.index} is too long`)
  else throw item.error
}
await model.dispose()
