// lock.ts: one process at a time per output file. The lock is a local socket that listens under a name made of the
// file's path: it goes away with its process, however that ends, so there is no stale lock to clean up.
// Trap: processes on other machines, or in other containers, do not see it; the output itself notices those.
import { createHash } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { createConnection, createServer } from 'node:net'
import type { Server } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { PolyLMError } from '../errors.js'
import { fileName, placeOf } from './files.js'

const answerMs = 1000

/** Where the lock of a file listens: names of Linux (`\0...`) and of Windows leave nothing behind in a folder. */
function addressOf(place: string): string {
  const name = `polylm-${createHash('sha256').update(place).digest('hex').slice(0, 32)}`
  if (process.platform === 'linux') return `\0${name}`
  return process.platform === 'win32' ? `\\\\.\\pipe\\${name}` : path.join(tmpdir(), `${name}.lock`)
}

function listen(address: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer(socket => {
      socket.on('error', () => { /* the other process went away */ })
      socket.end(String(process.pid))
    })
    server.once('error', reject)
    server.listen(address, () => {
      server.unref()                                      // a lock does not keep the process alive
      resolve(server)
    })
  })
}

/** The process that holds a lock; undefined when nobody answers, '' when somebody does without saying who. */
function holderOf(address: string): Promise<string | undefined> {
  return new Promise(resolve => {
    let answer = ''
    const socket = createConnection(address)
    socket.setEncoding('utf8').setTimeout(answerMs, () => { socket.destroy(); resolve(answer) })
    socket.on('data', (text: string) => { answer += text })
    socket.on('error', () => { resolve(undefined) })
    socket.on('end', () => { socket.destroy(); resolve(answer) })
  })
}

/**
 * Takes the lock of a file until the function that it resolves with is called, or the process ends.
 *
 * @throws PolyLMError OUTPUT_BUSY when another process has it.
 */
export async function lockFile(file: string): Promise<() => void> {
  const address = addressOf(await placeOf(file))
  let holder: string | undefined
  for (let tries = 0; tries < 3 && holder === undefined; tries++) {
    const taken = await listen(address).catch((e: unknown) => e as NodeJS.ErrnoException)
    if ('close' in taken) return () => { taken.close() }
    if (taken.code !== 'EADDRINUSE') return () => { /* no sockets here: the output itself notices a second writer */ }
    holder = await holderOf(address)
    // Nobody answers: that process has just ended, or it was killed and left the socket's file.
    if (holder === undefined && path.isAbsolute(address)) await rm(address, { force: true })
  }
  const who = /^\d{1,10}$/.test(holder ?? '') ? `process ${holder}` : 'another process'
  throw new PolyLMError('OUTPUT_BUSY', `${fileName(file)} is being written by ${who}`,
    { file, hint: 'wait for it or end it, or use another output file' })
}
