// screen.ts: a terminal's screen as far as our command line uses one: text with colours, carriage returns, cursor
// movement, erased lines, wrapped long lines. What a program wrote goes in, what a person sees comes out.
// Trap: widths are columns: Chinese, Japanese and Korean characters take two, combining marks none.

/** Neighbouring characters that look the same. */
export interface Run {
  readonly column: number
  readonly text: string
  /** SGR colour 31..37 or 90..97, if any. */
  readonly color?: number | undefined
  readonly bold?: boolean | undefined
  readonly dim?: boolean | undefined
}

interface Style { color?: number | undefined; bold?: boolean | undefined; dim?: boolean | undefined }
interface Cell extends Style { text: string }

/** Columns that a character takes. */
export function columnsOf(character: string): number {
  if (/^[\p{Mn}\p{Me}\p{Cf}]/u.test(character)) return 0
  return /^[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|^\p{Emoji_Presentation}/u
    .test(character) ? 2 : 1
}

const control = /\x1b\[([?0-9;]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b([78=>])|[\x00-\x1f\x7f]|[^\x00-\x1f\x7f\x1b]/gu

/** A screen of so many columns and as many rows as are written. */
export class Screen {
  readonly #columns: number
  #rows: Cell[][] = [[]]
  #row = 0
  #column = 0
  #style: Style = {}
  #saved: readonly [number, number] = [0, 0]
  #wraps = true

  constructor(columns: number) {
    this.#columns = columns
  }

  /** Applies what a program wrote. Sequences must not be cut between two calls. */
  write(output: string): void {
    for (const [all, parameters, command, other] of output.matchAll(control)) {
      if (command !== undefined) this.#control(parameters ?? '', command)
      else if (other === '7') this.#saved = [this.#row, this.#column]
      else if (other === '8') [this.#row, this.#column] = this.#saved
      else if (all === '\n') this.#down()
      else if (all === '\r') this.#column = 0
      else if (all === '\b') this.#column = Math.max(0, this.#column - 1)
      else if (all === '\t') this.#column = Math.min(this.#columns - 1, (this.#column >> 3) * 8 + 8)
      else if (all >= ' ' && all !== '\x7f') this.#put(all)
    }
  }

  /** Rows from the top, each as runs; empty rows at the end are left out. */
  rows(): Run[][] {
    const runs = this.#rows.map(cells => runsOf(cells))
    while (runs.at(-1)?.length === 0) runs.pop()
    return runs
  }

  /** The text of the row that the cursor is in. */
  line(): string {
    return runsOf(this.#rows[this.#row] ?? []).map(({ text }) => text).join('')
  }

  #down(): void {
    this.#row++
    while (this.#rows.length <= this.#row) this.#rows.push([])
  }

  #put(character: string): void {
    const width = columnsOf(character)
    if (width === 0) {
      const cell = this.#rows[this.#row]?.[Math.max(0, this.#column - 1)]
      if (cell !== undefined) cell.text += character
      return
    }
    if (this.#column + width > this.#columns) {
      if (!this.#wraps) return
      this.#down()
      this.#column = 0
    }
    const cells = this.#rows[this.#row] ?? []
    while (cells.length < this.#column) cells.push({ text: ' ' })
    cells[this.#column] = { ...this.#style, text: character }
    if (width === 2) cells[this.#column + 1] = { ...this.#style, text: '' }
    this.#column += width
  }

  #control(parameters: string, command: string): void {
    if (parameters.startsWith('?')) {
      if (parameters === '?7') this.#wraps = command === 'h'
      return
    }
    const numbers = parameters.split(';').map(Number)
    const [first = 0, second = 0] = numbers
    const count = Math.max(1, first)
    if (command === 'A') this.#row = Math.max(0, this.#row - count)
    else if (command === 'B') for (let i = 0; i < count; i++) this.#down()
    else if (command === 'C') this.#column = Math.min(this.#columns - 1, this.#column + count)
    else if (command === 'D') this.#column = Math.max(0, this.#column - count)
    else if (command === 'G') this.#column = count - 1
    else if (command === 'H') [this.#row, this.#column] = [Math.min(this.#rows.length, count) - 1, Math.max(1, second) - 1]
    else if (command === 'K') this.#eraseLine(first)
    else if (command === 'J') this.#eraseBelow(first)
    else if (command === 'm') this.#paint(numbers)
  }

  #eraseLine(mode: number): void {
    const cells = this.#rows[this.#row] ?? []
    if (mode === 0) cells.length = Math.min(cells.length, this.#column)
    else this.#rows[this.#row] = mode === 1 ? cells.map((cell, i) => (i <= this.#column ? { text: ' ' } : cell)) : []
  }

  #eraseBelow(mode: number): void {
    if (mode === 0) {
      this.#eraseLine(0)
      this.#rows.length = this.#row + 1
    } else if (mode >= 2) this.#rows = this.#rows.map(() => [])
  }

  #paint(numbers: readonly number[]): void {
    for (const code of numbers) {
      if (code === 0) this.#style = {}
      else if (code === 1) this.#style = { ...this.#style, bold: true }
      else if (code === 2) this.#style = { ...this.#style, dim: true }
      else if (code === 22) this.#style = { ...this.#style, bold: undefined, dim: undefined }
      else if (code === 39) this.#style = { ...this.#style, color: undefined }
      else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) this.#style = { ...this.#style, color: code }
    }
  }
}

/** Cells as runs of one look; wide characters and what follows them begin a run, so that a font's width cannot add up. */
function runsOf(cells: readonly Cell[]): Run[] {
  const runs: Array<Run & { text: string }> = []
  let end = cells.length
  while (end > 0 && cells[end - 1]?.text.trim() === '' && columnsOf(cells[end - 2]?.text || 'x') !== 2) end--
  cells.slice(0, end).forEach(({ text, color, bold, dim }, column) => {
    const last = runs.at(-1)
    if (text === '') return
    const plain = /^[\x20-\x7e]$/.test(text)
    const joins = last !== undefined && last.color === color && last.bold === bold && last.dim === dim &&
      /^[\x20-\x7e]/.test(last.text) === plain
    if (joins) last.text += text
    else runs.push({ column, text, color, bold, dim })
  })
  return runs
}
