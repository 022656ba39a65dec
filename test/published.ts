// published.ts: finds numbers with units in what is published, and the ones that may be typed by hand. For
// published.test.ts.

const units = [
  '%', '×', 'x(?!\\w)', 'times', 'tokens?(?:/s| per second| a second)', 'requests/s', '[kKMGT]i?B(?:/s)?', 'bytes?',
  '[MGT]?FLOP/s', '[mµn]s', "s(?![\\w'])", 'milliseconds?', 'seconds?', 'minutes?', 'hours?', 'days?', '[MG]Hz',
]
const words = 'two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|fifty|hundred|thousand|half|about an?|quarter of a|third of a'
const measured = new RegExp(
  `(?:\\b\\d[\\d,]*(?:\\.\\d+)?|\\b(?:${words}))[ -]?(?:${units.join('|')})(?!\\w)` +
  '|(?<![\\w.])0\\.\\d+(?!\\d*\\.\\d)', 'gi')

/** Numbers that a person may write, with enough words around to be found, and why. A page is a file or a folder. */
export const allowed: ReadonlyArray<{ readonly page: string; readonly text: string; readonly why: string }> = [
  { page: 'README.md', text: 'two bytes per parameter in bfloat16', why: 'the format' },
  { page: 'CHANGELOG.md', text: '0.1.0', why: 'a version' },
  { page: 'CHANGELOG.md', text: 'about a quarter of a second', why: 'a target in the code: the prefill budget of a step' },
  { page: 'docs/deployment.md', text: 'a step is kept near 250 ms', why: 'a target in the code: the prefill budget of a step' },
  { page: 'SECURITY.md', text: 'four times', why: 'a limit in the code' },
  { page: 'SECURITY.md', text: '64 MiB', why: 'a limit in the code' },
  { page: 'benchmarks/README.md', text: 'how late a 1 ms timer was', why: 'how it is measured' },
  { page: 'benchmarks/README.md', text: 'A share above 100 %', why: 'what a share means' },
  { page: 'benchmarks/README.md', text: 'threads ten times', why: 'how often soak.mjs looks' },
  { page: 'benchmarks/README.md', text: 'read-only stream of 4 GiB', why: 'how it is measured' },
  { page: 'lib/', text: '/** UTF-8 bytes of', why: 'no number: "UTF-8"' },
  { page: 'lib/', text: "text such as `'4GiB'`", why: 'an example of an option' },
  { page: 'lib/', text: 'about 20 times a second', why: 'a limit in the code' },
  { page: 'lib/', text: 'together 65,536 bytes', why: 'a limit of the option' },
  { page: 'lib/', text: '0.0001..1000', why: 'the range of an option' },
  { page: 'lib/', text: '6 byte', why: 'a type of piece in a file format' },
]

/** Numbers with units in a text that no allowed phrase covers: line and number. `used` collects the phrases that did. */
export function typedNumbers(page: string, text: string, used = new Set<string>()): string[] {
  const covers = allowed.filter(entry => page.startsWith(entry.page)).flatMap(entry => {
    const places: Array<readonly [number, number]> = []
    for (let at = text.indexOf(entry.text); at >= 0; at = text.indexOf(entry.text, at + 1)) {
      places.push([at, at + entry.text.length])
    }
    if (places.length > 0) used.add(entry.text)
    return places
  })
  return [...text.matchAll(measured)].filter(({ index, 0: found }) =>
    !covers.some(([from, to]) => index >= from && index + found.length <= to))
    .map(({ index, 0: found }) => `${page}:${text.slice(0, index).split('\n').length} ${found}`)
}

/** What of a Markdown page is prose: no code between fences. Lines stay where they are. */
export const prose = (text: string): string => text.replace(/^```[\s\S]*?^```/gm, block => block.replace(/[^\n]/g, ''))

/** The documentation comments of a source file; all else is blank. A comment's lines are joined by single blanks. */
export const comments = (text: string): string =>
  [...text.matchAll(/\/\*\*[\s\S]*?\*\//g)].map(match => match[0].replace(/\s*\n\s*\*\s?/g, ' ')).join('\n')
