// option-table.ts: the scalar decoding options: the rows of csrc/engine/sampling_params.def, in its
// order. test/unit/parity.test.ts compares the two, so neither can change alone.

/** One row: public name, type, inclusive range, default. */
export interface OptionRow {
  readonly name: string
  readonly type: 'int' | 'real' | 'bool'
  readonly min: number
  readonly max: number
  readonly default: number
}

/**
 * How long the lists among the options may be: the rows of csrc/engine/option_limits.def, compared by the same test.
 * Hugging Face has no such limits; these bound the memory of one request.
 */
export const optionLimits = {
  stopStrings: 1024,
  /** UTF-8, all stop strings together. */
  stopBytes: 65_536,
  stopTokenIds: 64,
  /** Token ids of all bias rules together. */
  biasTokens: 1_048_576,
  allowChoices: 1024,
} as const

const maxTokens = 1_048_576
const int = (name: string, min: number, max: number, value: number): OptionRow =>
  ({ name, type: 'int', min, max, default: value })
const real = (name: string, min: number, max: number, value: number): OptionRow =>
  ({ name, type: 'real', min, max, default: value })
const bool = (name: string, value: number): OptionRow =>
  ({ name, type: 'bool', min: 0, max: 1, default: value })

/** The table. Rows that begin at -1 use it for "off"; users leave the option away instead. */
export const optionTable: readonly OptionRow[] = [
  int('maxTokens', 1, maxTokens, 256),
  int('minTokens', 0, maxTokens, 0),
  real('temperature', 0, 100, 0),
  int('topK', 0, maxTokens, 0),
  real('topP', 0, 1, 1),
  real('minP', 0, 1, 0),
  real('typicalP', 0, 1, 1),
  real('epsilonCutoff', 0, 1, 0),
  real('etaCutoff', 0, 1, 0),
  real('repetitionPenalty', 0.0001, 1000, 1),
  int('noRepeatNgramSize', 0, maxTokens, 0),
  real('presencePenalty', -2, 2, 0),
  real('frequencyPenalty', -2, 2, 0),
  int('forcedFirstToken', -1, maxTokens - 1, -1),
  int('forcedLastToken', -1, maxTokens - 1, -1),
  bool('renormalize', 0),
  int('numBeams', 1, 32, 1),
  bool('sampleBeams', 0),
  real('lengthPenalty', -100, 100, 1),
  int('n', 1, 16, 1),
  bool('includeStop', 0),
  bool('stopHf', 0),
  int('logprobs', -1, 20, -1),
  bool('logprobsProcessed', 0),
  int('seed', 0, Number.MAX_SAFE_INTEGER, 0),
  int('padToLength', 0, maxTokens, 0),
  int('padToToken', 0, maxTokens - 1, 0),
  bool('speculateLookup', 0),
  bool('skipSpecialTokens', 1),
]

/** Rows that users give under other names: logprobsOf, padTo, speculate and stopMatching. */
export const derivedRows: ReadonlySet<string> = new Set([
  'logprobsProcessed', 'padToLength', 'padToToken', 'speculateLookup', 'stopHf',
])
