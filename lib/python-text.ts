// python-text.ts: what Python's str.rstrip() takes off, which JavaScript's trimEnd() does not do: it leaves U+001C to
// U+001F and U+0085 and takes U+FEFF.
const isSpace = (code: number): boolean =>
  (code >= 0x09 && code <= 0x0D) || (code >= 0x1C && code <= 0x20) || code === 0x85 || code === 0xA0 ||
  code === 0x1680 || (code >= 0x2000 && code <= 0x200A) || code === 0x2028 || code === 0x2029 ||
  code === 0x202F || code === 0x205F || code === 0x3000

/** The text without the white space at its end, by Python's definition of white space. */
export function pythonRstrip(text: string): string {
  let end = text.length
  while (end > 0 && isSpace(text.charCodeAt(end - 1))) end--
  return text.slice(0, end)
}
