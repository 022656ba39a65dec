// session-state.ts: what a conversation consists of, as immutable values: every change makes a new list that
// shares its entries, so a fork is a reference. Not here: turns and their order (session.ts), files (session-file.ts).
// Trap: with template 'none' messages that were given together are one text; `joined` keeps them together.
import type { Message } from './chat.js'
import type { NativePart } from './native.js'
import type { GenerateOutput } from './result.js'

/** A message, and with template 'none' what it adds to the text. */
export interface Entry {
  readonly message: Message
  readonly parts: readonly NativePart[]
  /** Its text goes on in the last text of the entry before and is encoded with it. */
  readonly joined: boolean
}

/** The entries so far. */
export type State = readonly Entry[]

/** A message of a template. */
export const entryOf = (role: Message['role'], content: string, parts: readonly NativePart[] = []): Entry =>
  ({ message: { role, content }, parts, joined: false })

/** Messages that were given together, for template 'none'. */
export function joinedEntries(messages: readonly Message[]): Entry[] {
  return messages.map((message, i) => (
    { message, parts: [{ text: message.content, parseSpecial: false }], joined: i > 0 }
  ))
}

/** The messages alone. */
export const messagesOf = (state: State): Message[] => state.map(({ message }) => message)

/** UTF-16 units of the text and `around` for what is put around a message; 1, so that empty ones count too. */
export const textLengthOf = (state: State, around = 1): number => state.reduce((sum, { message, parts }) => {
  const own = parts.reduce((n, part) => n + ('text' in part ? part.text.length : 0), 0)
  return sum + around + (parts.length === 0 ? message.content.length : own)
}, 0)

/** The text so far (template 'none'), in the parts that are encoded on their own. */
export function partsOf(state: State): NativePart[] {
  const parts: NativePart[] = []
  for (const { parts: more, joined } of state) {
    const last = parts.at(-1)
    const [first] = more
    if (joined && last !== undefined && 'text' in last && first !== undefined && 'text' in first) {
      parts[parts.length - 1] = { text: last.text + first.text, parseSpecial: false }
    } else {
      parts.push(...more)
    }
  }
  return parts
}

/** How many turns there are; one begins with each message of the user's. */
export const turnsOf = (state: State): number => state.filter(isUser).length

/** Without the last `turns` turns, of which there are as many. */
export function withoutTurns(state: State, turns: number): State {
  let end = state.length
  for (let left = turns; left > 0 && end > 0;) if (isUser(state[--end])) left--
  return turns === 0 ? state : state.slice(0, end)
}

/** Without the oldest round. */
export function withoutOldest(state: State): State {
  const second = state.findIndex((entry, i) => i > 0 && isUser(entry))
  return second < 0 ? [] : state.slice(second)
}

const isUser = (entry: Entry | undefined): boolean => entry?.message.role === 'user'

/** What cutting tokens needs of the model. */
export interface Coder {
  /** Ids of a text, without special tokens around it. */
  encode(text: string, parseSpecial: boolean, atStart: boolean): Int32Array
  /** Text of ids, or '' without a tokenizer. */
  decode(ids: Int32Array): string
}

/**
 * Without the last `count` tokens (template 'none'); undefined when there are fewer. The entry that is cut
 * keeps ids instead of text; messages that were joined become one.
 */
export function withoutTokens(state: State, count: number, coder: Coder): State | undefined {
  if (count === 0) return state
  const groups = groupsOf(state, coder)
  let end = state.length
  let left = count
  for (let i = groups.length - 1; i >= 0; i--) {
    const { from, ids } = groups[i] as Group
    if (ids.length > left) {
      const before = concatIds(groups.slice(0, i).map(group => group.ids))
      return [...state.slice(0, from), cutEntry(state[from], before, ids.slice(0, ids.length - left), coder)]
    }
    left -= ids.length
    end = from
    if (left === 0) return state.slice(0, end)
  }
  return undefined
}

/** Entries that are one text, and its ids; each text is encoded once, however much is cut. */
interface Group {
  readonly from: number
  readonly ids: Int32Array
}

function groupsOf(state: State, coder: Coder): Group[] {
  const groups: Group[] = []
  let atStart = true
  for (let from = 0; from < state.length;) {
    let end = from + 1
    while (state[end]?.joined === true) end++
    const ids = partsOf(state.slice(from, end)).map(part => {
      const made = 'ids' in part ? part.ids : part.text === '' ? new Int32Array(0)
        : coder.encode(part.text, part.parseSpecial, atStart)
      atStart = atStart && !('ids' in part) && part.text === ''
      return made
    })
    groups.push({ from, ids: concatIds(ids) })
    from = end
  }
  return groups
}

/** Lists of token ids as one. */
export function concatIds(lists: readonly Int32Array[]): Int32Array {
  const all = new Int32Array(lists.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const list of lists) {
    all.set(list, at)
    at += list.length
  }
  return all
}

function cutEntry(entry: Entry | undefined, before: Int32Array, kept: Int32Array, coder: Coder): Entry {
  const content = coder.decode(concatIds([before, kept])).slice(coder.decode(before).length)
  const ids = { ids: kept, control: false }
  // A text is what asks for the special tokens around the whole, so an empty one stays in its place.
  const startsWithText = before.length === 0 && entry?.parts[0] !== undefined && 'text' in entry.parts[0]
  const parts: NativePart[] = startsWithText ? [{ text: '', parseSpecial: false }, ids] : [ids]
  return entryOf(entry?.message.role ?? 'user', content, parts)
}

/** The answer as it goes on: its tokens without the stop token; as text when a stop string cut it. */
export function answerParts(output: GenerateOutput | undefined): NativePart[] {
  if (output === undefined) return []
  if (typeof output.stoppedBy === 'string') return [{ text: output.text, parseSpecial: false }]
  const ids = typeof output.stoppedBy === 'number' ? output.tokens.slice(0, -1) : output.tokens
  return ids.length === 0 ? [] : [{ ids, control: false }]
}
