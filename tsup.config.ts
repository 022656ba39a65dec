import { defineConfig, type Options } from 'tsup'

// Two bundles: the library in both module systems with types, the command line as ESM only.
// No shims: lib/here.ts finds its folder in both module systems, and in CommonJS does not look at import.meta.
const common: Options = {
  sourcemap: true,
  target: 'node20',
  outDir: 'dist',
  esbuildOptions: options => { options.logOverride = { 'empty-import-meta': 'silent' } },
}

// So that the declarations need neither @types/node nor DOM: what they name of a platform. An interface that a program
// has from elsewhere is merged with these, which add nothing to it.
const platformTypes = `declare global {
  interface SymbolConstructor { readonly asyncDispose: unique symbol }
  interface AbortSignal {}
  interface ReadableStream<R = any> {}
}
`

export default defineConfig([
  {
    ...common,
    entry: ['lib/index.ts'],
    format: ['esm', 'cjs'],
    dts: { banner: platformTypes, compilerOptions: { ignoreDeprecations: '6.0' } },
    clean: ['index.*'],
  },
  { ...common, entry: { cli: 'lib/cli/main.ts' }, format: ['esm'], banner: { js: '#!/usr/bin/env node' } },
])
