// A conversation that is forked, taken back, saved and opened again.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { demoModel, Model } from '../../lib/index.js'

const model = await Model.load(demoModel)
const folder = await mkdtemp(join(tmpdir(), 'session-'))
try {
  const chat = model.createSession({ template: 'assistant' })
  console.log((await chat.send('What is the capital of France?', { maxTokens: 40 })).text.trim())
  const other = chat.fork()                                 // shares what was said so far
  await other.send('What is the capital of Italy?', { maxTokens: 40 })
  await other.rewind({ turns: 1 })                          // as if it had not been asked
  await other.save(join(folder, 'chat.session'))
  const again = await model.restoreSession(join(folder, 'chat.session'))
  console.log(again.history.length, 'messages')
} finally {
  await model.dispose()
  await rm(folder, { recursive: true })
}
