// failure.ts: how the command line fails: which exit code, and what a person reads. One place prints errors.
// Trap: a stack trace is shown only with POLYLM_DEBUG=1; everything else is one or two lines on stderr.
import { CommanderError } from 'commander'
import { printableLines } from '../checkpoint/text.js'
import { isPolyLMError } from '../errors.js'
import { paint } from './terminal.js'

/** 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 ended by `kill`: the contract of every command. */
export const exitCodes = { done: 0, failed: 1, usage: 2, interrupted: 130, terminated: 143 } as const

/** The command line itself is wrong: an argument is missing, unknown, or contradicts another. */
export class UsageError extends Error {
  readonly hint: string | undefined
  constructor(message: string, hint?: string) {
    super(message)
    this.name = 'UsageError'
    this.hint = hint
  }
}

/** The command did what it could and said so already; only the exit code remains to be set. */
export class QuietFailure extends Error {
  readonly exitCode: number
  constructor(exitCode: number) {
    super(`exit ${exitCode}`)
    this.name = 'QuietFailure'
    this.exitCode = exitCode
  }
}

/** The exit code that stands for an error thrown by a command. */
export function exitCodeOf(e: unknown): number {
  if (e instanceof CommanderError) return e.exitCode === 0 ? exitCodes.done : exitCodes.usage
  if (e instanceof QuietFailure) return e.exitCode
  if (e instanceof UsageError || isPolyLMError(e, 'INVALID_OPTION')) return exitCodes.usage
  return exitCodes.failed
}

/** What stderr shows for an error, or '' when it was shown before (commander prints its own). */
export function describeFailure(e: unknown, debug: boolean): string {
  if (e instanceof QuietFailure) return ''
  if (e instanceof CommanderError) return dashHint(e)
  const head = paint('red', isPolyLMError(e) ? `error [${e.code}]:` : 'error:', process.stderr)
  const message = e instanceof Error ? e.message : String(e)
  const hint = hintOf(e)
  const lines = [`${head} ${printableLines(message)}`]
  if (hint !== undefined) lines.push(`hint: ${printableLines(hint)}`)
  if (debug && e instanceof Error) lines.push(...stacks(e).map(printableLines))
  return lines.join('\n') + '\n'
}

/** An error as a member of a JSON line. */
export function errorJson(e: unknown): Record<string, unknown> {
  const message = e instanceof Error ? e.message : String(e)
  if (!isPolyLMError(e)) return { message }
  return { code: e.code, message, ...(e.hint === undefined ? {} : { hint: e.hint }) }
}

/** A text that begins with a dash looks like an option: `polylm generate MODEL "-5 degrees"`. */
function dashHint({ code, message }: CommanderError): string {
  const found = /^error: unknown option '([\s\S]*?)'/.exec(message)?.[1]
  if (code !== 'commander.unknownOption' || found === undefined || /^--?[a-z][a-z-]*(=.*)?$/i.test(found)) return ''
  return 'hint: text that begins with - goes behind --, as in: polylm generate MODEL -- "-5 degrees"\n'
}

function hintOf(e: unknown): string | undefined {
  return e instanceof UsageError || isPolyLMError(e) ? e.hint : undefined
}

function stacks(e: Error): string[] {
  const own = e.stack ?? e.message
  return e.cause instanceof Error ? [own, 'caused by:', ...stacks(e.cause)] : [own]
}
