// xml.ts: whether a text is well-formed XML as far as our pictures use it: elements, attributes, references. For tests.

const name = '[A-Za-z_][\\w.-]*'
const attributes = `(?:\\s+(?:xml:)?${name}="(?:[^<&"]|&#\\d+;|&(?:amp|lt|gt|quot);)*")*`
const piece = new RegExp(`<(${name})${attributes}\\s*(/?)>|</(${name})>|((?:[^<&]|&#\\d+;|&(?:amp|lt|gt|quot);)+)`, 'y')

/** Names of all elements in order of their start; throws at the first thing that is not XML. */
export function elementsOf(text: string): string[] {
  const open: string[] = []
  const seen: string[] = []
  let at = 0
  while (at < text.length) {
    piece.lastIndex = at
    const match = piece.exec(text)
    if (match === null) throw new Error(`not XML: ${text.slice(at, at + 40)}`)
    const [all, start, closed, end, words] = match
    if (words !== undefined && open.length === 0 && words.trim() !== '') throw new Error(`text outside: ${words}`)
    if (end !== undefined && open.pop() !== end) throw new Error(`</${end}> ends nothing`)
    if (start !== undefined) {
      if (open.length === 0 && seen.length > 0) throw new Error(`a second root: ${start}`)
      seen.push(start)
      if (closed === '') open.push(start)
    }
    at += all.length
  }
  if (open.length > 0 || seen.length === 0) throw new Error(`not closed: ${open.join(' ')}`)
  return seen
}
