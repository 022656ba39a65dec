// The three functions of Node 20 that polylm uses and Node 16 lacks: for trying an old glibc, for which no newer Node exists.
const buffer = require('node:buffer')
const os = require('node:os')

os.availableParallelism ??= () => os.cpus().length
globalThis.crypto ??= require('node:crypto').webcrypto
buffer.isUtf8 ??= bytes => {
  try {
    new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    return true
  } catch {
    return false
  }
}
