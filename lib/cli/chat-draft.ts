// chat-draft.ts: how lines become a message, the same for what is typed and what comes from a pipe: `"""` opens a block
// of several lines, a backslash at the end continues a line. And what each key means to the prompt.
// Not here: the terminal (chat-prompt.ts).
import type { Key } from 'node:readline'
import { UsageError } from './failure.js'

const quotes = '"""'

/** True when Enter does not end this text but begins its next line. */
export function isOpen(text: string): boolean {
  return inBlock(text) || endsInBackslash(text)
}

/** True for a text that begins with `"""` and has not ended with it. */
function inBlock(text: string): boolean {
  const start = text.trimStart()
  return start.startsWith(quotes) && !(start.length >= 2 * quotes.length && start.trimEnd().endsWith(quotes))
}

// An even number of backslashes is text that ends in backslashes.
function endsInBackslash(text: string): boolean {
  return !text.trimStart().startsWith(quotes) && (/\\+$/.exec(text)?.[0].length ?? 0) % 2 === 1
}

/** What a text says: a block without its quotes and the line ends next to them. */
export function messageOf(text: string): string {
  const block = text.trim()
  if (!block.startsWith(quotes) || inBlock(block)) return text
  return block.slice(quotes.length, -quotes.length).replace(/^[ \t]*\n/, '').replace(/\n[ \t]*$/, '')
}

/** What is in the prompt and what Enter does to it: a longer text, or the message that it is. */
export function enter(text: string, cursor: number): { readonly more: string, readonly cursor: number } | undefined {
  if (inBlock(text)) return { more: `${text.slice(0, cursor)}\n${text.slice(cursor)}`, cursor: cursor + 1 }
  if (endsInBackslash(text)) return { more: `${text.slice(0, -1)}\n`, cursor: text.length }
  return undefined
}

/** Puts lines together that are one message, quotes and all (see `messageOf`). */
export class LineJoiner {
  #lines: string[] = []
  #isBlock = false

  /** Takes a line; gives the text that is complete with it. */
  add(line: string): string | undefined {
    const first = this.#lines.length === 0
    if (first) this.#isBlock = line.trimStart().startsWith(quotes)
    const open = this.#isBlock ? (first ? inBlock(line) : !line.trimEnd().endsWith(quotes)) : endsInBackslash(line)
    this.#lines.push(open && !this.#isBlock ? line.slice(0, -1) : line)
    return open ? undefined : this.#take()
  }

  /**
   * What the end of the input leaves: a last line that was to be continued.
   *
   * @throws UsageError when a block was not closed.
   */
  end(): string | undefined {
    if (this.#lines.length === 0) return undefined
    if (this.#isBlock) throw new UsageError(`the input ends inside a block that began with ${quotes}`,
      `close it with a line that ends in ${quotes}`)
    return this.#take()
  }

  #take(): string {
    const text = this.#lines.join('\n')
    this.#lines = []
    return text
  }
}

/** Where the cursor is a line higher or lower in a text of several; undefined when there is no such line. */
export function lineAway(text: string, cursor: number, by: -1 | 1): number | undefined {
  const start = text.slice(0, cursor).lastIndexOf('\n') + 1
  const end = text.indexOf('\n', cursor)
  if (by < 0 ? start === 0 : end < 0) return undefined
  const otherStart = by < 0 ? text.slice(0, start - 1).lastIndexOf('\n') + 1 : end + 1
  const otherEnd = by < 0 ? start - 1 : text.indexOf('\n', otherStart)
  return Math.min(otherStart + cursor - start, otherEnd < 0 ? text.length : otherEnd)
}

/** What the prompt does about a key. */
export type Action =
  | { readonly do: 'edit' | 'enter' | 'interrupt' | 'suspend' | 'up' | 'down' | 'nothing' }
  | { readonly do: 'insert', readonly text: string }

const nothing: Action = { do: 'nothing' }

/** Gives keys their meaning; text that is pasted arrives whole, with its line ends. */
export class Keys {
  #pasted: string[] | undefined
  #last: string | undefined

  press(text: string | undefined, key: Key): Action {
    const last = this.#last
    this.#last = key.name
    if (key.ctrl === true && key.name === 'c') {
      this.#pasted = undefined
      return { do: 'interrupt' }
    }
    if (key.name === 'paste-start') {
      this.#pasted ??= []
      return nothing
    }
    if (key.name === 'paste-end') return this.#endPaste()
    const isCrLf = key.name === 'enter' && last === 'return'
    if (this.#pasted !== undefined) {
      if (!isCrLf) this.#pasted.push(pastedText(text, key))
      return nothing
    }
    if (key.name === 'return' || key.name === 'enter') {
      if (key.meta === true) return { do: 'insert', text: '\n' }
      return isCrLf ? nothing : { do: 'enter' }
    }
    if (key.ctrl === true && key.name === 'z') return { do: 'suspend' }
    if ((key.name === 'up' || key.name === 'down') && key.ctrl !== true && key.meta !== true) return { do: key.name }
    // readline takes these two for line ends.
    return text === '\u2028' || text === '\u2029' ? { do: 'insert', text } : { do: 'edit' }
  }

  #endPaste(): Action {
    const pasted = (this.#pasted ?? []).join('')
    this.#pasted = undefined
    return pasted === '' ? nothing : { do: 'insert', text: pasted }
  }
}

function pastedText(text: string | undefined, key: Key): string {
  if (key.name === 'return' || key.name === 'enter') return '\n'
  if (text === undefined) return ''
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, '')
}
