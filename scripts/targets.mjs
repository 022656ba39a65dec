// The platforms that get a prebuilt binary. One table for build-native.mjs, prebuild.mjs, check-binary.mjs and the tests.
// `strip` is the program of a cross build, `file` what prebuildify names the result, `floor` the oldest glibc that it
// serves. Trap: on Alpine the host's binary is for musl, and is recognised as node-gyp-build does it.
import { existsSync } from 'node:fs'

export const host = `${process.platform}-${process.arch}`
const musl = process.platform === 'linux' && existsSync('/etc/alpine-release')

const linux = (name, strip) => (musl && name === host
  ? { strip, file: 'node.napi.musl.node' }
  : { strip, file: 'node.napi.glibc.node', floor: '2.17' })

export const targets = new Map(Object.entries({
  'linux-x64': linux('linux-x64', 'x86_64-linux-gnu-strip'),
  'linux-arm64': linux('linux-arm64', 'aarch64-linux-gnu-strip'),
  'win32-x64': { strip: 'x86_64-w64-mingw32-strip', file: 'node.napi.node' },
  'darwin-arm64': { strip: 'strip', file: 'node.napi.node' },
}))
