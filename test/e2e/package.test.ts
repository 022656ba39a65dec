// package.test.ts: what would be published: the files of `npm pack`, no script that runs at installation, one version.
// Trap: dist/ must be built (npm test does); prebuilds/ may be empty here and is filled before a release.
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { polylm, root } from './cli-program.js'

interface Manifest {
  readonly version: string
  readonly scripts: Record<string, string>
  readonly dependencies: Record<string, string>
  readonly [name: string]: unknown
}

const read = (name: string): string => readFileSync(path.join(root, name), 'utf8')
const manifest = JSON.parse(read('package.json')) as Manifest

const allowed = [
  /^(package\.json|README\.md|LICENSE|CHANGELOG\.md|SECURITY\.md|CMakeLists\.txt)$/,
  /^dist\/(index\.(js|cjs|d\.ts|d\.cts|js\.map|cjs\.map)|cli\.js(\.map)?)$/,
  /^prebuilds\/(linux-x64|linux-arm64|win32-x64|darwin-arm64)\/node\.napi(\.glibc|\.musl)?\.node$/,
  /^csrc\/.+\.(h|cc|cu|def|map)$/, /^cmake\/.+\.(cmake|c)$/, /^scripts\/(build-native|targets)\.mjs$/,
  /^demo\/model\/[\w.]+$/, /^benchmarks\/[\w-]+\.schema\.json$/,
]

function packed(): string[] {
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm'
  const answer = execFileSync(npm, ['pack', '--dry-run', '--json', '--ignore-scripts', '--loglevel=error'], {
    cwd: root, encoding: 'utf8', shell: process.platform === 'win32', stdio: ['ignore', 'pipe', 'ignore'],
  })
  return (JSON.parse(answer) as [{ files: { path: string }[] }])[0].files.map(file => file.path)
}

test('the package has what a user needs and nothing else', () => {
  const files = packed()
  expect(files.filter(file => !allowed.some(pattern => pattern.test(file)))).toEqual([])
  const needed = [
    'package.json', 'README.md', 'LICENSE', 'CHANGELOG.md', 'SECURITY.md', 'dist/index.js', 'dist/index.cjs', 'dist/index.d.ts',
    'dist/index.d.cts', 'dist/cli.js', 'demo/model/pytorch_model.bin', 'CMakeLists.txt', 'cmake/addon.cmake', 'csrc/addon.map',
    'csrc/binding/addon.cc', 'csrc/platform/error_codes.def', 'scripts/build-native.mjs', 'scripts/targets.mjs',
  ]
  for (const file of needed) expect(files).toContain(file)
  expect(files).not.toContain('binding.gyp')                  // npm would compile by itself, even from a lockfile
})

test('nothing runs when the package is installed', () => {
  const lifecycle = ['preinstall', 'install', 'postinstall', 'prepublish', 'preprepare', 'prepare', 'postprepare', 'prebuild']
  expect(Object.keys(manifest.scripts).filter(name => lifecycle.includes(name))).toEqual([])
  expect(manifest['gypfile']).toBe(false)
})

test('source builds need only what is installed with the package', () => {
  const imports = [...read('scripts/build-native.mjs').matchAll(/from '([^']+)'/g)].map(match => match[1] ?? '')
  expect(imports.filter(name => !name.startsWith('node:'))).toEqual(['./targets.mjs'])
  expect(Object.keys(manifest.dependencies)).toEqual(expect.arrayContaining(['node-addon-api', 'node-api-headers']))
})

test('the version stands in package.json alone, and the changelog and the program agree', async () => {
  const { version } = manifest
  expect(read('CHANGELOG.md')).toMatch(new RegExp(`^## ${version.replaceAll('.', '\\.')}\\b`, 'm'))
  expect((JSON.parse(read('package-lock.json')) as Manifest).version).toBe(version)
  expect((await polylm(['--version'])).stdout.trim()).toBe(version)
  expect(read('CMakeLists.txt')).toMatch(/^project\(polylm LANGUAGES/m)
})

test('dependencies are pinned, so that what was tested is what is installed', () => {
  for (const range of Object.values(manifest.dependencies)) expect(range).toMatch(/^\d+\.\d+\.\d+$/)
})

test('each promise of SECURITY.md names tests that exist', () => {
  const promises = read('SECURITY.md').split('\n\n').filter(text => /^\d\. \*\*|\n\d\. \*\*/.test(text)).join('\n')
  const sets = [...promises.matchAll(/\((`[^)]*)\.\)/g)].map(match => match[1] ?? '')
  expect(sets).toHaveLength((promises.match(/^\d\. \*\*/gm) ?? []).length)
  for (const set of sets) {
    let folder = ''
    for (const [, name = ''] of set.matchAll(/`([^`]+)`/g)) {
      if (name.startsWith('npm run ')) {
        expect(manifest.scripts).toHaveProperty([name.slice('npm run '.length)])
        continue
      }
      if (name.includes('/')) folder = path.dirname(name)
      const file = path.join(folder, path.basename(name))
      expect([name, ['.test.ts', '.cc'].some(end => existsSync(path.join(root, file + end)))]).toEqual([name, true])
    }
  }
})
