// node-gyp-build.d.ts: types of what is used of node-gyp-build, which brings none.
declare module 'node-gyp-build' {
  /** Finds and requires the addon of the package in `dir`. */
  function nodeGypBuild(dir: string): unknown
  namespace nodeGypBuild {
    /** Finds it only. Throws when there is none. */
    function path(dir: string): string
  }
  export default nodeGypBuild
}
