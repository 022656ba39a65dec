// logprobs.ts: log-probabilities as a table for people. Programs take --json.
import { quote } from '../checkpoint/text.js'
import type { GenerateOutput, TokenLogprob, TopLogprob } from '../index.js'
import { paint, table } from './terminal.js'

const shownBytes = 40

/** A token as it may stand on a terminal: quoted, what is invisible escaped; a part of a character by its bytes. */
function tokenText({ id, text, bytes }: TopLogprob): string {
  if (bytes !== undefined) return bytes.map(byte => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`).join('')
  return text === '' ? `[${id}]` : quote(text, shownBytes)
}

function percent(logprob: number): string {
  return `${(100 * Math.exp(logprob)).toPrecision(3)} %`
}

// Letters of Chinese, Japanese and Korean, and pictures: two columns each.
const wide = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60]|[\u{1f300}-\u{1faff}]/u

/** Columns of a terminal that a text takes. */
function columnsOf(text: string): number {
  let columns = 0
  for (const char of text) columns += wide.test(char) ? 2 : /\p{M}/u.test(char) ? 0 : 1
  return columns
}

function alternativesOf({ id, top }: TokenLogprob): string {
  return top.filter(other => other.id !== id).map(other => `${tokenText(other)} ${percent(other.logprob)}`).join('  ')
}

/** The tokens of an output, one a line: id, log-probability, probability, text, the alternatives. */
export function logprobTable(output: Pick<GenerateOutput, 'logprobs'> | undefined): string {
  const tokens = output?.logprobs ?? []
  if (tokens.length === 0) return ''
  const texts = tokens.map(tokenText)
  const width = Math.max('token'.length, ...texts.map(columnsOf))
  const padded = (text: string, rest: string): string =>
    rest === '' ? text : `${text}${' '.repeat(width - columnsOf(text))}  ${rest}`
  const rows = tokens.map((token, i) => [
    String(token.id), token.logprob.toFixed(4), percent(token.logprob), padded(texts[i] ?? '', alternativesOf(token)),
  ])
  const wantsTop = tokens.some(({ top }) => top.length > 0)
  const head = ['id', 'logprob', 'probability', padded('token', wantsTop ? 'alternatives' : '')]
  return table([head, ...rows]).replace(/^.*/, line => paint('dim', line))
}
