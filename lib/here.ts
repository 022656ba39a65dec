// here.ts: the folder of the package, in both module systems and inside of other people's bundles, where it is beside
// the bundle's. Traps: nothing here may throw; a bundle that cannot work says so at the first call (native.ts), not
// when it is imported. In CommonJS __dirname is asked first: bundlers leave import.meta.url undefined there, and its
// usual replacement breaks in folders with '#' or '%'. It is one expression that tools that trace files can follow.
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** The folder of the package. */
export const packageRoot: string = path.join(
  typeof __dirname === 'string' ? __dirname : fileURLToPath(new URL('.', import.meta.url)), '..')
