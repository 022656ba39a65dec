// The platforms that get a prebuilt binary, and how each is built away from home. One table for build-native.mjs,
// prebuild.mjs, check-binary.mjs and the tests. `strip` is
// the program of a cross build, `file` what prebuildify names the result, `floor` the oldest glibc that it serves.
export const host = `${process.platform}-${process.arch}`

export const targets = new Map(Object.entries({
  'linux-x64': { strip: 'x86_64-linux-gnu-strip', file: 'node.napi.glibc.node', floor: '2.17' },
  'linux-arm64': { strip: 'aarch64-linux-gnu-strip', file: 'node.napi.glibc.node', floor: '2.17' },
  'win32-x64': { strip: 'x86_64-w64-mingw32-strip', file: 'node.napi.node' },
  'darwin-arm64': { strip: 'strip', file: 'node.napi.node' },
}))
