// main.ts: `npm run published`: writes every published number and picture; with --check it writes nothing, names the
// files that differ and ends with 1.
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { outputs } from './pages.js'

/** Returns the names of the files that differ (check) or were written. */
export function publish(root: string, check: boolean): string[] {
  return [...outputs(root)].flatMap(([name, text]) => {
    const file = path.join(root, name)
    if (existsSync(file) && readFileSync(file, 'utf8') === text) return []
    if (!check) writeFileSync(file, text)
    return [name]
  })
}
