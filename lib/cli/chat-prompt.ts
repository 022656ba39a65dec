// chat-prompt.ts: the prompt of a conversation on a terminal: node's readline with messages of several lines, keys that
// are kept while an answer is being written, and Ctrl-C. What keys and lines mean: chat-draft.ts.
// Trap: readline would split pasted text at its line ends, so it gets its keys from here and not from the terminal.
// Trap: the terminal is in raw mode, so Ctrl-C arrives as a key and not as a signal.
import { writeSync } from 'node:fs'
import { createInterface, emitKeypressEvents } from 'node:readline'
import type { Interface, Key } from 'node:readline'
import { PassThrough, Writable } from 'node:stream'
import type { WriteStream } from 'node:tty'
import { complete } from './chat-commands.js'
import { enter, Keys } from './chat-draft.js'
import { maxEntries } from './chat-history.js'
import { paint } from './terminal.js'

const [pasteOn, pasteOff] = ['\x1b[?2004h', '\x1b[?2004l']
const mostTyped = 100_000

/** `line` and `cursor` may be set, and `clearLine` begins a new line, although its types do not say so. */
type Editor = Interface & { line: string, cursor: number, clearLine(): void }

type Terminal = WriteStream & { readonly fd: number }

/** The terminal that people see: remarks go to standard error, so the prompt does, too, unless that is a file. */
export function terminalOutput(): Terminal | undefined {
  return [process.stderr, process.stdout].find(stream => stream.isTTY === true) as Terminal | undefined
}

/** Reads messages from a terminal. */
export class ChatPrompt {
  readonly #terminal: Terminal
  readonly #editor: Editor
  readonly #keys = new Keys()
  readonly #onStop: () => void
  readonly #pressed = (text: string | undefined, key: Key): void => { this.#press(text, key) }
  readonly #leavePaste = (): void => { this.#writeNow(pasteOff) }
  readonly #ended = (): void => { this.#end() }
  #typed: Array<readonly [string | undefined, Key]> = []
  #waiting: ((line: string | undefined) => void) | undefined
  #isEnded = false
  #wantsToLeave = false

  /** `onStop` is called for Ctrl-C while no message is awaited. */
  constructor(terminal: Terminal, history: string[], onStop: () => void) {
    this.#terminal = terminal
    this.#onStop = onStop
    const input = Object.assign(new PassThrough(), { setRawMode: (on: boolean) => process.stdin.setRawMode(on) })
    this.#editor = createInterface({
      input, output: this.#screen(), terminal: true, prompt: paint('cyan', '> ', terminal), history,
      historySize: maxEntries, completer: (line: string) => complete(line),
    }) as Editor
    this.#editor.on('line', line => { this.#give(line) }).on('close', this.#ended)
    emitKeypressEvents(process.stdin)
    process.stdin.on('keypress', this.#pressed).on('end', this.#ended).on('error', this.#ended).resume()
    process.on('exit', this.#leavePaste)
    if (process.env['TERM'] !== 'dumb') terminal.write(pasteOn)
  }

  /** The next message as it was typed; undefined when the person leaves. */
  read(): Promise<string | undefined> {
    if (this.#isEnded) return Promise.resolve(undefined)
    return new Promise(resolve => {
      this.#waiting = resolve
      this.#editor.prompt()
      for (let next = this.#typed.shift(); next !== undefined; next = this.#typed.shift()) {
        this.#press(...next)
        if (!this.#isReading) break
      }
    })
  }

  /** Ends the reading, as Ctrl-D does. */
  end(): void {
    this.#end()
  }

  /** Gives the terminal back as it was. */
  close(): void {
    this.#end()
    process.stdin.off('keypress', this.#pressed).off('end', this.#ended).off('error', this.#ended).pause()
    this.#editor.close()
    process.off('exit', this.#leavePaste)
    this.#leavePaste()
  }

  get #isReading(): boolean {
    return this.#waiting !== undefined
  }

  // While an answer is being written the prompt must not be drawn, not even when the window changes its size.
  #screen(): Writable {
    const terminal = this.#terminal
    const screen = new Writable({
      decodeStrings: false,
      write: (chunk: string | Buffer, _, done) => {
        if (this.#isReading) terminal.write(chunk)
        done()
      },
    })
    Object.defineProperties(screen, {
      isTTY: { value: true }, columns: { get: () => terminal.columns }, rows: { get: () => terminal.rows },
    })
    terminal.on('resize', () => { if (this.#isReading) screen.emit('resize') })
    return screen
  }

  #press(text: string | undefined, key: Key): void {
    if (!this.#isReading) return this.#pressWhileBusy(text, key)
    const action = this.#keys.press(text, key)
    if (action.do !== 'interrupt') this.#wantsToLeave = false
    if (action.do === 'edit') this.#editor.write(text, key)
    else if (action.do === 'insert') this.#insert(action.text)
    else if (action.do === 'enter') this.#enter()
    else if (action.do === 'interrupt') this.#interrupt()
    else if (action.do === 'suspend') this.#suspend()
  }

  // What is typed meanwhile waits for the prompt, as it does in front of a shell.
  #pressWhileBusy(text: string | undefined, key: Key): void {
    if (key.ctrl === true && key.name === 'c') {
      this.#typed = []
      this.#onStop()
    } else if (key.ctrl === true && key.name === 'z') {
      this.#suspend()
    } else if (this.#typed.length < mostTyped) {
      this.#typed.push([text, key])
    }
  }

  #insert(text: string): void {
    const { line, cursor } = this.#editor
    this.#show(line.slice(0, cursor) + text + line.slice(cursor), cursor + text.length, text)
  }

  #enter(): void {
    const { line, cursor } = this.#editor
    const longer = enter(line, cursor)
    if (longer === undefined) this.#editor.write(null, { name: 'return' })
    else this.#show(longer.more, longer.cursor, '\n')
  }

  #show(line: string, cursor: number, added: string): void {
    this.#editor.line = line
    this.#editor.cursor = cursor
    if (process.env['TERM'] === 'dumb') this.#terminal.write(added)
    else this.#editor.prompt(true)
  }

  #interrupt(): void {
    if (this.#editor.line !== '') {
      this.#editor.write(null, { ctrl: true, name: 'e' })
      this.#terminal.write('^C')
    } else if (this.#wantsToLeave) {
      return this.#end()
    } else {
      this.#wantsToLeave = true
      this.#terminal.write('(Ctrl-C again or /exit leaves)')
    }
    this.#editor.clearLine()
    this.#editor.prompt()
  }

  #suspend(): void {
    if (process.platform === 'win32') return
    this.#terminal.write(pasteOff)
    process.stdin.setRawMode(false)
    process.once('SIGCONT', () => {
      process.stdin.setRawMode(true)
      this.#terminal.write(pasteOn)
      if (this.#isReading) this.#editor.prompt(true)
    })
    process.kill(process.pid, 'SIGTSTP')
  }

  #give(line: string | undefined): void {
    const waiting = this.#waiting
    this.#waiting = undefined
    waiting?.(line)
  }

  #end(): void {
    if (this.#isEnded) return
    this.#isEnded = true
    if (this.#isReading) this.#terminal.write('\n')
    this.#give(undefined)
  }

  // At the exit of the process nothing is written that is not written at once.
  #writeNow(text: string): void {
    if (process.env['TERM'] === 'dumb') return
    try {
      writeSync(this.#terminal.fd, text)
    } catch {
      // the terminal is gone
    }
  }
}
