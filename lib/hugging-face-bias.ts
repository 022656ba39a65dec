// hugging-face-bias.ts: the three arguments of transformers' generate() that forbid or favour tokens, as one list of
// bias rules, each token sequence once. Not here: what a rule does (csrc/engine/processors.cc).
// Trap: bad_words_ids leaves a stop token alone and suppress_tokens does not; which tokens are stop tokens may be
// known only when the model is.
import type { PolyLMError } from './errors.js'
import type { GenerateOptions } from './options.js'
import { readIds, type OptionBag } from './option-reader.js'

type Refuse = (name: string, value: unknown, reason: string, hint?: string) => PolyLMError
type Rule = readonly [number | readonly number[], number]

const tokenLimit = 2 ** 31 - 1
// A number for one token: there may be a rule for every token of the vocabulary.
type Key = number | string
const keyOf = (ids: readonly number[]): Key => (ids.length === 1 ? ids[0] ?? 0 : ids.join())

/**
 * The options that `bad_words_ids`, `suppress_tokens` and `sequence_bias` become.
 *
 * @param stops - what `eos_token_id` became; undefined: the model's own stop tokens, which are not known here.
 */
export function biasOf(
  bag: OptionBag, stops: ArrayLike<number> | undefined, refuse: Refuse,
): Pick<GenerateOptions, 'bias' | 'biasSparesStops'> {
  const rules = new Map<Key, Rule>()
  const spared = new Set<number>()
  for (const ids of badWords(bag, stops, refuse)) {
    rules.set(keyOf(ids), [ids, -Infinity])
    if (stops === undefined && ids.length === 1) spared.add(ids[0] ?? 0)
  }
  for (const id of suppressed(bag, refuse)) {
    spared.delete(id)
    if (!rules.has(id)) rules.set(id, [id, -Infinity])
  }
  for (const [key, [ids, value]] of biases(bag, refuse)) {
    if (!rules.has(key)) {
      rules.set(key, [ids, value])
    } else if (ids.length === 1 && spared.has(ids[0] ?? 0)) {
      throw refuse('bad_words_ids', ids, 'is also in sequence_bias, and is banned only where it is no stop token',
        'pass eos_token_id')
    }                                                // else it is banned, and no bias changes that
  }
  return {
    ...(rules.size > 0 ? { bias: [...rules.values()] } : {}),
    ...(spared.size > 0 ? { biasSparesStops: [...spared] } : {}),
  }
}

function sequence(name: string, value: unknown, refuse: Refuse): number[] {
  const ids = Array.from(readIds(value, tokenLimit, reason => refuse(name, value, reason)))
  if (ids.length === 0) throw refuse(name, value, 'expected one token id at least')
  return ids
}

function list(name: string, value: unknown, refuse: Refuse): readonly unknown[] {
  if (Array.isArray(value) && value.length > 0) return value
  throw refuse(name, value, 'expected an array that is not empty')
}

function suppressed(bag: OptionBag, refuse: Refuse): Int32Array {
  const value = bag['suppress_tokens'] ?? []
  return readIds(value, tokenLimit, reason => refuse('suppress_tokens', value, reason))
}

// Of equal sequences the last one counts: transformers makes a dictionary of them.
function biases(bag: OptionBag, refuse: Refuse): Map<Key, readonly [number[], number]> {
  const rules = new Map<Key, readonly [number[], number]>()
  if (bag['sequence_bias'] === undefined) return rules
  for (const rule of list('sequence_bias', bag['sequence_bias'], refuse)) {
    if (!Array.isArray(rule) || rule.length !== 2) {
      throw refuse('sequence_bias', rule, 'expected [token ids, number]')
    }
    const [target, value] = rule as [unknown, unknown]
    if (typeof value !== 'number' || Number.isNaN(value) || value === Infinity) {
      throw refuse('sequence_bias', value, 'expected a number or -Infinity')
    }
    const ids = sequence('sequence_bias', typeof target === 'number' ? [target] : target, refuse)
    rules.set(keyOf(ids), [ids, value])
  }
  return rules
}

function badWords(bag: OptionBag, stops: ArrayLike<number> | undefined, refuse: Refuse): number[][] {
  const words = bag['bad_words_ids']
  if (words === undefined) return []
  const all = Array.from(list('bad_words_ids', words, refuse), word => sequence('bad_words_ids', word, refuse))
  const ends = new Set(stops === undefined ? [] : Array.from(stops))
  const banned = all.filter(([id, ...rest]) => rest.length > 0 || !ends.has(id ?? -1))
  if (banned.length > 0) return banned
  throw refuse('bad_words_ids', words, 'has only stop tokens, which is an error in transformers')
}
