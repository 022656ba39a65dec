// Two copies of the package in one process: each loads its own binary, and errors of one are known to the other.
import * as first from 'polylm'
import * as second from 'polylm-again'

const prompt = 'Beijing is the capital of China.\nTranslate this sentence from English to Chinese.'
if (first.Model === second.Model) throw new Error('the two copies are one')
const models = await Promise.all([first.Model.load(first.demoModel), second.Model.load(second.demoModel)])
const texts = await Promise.all(models.map(model => model.generate(prompt, { maxTokens: 64 })))
if (texts[0].text !== texts[1].text) throw new Error('the two copies disagree')
const error = await models[0].generate(prompt, { maxTokens: -1 }).catch(e => e)
if (!second.isPolyLMError(error, 'INVALID_OPTION')) throw new Error(`not known to the other copy: ${error}`)
await Promise.all(models.map(model => model.dispose()))
console.log(texts[0].text.trim())
