// binary.test.ts: the places where the addon is looked for are those of node-gyp-build, in its order, and the error names
// them with what is there.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import nodeGypBuild from 'node-gyp-build'
import { binaryPlaces, describePlace, noBinary, withoutPlaces } from '../../lib/binary.js'
import { findBinary } from '../../lib/native.js'

const platform = `${process.platform}-${process.arch}`
let root = ''

beforeEach(() => { root = mkdtempSync(path.join(tmpdir(), 'polylm-')) })
afterEach(() => { rmSync(root, { recursive: true, force: true }) })

const write = (...parts: string[]): void => {
  const file = path.join(root, ...parts)
  mkdirSync(path.dirname(file), { recursive: true })
  writeFileSync(file, '{"name":"polylm"}')
}

const missing = (): string => {
  try {
    return nodeGypBuild.path(root)
  } catch (e) {
    return (e as Error).message
  }
}

test('the order is that of node-gyp-build', () => {
  expect(missing()).toMatch(/^No native build was found/)
  const files = [['build', 'Release', 'a.node'], ['build', 'Debug', 'a.node'], ['prebuilds', platform, 'node.napi.node']]
  for (const file of files) write(...file)
  for (const file of files) {
    const first = binaryPlaces(root).find(({ files: names }) => (names?.length ?? 0) > 0)
    expect(path.join(first?.folder ?? '', first?.files?.[0] ?? '')).toBe(path.join(root, ...file))
    expect(missing()).toBe(path.join(root, ...file))
    rmSync(path.join(root, ...file))
  }
})

test('the error says what was found where', () => {
  write('package.json')
  write('build/Release/notes.txt')
  write('prebuilds/plan9-mips/node.napi.node')
  const error = noBinary(root, undefined, missing())
  const { message, hint } = error
  expect(withoutPlaces(message)).toMatch(new RegExp(`^there is no native binary of polylm for ${platform}( with .*)?, Node \\d+`))
  expect(message).toContain(`\n  ${path.join(root, 'build/Release')}: no addon`)
  expect(message).toContain(`\n  ${path.join(root, 'prebuilds', platform)}: no such folder`)
  expect(hint).toContain('npx polylm-build')
  expect(hint).toContain('plan9-mips')
  expect(error['found']).toEqual([])
})

test('one that is there but does not load is named', () => {
  write('package.json')
  write('prebuilds', platform, 'node.napi.node')
  const error = noBinary(root, undefined, 'version `GLIBC_2.99\' not found')
  expect(error.message).toContain("cannot be loaded: version `GLIBC_2.99' not found")
  expect(error.message).toContain(`${path.join(root, 'prebuilds', platform)}: node.napi.node`)
  expect(error['found']).toEqual([path.join(root, 'prebuilds', platform, 'node.napi.node')])
})

test('code that a bundler moved is told apart', () => {
  expect(noBinary(root, undefined, missing()).hint).toContain('leave it out of the bundle')
  writeFileSync(path.join(root, 'package.json'), '{"name":"my-app"}')
  expect(noBinary(root, undefined, missing()).hint).toContain('leave it out of the bundle')
})

test('the binary of this checkout is found', () => {
  const { file, places } = findBinary()
  expect(file).toMatch(/\.node$/)
  expect(places.map(describePlace).join('\n')).toContain(path.basename(file ?? '?'))
})
