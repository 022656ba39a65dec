// What every consumer runs: the demo model translates one sentence. CommonJS.
const { demoModel, Model } = require('polylm')

async function main() {
  const model = await Model.load(demoModel)
  try {
    const prompt = 'Beijing is the capital of China.\nTranslate this sentence from English to Chinese.'
    const { text } = await model.generate(prompt, { numBeams: 4, earlyStopping: true, maxTokens: 64 })
    console.log(text.trim())
  } finally {
    await model.dispose()
  }
}
main()
