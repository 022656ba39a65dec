// Writes countries.json: the name of every country of capitals.tsv in PolyLM's 18 languages, from
// the Intl data that Node carries. Not used at run time. The trap: names depend on the ICU version,
// so the output is committed and only rewritten on purpose.
//   node demo/train/countries.mjs
import { readFileSync, writeFileSync } from 'node:fs'

const table = new URL('./capitals.tsv', import.meta.url)
const lines = readFileSync(table, 'utf8').split('\n').filter((line) => line !== '')
const languages = lines[0].split('\t').slice(1)
const codes = lines.slice(1).map((line) => line.split('\t')[0])
const names = {}
for (const language of languages) {
  const display = new Intl.DisplayNames(language, { type: 'region' })
  names[language] = Object.fromEntries(codes.map((code) => [code, display.of(code)]))
}
const out = { icu: process.versions.icu, cldr: process.versions.cldr, names }
writeFileSync(new URL('./countries.json', import.meta.url), JSON.stringify(out, null, 1) + '\n')
