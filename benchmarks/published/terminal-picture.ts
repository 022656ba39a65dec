// terminal-picture.ts: rows of a terminal as an SVG picture. Not here: what is run (scripts/terminal-svg.mjs), and how
// output becomes rows (screen.ts).
import { escapeXml } from '../../lib/cli/svg.js'
import type { Run } from './screen.js'

/** A window's rows; `typed` ones are what a person typed, `remark` ones say what is shown. */
export interface Row {
  readonly kind: 'typed' | 'printed' | 'remark'
  readonly runs: readonly Run[]
}

const [cell, rowHeight, left, top] = [8.43, 20, 20, 38]
const palette: Readonly<Record<number, string>> = {
  30: '#484f58', 31: '#ff7b72', 32: '#7ee787', 33: '#e3b341', 34: '#79c0ff', 35: '#d2a8ff', 36: '#76e3ea', 37: '#e6edf3',
}
const kinds = { typed: '#7ee787', printed: '#e6edf3', remark: '#9198a1' } as const
const font = "ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace"

function drawRun({ column, text, color, bold, dim }: Run, kind: Row['kind']): string {
  const fill = color === undefined ? kinds[kind] : palette[color >= 90 ? color - 60 : color] ?? kinds[kind]
  const latin = /^[\x20-\x7e]+$/.test(text)
  const length = latin && text.length > 1 ? ` textLength="${(text.length * cell).toFixed(1)}"` : ''
  return `<tspan x="${(left + column * cell).toFixed(1)}" fill="${dim === true ? kinds.remark : fill}"` +
    `${bold === true ? ' font-weight="700"' : ''}${length}>${escapeXml(text)}</tspan>`
}

/** The picture of a window of so many columns. */
export function drawTerminal(title: string, rows: readonly Row[], columns: number): string {
  const [width, height] = [Math.ceil(columns * cell + 2 * left), rows.length * rowHeight + top]
  const lines = rows.map(({ kind, runs }, i) => (runs.length === 0 ? ''
    : `<text y="${top + i * rowHeight}" xml:space="preserve">${runs.map(run => drawRun(run, kind)).join('')}</text>\n`))
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
    `font-family="${font}" font-size="14">\n<title>${escapeXml(title)}</title>\n` +
    `<rect x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="8" fill="#0d1117" stroke="#3d444d"/>\n${lines.join('')}</svg>\n`
}
