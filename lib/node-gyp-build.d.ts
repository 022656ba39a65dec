// node-gyp-build.d.ts: the type of the one function of node-gyp-build, which brings none.
declare module 'node-gyp-build' {
  /** Finds and requires the addon of the package in `dir`. */
  export default function nodeGypBuild(dir: string): unknown
}
