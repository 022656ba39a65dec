// session-types.ts: the public face of conversations: what can be asked of one and with which options.
// How it works is in session.ts.
import type { Message, Template } from './chat.js'
import type { GenerateOptions, PromptOptions } from './options.js'
import type { Prompt } from './prompt.js'
import type { GenerateResult } from './result.js'
import type { GenerateStream } from './stream.js'

/** Options of `createSession`. */
export interface SessionOptions {
  /** How the conversation is written for the model. @default 'assistant' */
  readonly template?: Template | undefined
  /** A system message at the start; only for template functions, the others have no place for it. @default none */
  readonly system?: string | undefined
  /**
   * Messages that were exchanged before. They are history, also the user's: what in them looks like a marker of the
   * template is escaped, never refused.
   * @default none
   */
  readonly history?: readonly Message[] | undefined
  /**
   * When the conversation no longer fits: throw `CONTEXT_OVERFLOW`, or forget the oldest round and try
   * again (with template 'none': always throw).
   * @default 'error'
   */
  readonly onOverflow?: 'error' | 'dropOldestTurns' | undefined
  /**
   * The `cacheSalt` of every call of the session that gives none of its own. It is not saved in files. Sessions
   * without one take turns with each other as callers of their own, together with their forks.
   * @default ''
   */
  readonly cacheSalt?: string | undefined
}

/** Options of `restoreSession`. */
export interface RestoreOptions {
  /** Needed when the session was made with a template function; else the file's own template or nothing. */
  readonly template?: Template | undefined
  /** @default as it was saved */
  readonly onOverflow?: 'error' | 'dropOldestTurns' | undefined
  /** As in {@link SessionOptions}. @default '' */
  readonly cacheSalt?: string | undefined
}

/** How far {@link Session.rewind} goes back. */
export type RewindTarget =
  | { /** The last so many messages of the user's and what came after. */ readonly turns: number }
  | { /** Only with template 'none': the last so many tokens. */ readonly tokens: number }

/** Options of a session's `append`. */
export type AppendOptions = Pick<PromptOptions, 'parseSpecial' | 'controlText'>

/** Options of a session's `logits`. */
export interface SessionLogitsOptions {
  /** Cancels the call. @default none */
  readonly signal?: AbortSignal | undefined
}

/**
 * A conversation with a model. One call at a time; the next one waits for its turn. A session holds text and
 * token ids, no memory of the engine: there may be any number of them. What fails or is aborted leaves the
 * session as it was.
 */
export interface Session {
  /**
   * Adds a message and generates the answer. Options are those of `generate`, without `onOverflow`; `controlText` is
   * about the new message. Answers may hold anything: as part of the conversation they are text, never a marker.
   */
  send(message: Prompt, options?: GenerateOptions): Promise<GenerateResult>
  /** The same as a stream; it resolves when the calls before it have ended. */
  stream(message: Prompt, options?: GenerateOptions): Promise<GenerateStream>
  /**
   * An independent session with the same conversation, at once and at no cost: what `history` shows is
   * shared until one of the two goes on. Calls that still run or wait are not part of it.
   */
  fork(): Session
  /**
   * Goes back, as if the last turns had never been. Takes effect at once, or after the calls that run and
   * wait. A turn is a message of the user's with all that follows it.
   *
   * @throws PolyLMError INVALID_OPTION when there is less than that.
   * @example await chat.rewind({ turns: 1 })
   */
  rewind(target: RewindTarget): Promise<void>
  /**
   * Adds to the conversation without generating: text as the user's message, `{ messages }` with their
   * roles. With template 'none' any prompt; its text is taken up as it stands. The model sees it at the next
   * call. `send` after an appended message of the user's needs a template function or 'none': the other
   * templates take turns.
   *
   * @throws PolyLMError INVALID_PROMPT, INVALID_OPTION, TOKENIZER_MISSING; CONTEXT_OVERFLOW when the conversation
   * could never fit the context any more.
   */
  append(prompt: Prompt, options?: AppendOptions): Promise<void>
  /**
   * Raw scores of the vocabulary for the next token: after {@link Session.tokens}, and when the last message
   * is the user's, after what the template puts before the answer.
   *
   * @throws PolyLMError INVALID_PROMPT when there is nothing yet; else as `model.logits`.
   */
  logits(options?: SessionLogitsOptions): Promise<Float32Array>
  /**
   * Writes the conversation to a file, for `model.restoreSession`: text and token ids, no KV. The file
   * appears whole or not at all, also when the process is killed; what was there before is replaced.
   * Only its owner can read it.
   *
   * @throws PolyLMError FILE_IO, LIMIT.
   */
  save(path: string): Promise<void>
  /** The messages so far; with template 'none' each turn is a user and an assistant message. */
  readonly history: readonly Message[]
  /**
   * Token ids of the conversation so far, encoded when asked for. Empty before the first message.
   * A template function is asked to render it.
   */
  readonly tokens: Int32Array
  /** How many those are. */
  readonly contextUsed: number
  /** Forgets the conversation; running and waiting calls are aborted with DISPOSED. Idempotent. */
  dispose(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}
