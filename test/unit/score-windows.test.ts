// score-windows.test.ts: every token is scored once, and the rolling windows are those of
// lm-evaluation-harness, whose rule is written here a second time, from its description.
import fc from 'fast-check'
import { scoreWindows } from '../../lib/scoring.js'

/** (input, predicted) pairs over `tokens` with a prefix token before them, context_len 1. */
function rollingWindows(tokens: readonly number[], prefix: number, longest: number): Array<[number[], number[]]> {
  const windows: Array<[number[], number[]]> = []
  let predicted = Math.min(longest, tokens.length)
  windows.push([[prefix, ...tokens.slice(0, predicted - 1)], tokens.slice(0, predicted)])
  while (predicted < tokens.length) {
    const length = Math.min(tokens.length - predicted, longest)
    const end = predicted + length
    windows.push([tokens.slice(Math.max(0, end - longest - 1), end - 1), tokens.slice(end - length, end)])
    predicted += length
  }
  return windows
}

test('with stride = window they are the rolling windows', () => {
  fc.assert(fc.property(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 20 }), (length, window) => {
    const tokens = Array.from({ length }, (_, i) => i + 1)
    const all = [0, ...tokens]
    const ours = scoreWindows(all.length, window, window)
      .map(({ from, scoreFrom, to }) => [all.slice(from, to - 1), all.slice(scoreFrom, to)])
    const theirs = rollingWindows(tokens, 0, window)
    expect(ours).toEqual(theirs)
  }))
})

test('every token but the first is scored once, with at most `window` before it', () => {
  const sizes = fc.integer({ min: 1, max: 40 }).chain(window => fc.tuple(fc.constant(window), fc.integer({ min: 1, max: window })))
  fc.assert(fc.property(fc.integer({ min: 2, max: 200 }), sizes, (length, [window, stride]) => {
    const scored: number[] = []
    for (const { from, scoreFrom, to } of scoreWindows(length, window, stride)) {
      expect(scoreFrom).toBeGreaterThan(from)
      expect(to - 1 - from).toBeLessThanOrEqual(window)
      for (let i = scoreFrom; i < to; i++) scored.push(i)
    }
    expect(scored).toEqual(Array.from({ length: length - 1 }, (_, i) => i + 1))
  }))
})
