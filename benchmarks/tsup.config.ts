// tsup.config.ts: bundles the programs that are written in TypeScript into build-bench/, where no package looks:
// `npm run peers`, `npm run published`, and parts of scripts/terminal-svg.mjs.
import { defineConfig } from 'tsup'

export default defineConfig({
  entry: {
    peers: 'benchmarks/peers/main.ts', published: 'benchmarks/published/main.ts', terminal: 'benchmarks/published/terminal.ts',
  },
  outDir: 'build-bench', format: ['esm'], target: 'node20', shims: true,
})
