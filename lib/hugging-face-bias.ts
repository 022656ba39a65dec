// hugging-face-bias.ts: the three arguments of transformers' generate() that forbid or favour tokens, as one list of
// bias rules, each token sequence once. Not here: what a rule does (csrc/engine/processors.cc).
// Trap: bad_words_ids leaves a stop token alone and suppress_tokens does not; which tokens are stop tokens may be
// known only when the model is.
import type { GenerateOptions } from './options.js'
import { invalidOption, readIds, type OptionBag } from './option-reader.js'

type Rule = readonly [number | readonly number[], number]

/** Above all token ids; which of them the model has is not known here. */
export const tokenLimit = 2 ** 31 - 1

/** Token ids of an argument. */
export const tokenIds = (name: string, value: unknown): Int32Array =>
  readIds(value, tokenLimit, reason => invalidOption(name, value, reason))

// A number for one token: there may be a rule for every token of the vocabulary.
type Key = number | string
const keyOf = (ids: readonly number[]): Key => (ids.length === 1 ? ids[0] ?? 0 : ids.join())

/**
 * The options that `bad_words_ids`, `suppress_tokens` and `sequence_bias` become.
 *
 * @param stops - what `eos_token_id` became; undefined: the model's own stop tokens, which are not known here.
 */
export function biasOf(
  bag: OptionBag, stops: ArrayLike<number> | undefined,
): Pick<GenerateOptions, 'bias' | 'biasSparesStops'> {
  const rules = new Map<Key, Rule>()
  const spared = new Set<number>()
  for (const ids of badWords(bag, stops)) {
    rules.set(keyOf(ids), [ids, -Infinity])
    if (stops === undefined && ids.length === 1) spared.add(ids[0] ?? 0)
  }
  for (const id of tokenIds('suppress_tokens', bag['suppress_tokens'] ?? [])) {
    spared.delete(id)
    if (!rules.has(id)) rules.set(id, [id, -Infinity])
  }
  for (const [key, [ids, value]] of biases(bag)) {
    if (!rules.has(key)) {
      rules.set(key, [ids, value])
    } else if (ids.length === 1 && spared.has(ids[0] ?? 0)) {
      throw invalidOption('bad_words_ids', ids,
        'is also in sequence_bias, and is banned only where it is no stop token', 'pass eos_token_id')
    }                                                // else it is banned, and no bias changes that
  }
  return {
    ...(rules.size > 0 ? { bias: [...rules.values()] } : {}),
    ...(spared.size > 0 ? { biasSparesStops: [...spared] } : {}),
  }
}

function sequence(name: string, value: unknown): number[] {
  const ids = Array.from(tokenIds(name, value))
  if (ids.length === 0) throw invalidOption(name, value, 'expected one token id at least')
  return ids
}

function list(name: string, value: unknown): readonly unknown[] {
  if (Array.isArray(value) && value.length > 0) return value
  throw invalidOption(name, value, 'expected an array that is not empty')
}

// Of equal sequences the last one counts: transformers makes a dictionary of them.
function biases(bag: OptionBag): Map<Key, readonly [number[], number]> {
  const rules = new Map<Key, readonly [number[], number]>()
  if (bag['sequence_bias'] === undefined) return rules
  for (const rule of list('sequence_bias', bag['sequence_bias'])) {
    if (!Array.isArray(rule) || rule.length !== 2) {
      throw invalidOption('sequence_bias', rule, 'expected [token ids, number]')
    }
    const [target, value] = rule as [unknown, unknown]
    if (typeof value !== 'number' || Number.isNaN(value) || value === Infinity) {
      throw invalidOption('sequence_bias', value, 'expected a number or -Infinity')
    }
    const ids = sequence('sequence_bias', typeof target === 'number' ? [target] : target)
    rules.set(keyOf(ids), [ids, value])
  }
  return rules
}

function badWords(bag: OptionBag, stops: ArrayLike<number> | undefined): number[][] {
  const words = bag['bad_words_ids']
  if (words === undefined) return []
  const all = Array.from(list('bad_words_ids', words), word => sequence('bad_words_ids', word))
  const ends = new Set(stops === undefined ? [] : Array.from(stops))
  const banned = all.filter(([id, ...rest]) => rest.length > 0 || !ends.has(id ?? -1))
  if (banned.length > 0) return banned
  throw invalidOption('bad_words_ids', words, 'has only stop tokens, which is an error in transformers')
}
