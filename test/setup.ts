// setup.ts: property tests draw the same cases in every run, so that a red CI means a change.
// POLYLM_SEED=random draws new ones (fast-check prints the seed of a failure), a number replays it.
import fc from 'fast-check'

const wanted = process.env['POLYLM_SEED'] ?? '20230711'
if (wanted !== 'random') fc.configureGlobal({ seed: Number(wanted) })
