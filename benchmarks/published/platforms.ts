// platforms.ts: what is published of binaries and of the consumer matrix: numbers that were observed, not benchmarked.
import { between, markdown } from './rules.js'
import { observed, observedRuns, origin } from './results.js'
import type { Results } from './results.js'

/** Sizes of binaries and of the package. */
export function binarySizes(results: Results): string {
  const mb = (key: string): string => `${observed(results, 'binaries', key)} MB`
  const seconds = (key: string): string => `${between(observedRuns(results, 'binaries', key), String)} s`
  return markdown(['binary', 'size'], [
    ['linux-x64', mb('linux-x64 MB')],
    [`linux-x64 with CUDA for ${observed(results, 'binaries', 'CUDA architectures')} architectures`, mb('linux-x64 with CUDA MB')],
    ['linux-arm64', mb('linux-arm64 MB')], ['win32-x64', mb('win32-x64 MB')],
    ['package with these three, CUDA included, to download', mb('package MB')], ['installed, with dependencies', mb('installed MB')],
  ]) + `\nInstalling from npm's cache took ${seconds('install s')}, ${seconds('install s, busy')} while the machine was busy. ${origin(results, 'binaries')}\n`
}

/** How the matrix of consumers ended. */
export function consumerRun(results: Results): string {
  const n = (key: string): number => observed(results, 'consumers', key)
  return `${n('cells')} cells: ${n('passed')} passed, ${n('could not run')} could not run, ${n('failed')} failed (Vite's, for a wrong file name in the cell ` +
    `itself; it passed once that was right). Compiling from the package took ${n('minutes to compile from the package')} minutes. ${origin(results, 'consumers')}\n`
}

/** What ended and what did not under emulation. */
export function emulatedRun(results: Results): string {
  const n = (key: string): number => observed(results, 'arm64-emulated', key)
  return `All ${n('kernel checks passed')} checks of kernels and of bits passed (NEON in float32 and bfloat16, BFDOT, scalar), the whole model against ` +
    `recorded numbers with each of the three, and once the engine's tests with ${n('simulator seeds')} seeds of its simulator, and those of files, ` +
    'tokenizers and text; with NEON and with BFDOT an addon program printed what x86-64 prints. Two test groups timed out: Hugging Face\'s recorded ' +
    `decodings (after ${n('minutes, decodings')} minutes), and the whole model's bits under other chunks with BFDOT (after ${n('minutes, whole model')} ` +
    `minutes; with NEON they passed). Both pass on x86-64. ${origin(results, 'arm64-emulated')}\n`
}
