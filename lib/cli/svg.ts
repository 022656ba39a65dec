// svg.ts: horizontal bars as an SVG picture that stands alone: numbers at the bars, so that nothing depends on reading
// an axis, and its own background, light or dark as the reader's system is. Not here: what is drawn.
// Every length is to scale: the scale ends at 1 or, where a bar or its range goes further, behind the longest.
// Trap: widths of text are estimates; whatever must not touch is given room for wide fonts.

/** One bar. */
export interface Bar {
  readonly label: string
  /** Length; 1 is the mark that the picture's axis, limits or fastest bars have. */
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
  /** Drawn in stripes: the machine changed around the runs. */
  readonly noisy?: boolean | undefined
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
  /** What the lengths of all groups are; then ticks in percent are drawn below them. */
  readonly axis?: string | undefined
  readonly footer: readonly string[]
}

const width = 892
const margin = 28
const labelEnd = 226
const barStart = 240
const barRoom = 290
const barHeight = 16
const rowHeight = 28

const style = `
.back{fill:#fff;stroke:#d1d9e0}.title{font-size:19px;font-weight:600}.head{font-size:14px;font-weight:600}
text{fill:#1f2328;font-size:13px}.muted{fill:#59636e}.small{font-size:12px}.number{font-weight:600}
.limit{fill:#e6eaef}.main{fill:#0b68cb}.other{fill:#9aa4af}.range{stroke:#1f2328;stroke-width:1.5}
.stripes{stroke:#fff;stroke-width:3;opacity:.6}.tick{stroke:#8c959f}.mark{stroke:#59636e;stroke-dasharray:4 3}
@media (prefers-color-scheme:dark){.back{fill:#0d1117;stroke:#3d444d}text{fill:#f0f6fc}.muted{fill:#9198a1}
.limit{fill:#262c36}.main{fill:#4493f8}.other{fill:#656c76}.range{stroke:#f0f6fc}
.stripes{stroke:#0d1117}.tick{stroke:#656c76}.mark{stroke:#9198a1}}`.replace(/\n/g, '')

/** Text as it may stand between tags and in attributes. */
export const escapeXml = (text: string): string => text
  .replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`).replace(/[^\t\n\x20-\ud7ff\ue000-\ufffd]/gu, '\ufffd')

const rounded = (value: number): string => value.toFixed(1)

function text(x: number, y: number, content: string, kind = '', anchor = ''): string {
  const attributes = (kind === '' ? '' : ` class="${kind}"`) + (anchor === '' ? '' : ` text-anchor="${anchor}"`)
  return `<text x="${x}" y="${y}"${attributes}>${escapeXml(content)}</text>`
}

/** Where shares lie in the picture; whatever is no number lies at 0. */
class Scale {
  readonly end: number

  constructor(groups: readonly BarGroup[]) {
    const shares = groups.flatMap(group => group.bars.flatMap(bar => [bar.share, bar.limit ?? 0, ...bar.range ?? []]))
    const longest = Math.max(1, ...shares.filter(Number.isFinite))
    this.end = Math.ceil(longest * 20) / 20              // to the next 5 %, so that the longest does not touch the end
  }

  length(share: number): number {
    return Number.isFinite(share) ? barRoom * Math.max(0, share) / this.end : 0
  }

  at(share: number): number {
    return barStart + this.length(share)
  }

  /** Ticks: at most six, at even percentages, 100 % among them. */
  ticks(): number[] {
    const step = [0.25, 0.5, 1, 2, 5, 10].find(size => this.end / size <= 6) ?? this.end
    return Array.from({ length: Math.floor(this.end / step) + 1 }, (_, i) => i * step)
  }
}

function rectangle(y: number, length: number, kind: string): string {
  return `<rect x="${barStart}" y="${y}" width="${rounded(Math.max(2, length))}" height="${barHeight}" rx="3" ` +
    `class="${kind}"/>`
}

/** Slanted lines over a bar; drawn one by one, because patterns are not the same in every viewer. */
function stripes(y: number, length: number): string {
  const starts = Array.from({ length: Math.max(0, Math.floor((length - 8) / 8)) }, (_, i) => barStart + 8 * i)
  const lines = starts.map(x => `M${x} ${y + barHeight}l16 -${barHeight}`)
  return `<path class="stripes" fill="none" d="${lines.join('')}"/>`
}

function range(y: number, [from, to]: readonly [number, number], scale: Scale): string {
  const middle = y + barHeight / 2
  const end = (share: number): string => `M${rounded(scale.at(share))} ${middle - 4}v8`
  return `<path class="range" fill="none" d="${end(from)}M${rounded(scale.at(from))} ${middle}` +
    `H${rounded(scale.at(to))}${end(to)}"/>`
}

function drawBar(bar: Bar, y: number, scale: Scale): string {
  const below = y + 13
  const length = scale.length(bar.share)
  const parts = [text(labelEnd, below, bar.label, '', 'end')]
  if (bar.limit !== undefined) parts.push(rectangle(y, scale.length(bar.limit), 'limit'))
  parts.push(rectangle(y, length, bar.kind ?? 'main'))
  if (bar.noisy === true) parts.push(stripes(y, length))
  if (bar.range !== undefined && bar.range[1] > bar.range[0]) parts.push(range(y, bar.range, scale))
  parts.push(text(barStart + barRoom + 12, below, bar.text, 'number'))
  if (bar.remark !== undefined) parts.push(text(width - margin, below, bar.remark, 'muted small', 'end'))
  return parts.join('')
}

/** Ticks in percent with the title of the axis, and a dashed line at 100 % through all bars. */
function drawAxis(title: string, top: number, y: number, scale: Scale): string {
  const ticks = scale.ticks().map(share => `<path class="tick" d="M${rounded(scale.at(share))} ${y}v5"/>` +
    text(Math.round(scale.at(share)), y + 19, `${(100 * share).toFixed(0)} %`, 'muted small', 'middle'))
  const line = `<path class="tick" d="M${barStart} ${y}H${barStart + barRoom}"/>`
  const mark = `<path class="mark" d="M${rounded(scale.at(1))} ${top}V${y}"/>`
  return mark + line + ticks.join('') + text(barStart + barRoom / 2, y + 38, title, 'muted small', 'middle')
}

/** The picture as SVG. */
export function drawBars({ title, subtitle, groups, axis, footer }: Picture): string {
  const scale = new Scale(groups)
  let y = 40
  const parts = [text(margin, y, title, 'title'), text(margin, y + 22, subtitle, 'muted small')]
  y += 34
  const top = y + 30
  for (const group of groups) {
    if (group.bars.length === 0) continue
    parts.push(text(margin, y + 22, group.title, 'head'))
    y += 36
    for (const bar of group.bars) {
      parts.push(drawBar(bar, y, scale))
      y += rowHeight
    }
  }
  if (axis !== undefined && y > top) {
    parts.push(drawAxis(axis, top, y - 4, scale))
    y += 44
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
