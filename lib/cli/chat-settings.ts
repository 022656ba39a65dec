// chat-settings.ts: the decoding options of a conversation: those of the command line, and what `/set` makes of them.
// Names and values are read by the flags' own readers.
import { Command, InvalidArgumentError } from 'commander'
import type { Option } from 'commander'
import { quote } from '../checkpoint/text.js'
import { PolyLMError } from '../errors.js'
import type { GenerateOptions } from '../index.js'
import { nearest } from '../option-reader.js'
import { addDecodingFlags, kebab } from './decoding-flags.js'
import { UsageError } from './failure.js'

const elsewhere: Readonly<Record<string, string>> = {
  n: 'a conversation goes on with one answer', logprobs: 'a conversation shows text alone',
  logprobsOf: 'a conversation shows text alone',
}

/** Options that a conversation has no use for, refused on the command line. */
export function refuseOptions(options: GenerateOptions): void {
  if (options.n === 1) return refuseOptions({ ...options, n: undefined })
  for (const [name, reason] of Object.entries(elsewhere)) {
    if (options[name as keyof GenerateOptions] === undefined) continue
    throw new UsageError(`--${kebab(name)} ${shown(options[name as keyof GenerateOptions])}: ${reason}`,
      `use polylm generate --template assistant --${kebab(name)}`)
  }
  if (options.onOverflow === 'truncateLeft') {
    throw new UsageError('--on-overflow truncateLeft: a conversation forgets whole turns instead of half of one',
      'leave it out: the oldest turns go first; --on-overflow error keeps all')
  }
}

const notSet = new Set([...Object.keys(elsewhere), 'onOverflow'])
const flags: ReadonlyMap<string, Option> = new Map(addDecodingFlags(new Command()).options
  .filter(option => !notSet.has(option.attributeName())).map(option => [kebab(option.attributeName()), option]))

/** The names that `/set` takes. */
export const settingNames: readonly string[] = [...flags.keys()]

const isSwitch = (option: Option): boolean => !option.required && !option.optional

/** The values that an option takes, when they are few. */
export function settingValues(name: string): readonly string[] {
  const option = flags.get(name)
  if (option === undefined) return []
  return [...(isSwitch(option) ? ['true', 'false'] : option.argChoices ?? []), 'default']
}

/** The decoding options of a conversation as they are now. */
export class Settings {
  #options: GenerateOptions

  constructor(options: GenerateOptions) {
    this.#options = options
  }

  get options(): GenerateOptions {
    return this.#options
  }

  /**
   * `/set`, `/set NAME` and `/set NAME VALUE`; gives what is shown.
   *
   * @throws PolyLMError INVALID_OPTION.
   */
  command(argument: string): string {
    const [, given = '', text = ''] = /^(\S*)\s*(.*)$/s.exec(argument) ?? []
    if (given === '') return this.#all()
    const [name, option] = flagNamed(given)
    const attribute = option.attributeName() as keyof GenerateOptions
    if (text === '') return `${name} ${shown(this.#options[attribute])}`
    const { [attribute]: _, ...others } = this.#options as Record<string, unknown>
    const changed = text === 'default' ? others : { ...others, [attribute]: read(name, option, text) }
    this.#options = changed as GenerateOptions
    return `${name} ${shown(this.#options[attribute])}`
  }

  #all(): string {
    const given = Object.entries(this.#options).filter(([name]) => !notSet.has(name))
      .map(([name, value]) => `${kebab(name)} ${shown(value)}\n`).join('')
    return `${given === '' ? 'every option has its default\n' : given}` +
      '/set NAME VALUE changes one, /set NAME default takes it back; Tab shows the names'
  }
}

function flagNamed(given: string): [string, Option] {
  const name = kebab(given.replace(/^--/, '')).replaceAll('_', '-')
  const option = flags.get(name)
  if (option !== undefined) return [name, option]
  const attribute = given.replace(/-./g, two => two.slice(1).toUpperCase())
  const reason = Object.hasOwn(elsewhere, attribute) ? elsewhere[attribute]
    : attribute === 'onOverflow' ? 'it is given when polylm starts' : undefined
  const meant = settingNames.find(known => known.startsWith(name)) ?? nearest(given, new Set(flags.keys()))
  throw new PolyLMError('INVALID_OPTION', reason === undefined
    ? `${quote(given)} is not a decoding option${meant === undefined ? '' : `; did you mean ${meant}?`}`
    : `${name} cannot be set here: ${reason}`, {
    option: given, value: undefined, reason: reason ?? 'unknown', hint: '/set NAME VALUE; Tab shows the names',
  })
}

function read(name: string, option: Option, text: string): unknown {
  const value = /^"(?:[^"\\]|\\.)*"$/.test(text) ? unquoted(name, text) : text
  if (isSwitch(option)) {
    if (value === 'true' || value === 'on') return true
    if (value === 'false' || value === 'off') return false
    throw invalid(name, value, 'it must be true or false')
  }
  try {
    return option.parseArg === undefined ? value : option.parseArg(value, undefined)
  } catch (e) {
    if (e instanceof InvalidArgumentError) throw invalid(name, value, e.message)
    throw e
  }
}

// "\n" in quotes is a line end: the only way to write one here.
function unquoted(name: string, text: string): string {
  try {
    return JSON.parse(text) as string
  } catch (e) {
    throw invalid(name, text, `in quotes it must be a JSON string (${(e as Error).message})`)
  }
}

function invalid(name: string, value: string, reason: string): PolyLMError {
  const text = reason.replace(/^It /, 'it ').replace(/\.$/, '')
  return new PolyLMError('INVALID_OPTION', `${name}: found ${quote(value)}; ${text}`,
    { option: name, value, reason: text, hint: `/set ${name} default takes it back` })
}

function shown(value: unknown): string {
  if (value === undefined) return 'has its default'
  if (typeof value === 'string') return value
  return JSON.stringify(value, (_, part: unknown) => (part === -Infinity ? '-inf' : part))
}
