// compensated-sum.ts: the sum of log-probabilities, as Python from 3.12 on adds floats (Neumaier's compensation, in
// the order of the terms). lm-evaluation-harness sums with Python's sum(): under 3.11 and older, which add plainly,
// the last digits may differ.

/** Adds doubles in the order they come. */
export class CompensatedSum {
  #sum = 0
  #lost = 0                                          // what rounding took from #sum

  add(term: number): void {
    const sum = this.#sum + term
    this.#lost += Math.abs(this.#sum) >= Math.abs(term) ? (this.#sum - sum) + term : (term - sum) + this.#sum
    this.#sum = sum
  }

  /** -Infinity and NaN of a term stay what they are. */
  get value(): number {
    return Number.isFinite(this.#lost) ? this.#sum + this.#lost : this.#sum
  }
}

/** The sum of all terms. */
export function compensatedSum(terms: Iterable<number>): number {
  const sum = new CompensatedSum()
  for (const term of terms) sum.add(term)
  return sum.value
}
