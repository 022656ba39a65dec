// common.mjs: the built package and a model that is busy for ever, for the programs beside it.
export const { demoModel, Model } = await import('../../../dist/index.js')

export const busy = async model => {
  const options = { maxTokens: 200, stopTokenIds: [], logprobs: 2 }
  for (;;) for await (const _ of await model.stream('Rome is', options)) { /* all of them */ }
}
