// sampling.ts: when a call samples. One rule for generate, explain and the command line: `temperature` decides, and
// where it is not given, an option that only sampling can follow means temperature 1. Not here: what the options do
// (csrc/engine/warpers.cc).

// Whether a value asks for something. Neutral ones do not, because defaults get spread into calls.
const asks: Readonly<Record<string, (value: number) => boolean>> = {
  topK: k => k > 0,
  topP: p => p < 1,
  minP: p => p > 0,
  typicalP: p => p < 1,
  epsilonCutoff: p => p > 0 && p < 1,
  etaCutoff: p => p > 0 && p < 1,
}

/** The option that turns sampling on without a temperature, if one does. The values need not be checked yet. */
export function impliedBy(options: Readonly<Record<string, unknown>>): string | undefined {
  const found = Object.keys(asks).find(name => {
    const value = options[name]
    return typeof value === 'number' && asks[name]?.(value) === true
  })
  if (found !== undefined) return found
  const beams = options['numBeams']
  return options['sampleBeams'] === true && typeof beams === 'number' && beams > 1 ? 'sampleBeams' : undefined
}

/** Whether a call with these options samples. */
export function samples(options: Readonly<Record<string, unknown>>): boolean {
  const { temperature } = options
  if (temperature === undefined) return impliedBy(options) !== undefined
  return typeof temperature === 'number' && temperature > 0
}
