import { defineConfig } from 'tsup'

// Two bundles: the library in both module systems with types, the command line as ESM only.
// `shims` gives __dirname in ESM, which lib/native.ts needs to find the binary (packaging traps: see there).
const common = { shims: true, sourcemap: true, target: 'node20', outDir: 'dist' } as const

export default defineConfig([
  {
    ...common,
    entry: ['lib/index.ts'],
    format: ['esm', 'cjs'],
    dts: { compilerOptions: { ignoreDeprecations: '6.0' } },
    clean: ['index.*'],
  },
  { ...common, entry: { cli: 'lib/cli/main.ts' }, format: ['esm'], banner: { js: '#!/usr/bin/env node' } },
])
