// ends.mjs: workers terminated and processes ended in the middle of generating, hundreds of times; none may crash or
// hang. Prints a line of JSON and ends with status 1 when one did. Needs dist/.
//   node benchmarks/engine/ends.mjs [terminations = 500] [exits = 500]
import { execFile } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const programs = path.join(path.dirname(fileURLToPath(import.meta.url)), '../../test/e2e/programs')
const [terminations, exits] = [Number(process.argv[2] ?? 500), Number(process.argv[3] ?? 500)]
const run = (program, ...args) => new Promise(resolve => {
  const child = execFile(process.execPath, [path.join(programs, program), ...args], { timeout: 120_000 },
    (error, stdout, stderr) => { resolve({ code: child.exitCode, signal: error?.signal ?? null, stdout, stderr }) })
})
const wrong = []
const ways = [['exit', 7, null], ['throw', 1, null], ['kill', null, 'SIGTERM'], ['exit-in-dispose', 9, null]]
let left = exits
const lane = async () => {
  while (left > 0) {
    const [how, code, signal] = ways[left-- % ways.length]
    const ended = await run('end.mjs', how)
    if (ended.code !== code || ended.signal !== signal) wrong.push({ how, ...ended })
  }
}
await Promise.all([lane(), lane()])
for (let done = 0; done < terminations; done += 50) {
  const ended = await run('terminate.mjs', String(Math.min(50, terminations - done)))
  if (ended.code !== 0 || ended.stdout !== 'done\n') wrong.push({ how: 'terminate', ...ended })
}
console.log(JSON.stringify({ terminations, exits, wrong: wrong.length }))
if (wrong.length > 0) { console.error(wrong.slice(0, 3)); process.exitCode = 1 }
