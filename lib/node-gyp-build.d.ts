declare module 'node-gyp-build' {
  /** Finds and requires the addon of the package in `dir`. */
  export default function nodeGypBuild(dir: string): unknown
}
