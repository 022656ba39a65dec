// version.ts: the version of this package, from its package.json. Trap: the path is seen from the bundle, dist/cli.js.
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** The version of polylm. */
export function version(): string {
  const file = fileURLToPath(new URL('../package.json', import.meta.url))
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}
