// svg.ts: horizontal bars as an SVG picture that stands alone: numbers at the bars, so that nothing depends on reading
// an axis, and its own background, light or dark as the reader's system is. Not here: what is drawn.
// Trap: widths of text are estimates; whatever must not touch is given room for wide fonts.

/** One bar. Lengths are shares of the widest that its group may have, 0..1. */
export interface Bar {
  readonly label: string
  /** Length. */
  readonly share: number
  /** Range of the runs, drawn as a thin line. */
  readonly range?: readonly [number, number] | undefined
  /** What could be reached, drawn behind the bar. */
  readonly limit?: number | undefined
  /** Number behind the bar, and a remark to it. */
  readonly text: string
  readonly remark?: string | undefined
  /** One bar in the colour of attention, or one that others are compared with. */
  readonly kind?: 'main' | 'other' | undefined
}

/** Bars with a heading. */
export interface BarGroup {
  readonly title: string
  readonly bars: readonly Bar[]
}

/** A whole picture. */
export interface Picture {
  readonly title: string
  readonly subtitle: string
  readonly groups: readonly BarGroup[]
  readonly footer: readonly string[]
}

const width = 800
const margin = 28
const labelEnd = 214
const barStart = 228
const barRoom = 290
const barHeight = 16
const rowHeight = 28

const style = `
.back{fill:#fff;stroke:#d1d9e0}.title{font-size:19px;font-weight:600}.head{font-size:14px;font-weight:600}
text{fill:#1f2328;font-size:13px}.muted{fill:#59636e}.small{font-size:12px}.number{font-weight:600}
.limit{fill:#e6eaef}.main{fill:#0b68cb}.other{fill:#9aa4af}.range{stroke:#1f2328;stroke-width:1.5}
@media (prefers-color-scheme:dark){.back{fill:#0d1117;stroke:#3d444d}text{fill:#f0f6fc}.muted{fill:#9198a1}
.limit{fill:#262c36}.main{fill:#4493f8}.other{fill:#656c76}.range{stroke:#f0f6fc}}`.replace(/\n/g, '')

/** Text as it may stand between tags and in attributes. */
export const escapeXml = (text: string): string => text
  .replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`).replace(/[^\t\n\x20-\ud7ff\ue000-\ufffd]/gu, '\ufffd')

const rounded = (value: number): string => value.toFixed(1)

function text(x: number, y: number, content: string, kind = '', anchor = ''): string {
  const attributes = (kind === '' ? '' : ` class="${kind}"`) + (anchor === '' ? '' : ` text-anchor="${anchor}"`)
  return `<text x="${x}" y="${y}"${attributes}>${escapeXml(content)}</text>`
}

function rectangle(y: number, share: number, kind: string): string {
  const length = Math.max(2, barRoom * Math.min(1, Math.max(0, share)))
  return `<rect x="${barStart}" y="${y}" width="${rounded(length)}" height="${barHeight}" rx="3" class="${kind}"/>`
}

function range(y: number, [from, to]: readonly [number, number]): string {
  const at = (share: number): string => rounded(barStart + barRoom * Math.min(1, Math.max(0, share)))
  const middle = y + barHeight / 2
  const end = (share: number): string => `M${at(share)} ${middle - 4}v8`
  return `<path class="range" fill="none" d="${end(from)}M${at(from)} ${middle}H${at(to)}${end(to)}"/>`
}

function drawBar(bar: Bar, y: number): string {
  const below = y + 13
  const parts = [text(labelEnd, below, bar.label, '', 'end')]
  if (bar.limit !== undefined) parts.push(rectangle(y, bar.limit, 'limit'))
  parts.push(rectangle(y, bar.share, bar.kind ?? 'main'))
  if (bar.range !== undefined && bar.range[1] > bar.range[0]) parts.push(range(y, bar.range))
  parts.push(text(barStart + barRoom + 12, below, bar.text, 'number'))
  if (bar.remark !== undefined) parts.push(text(width - margin, below, bar.remark, 'muted small', 'end'))
  return parts.join('')
}

/** The picture as SVG. */
export function drawBars({ title, subtitle, groups, footer }: Picture): string {
  let y = 40
  const parts = [text(margin, y, title, 'title'), text(margin, y + 22, subtitle, 'muted small')]
  y += 34
  for (const group of groups) {
    if (group.bars.length === 0) continue
    parts.push(text(margin, y + 22, group.title, 'head'))
    y += 36
    for (const bar of group.bars) {
      parts.push(drawBar(bar, y))
      y += rowHeight
    }
  }
  y += 6
  for (const line of footer) {
    parts.push(text(margin, y + 14, line, 'muted small'))
    y += 20
  }
  const height = y + 16
  const size = `viewBox="0 0 ${width} ${height}" width="${width}" height="${height}"`
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size}` +
    ' font-family="system-ui,-apple-system,Segoe UI,Roboto,DejaVu Sans,sans-serif">' +
    `<title>${escapeXml(title)}</title><style>${style}</style>` +
    `<rect class="back" x="0.5" y="0.5" width="${width - 1}" height="${height - 1}" rx="10"/>${parts.join('')}</svg>\n`
}
