// The cells of the consumer matrix: each is a way to install or run the package as a stranger would. A cell returns
// nothing or a short remark, throws NotRun with a reason, or throws what went wrong. `fast` cells run in CI.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import {
  expectTranslation, install, lab, makeReadOnly, need, nodeOf, NotRun, npmOf, pathWithOnly, project, readJson, root, run, sizeOf, tool,
} from './lab.mjs'

const nodes = ['20.4.0', '20.20.2', '22.23.3', '24.21.0', '26.10.0']
const here = createRequire(path.join(root, 'package.json'))
const node = process.execPath

let shared
/** One installation that cells which only read it share. */
function installed({ tarball }) {
  if (shared === undefined) {
    shared = project('shared')
    install(shared, tarball)
  }
  return shared
}

const slow = 1_200_000          // emulated processors and systems: only something that hangs takes longer

const answer = (program, folder, file, env) => expectTranslation(run(program, [file], { cwd: folder, env }))

// ------------------------------------------------------------------------------------------------- module systems

const typescript = (name, compilerOptions) => ({
  group: 'types', name, fast: true, run(context) {
    const folder = installed(context)
    const config = path.join(folder, `tsconfig.${name.replace(' ', '-')}.json`)
    writeFileSync(config, JSON.stringify({
      compilerOptions: {
        target: 'ES2022', lib: ['ES2022', 'ESNext.Disposable', 'DOM'], strict: true, skipLibCheck: false, noEmit: true,
        typeRoots: [path.join(root, 'node_modules/@types')], types: ['node'], ...compilerOptions,
      },
      files: ['typed.ts'],
    }))
    run(node, [here.resolve('typescript/bin/tsc'), '-p', config], { cwd: folder })
    return `TypeScript ${readJson(here.resolve('typescript/package.json')).version}, its own types checked too`
  },
})

const modules = [
  { group: 'modules', name: 'ESM import', fast: true, run: context => answer(node, installed(context), 'answer.mjs') },
  { group: 'modules', name: 'CJS require', fast: true, run: context => answer(node, installed(context), 'answer.cjs') },
  { group: 'modules', name: 'worker_threads, one terminated', fast: true, run: context => answer(node, installed(context), 'worker.mjs') },
  {
    group: 'modules', name: 'command line, npx polylm', fast: true, run(context) {
      const args = ['polylm', 'generate', '--demo', 'Beijing is the capital of China.\nTranslate this sentence from English to Chinese.']
      expectTranslation(run('npx', ['--no-install', ...args, '--num-beams', '4', '--early-stopping'], { cwd: installed(context) }))
    },
  },
  {
    group: 'modules', name: 'two copies in one process', fast: true, run({ tarball }) {
      const folder = project('two')
      install(folder, tarball, `polylm-again@file:${tarball}`)
      answer(node, folder, 'two.mjs')
    },
  },
  typescript('nodenext', { module: 'nodenext', moduleResolution: 'nodenext' }),
  typescript('bundler', { module: 'esnext', moduleResolution: 'bundler' }),
  // Without @types/node, DOM and disposal; combinations of them are test/e2e/types.test.ts.
  typescript('no platform', { module: 'nodenext', moduleResolution: 'nodenext', lib: ['ES2022'], types: [], typeRoots: [] }),
]

// ------------------------------------------------------------------------------------------------- bundlers

const bundlers = [
  {
    group: 'bundlers', name: 'esbuild, polylm external, ESM and CJS', fast: true, run(context) {
      const folder = installed(context)
      const esbuild = here.resolve('esbuild/bin/esbuild')
      for (const [format, file] of [['esm', 'bundle.mjs'], ['cjs', 'bundle.cjs']]) {
        const entry = format === 'esm' ? 'answer.mjs' : 'answer.cjs'
        const args = [entry, '--bundle', '--platform=node', '--external:polylm', `--format=${format}`, `--outfile=${file}`]
        execFileSync(esbuild, [...args, '--log-level=warning'], { cwd: folder })
        answer(node, folder, file)
      }
      return `esbuild ${readJson(here.resolve('esbuild/package.json')).version}`
    },
  },
  {
    group: 'bundlers', name: 'esbuild without external: the error says so', fast: true, run(context) {
      const folder = installed(context)
      // The programs that are installed with it use top-level await, which CommonJS does not have.
      const use = 'Model.load(demoModel).catch(e => { console.log(JSON.stringify(e)); process.exitCode = 1 })'
      writeFileSync(path.join(folder, 'inside.mjs'), `import { demoModel, Model } from 'polylm'\n${use}\n`)
      writeFileSync(path.join(folder, 'inside.cjs'), `const { demoModel, Model } = require('polylm')\n${use}\n`)
      for (const [entry, format] of [['inside.mjs', 'esm'], ['inside.mjs', 'cjs'], ['inside.cjs', 'cjs']]) {
        const file = `out/${entry}.${format === 'esm' ? 'mjs' : 'cjs'}`
        const args = [entry, '--bundle', '--platform=node', `--format=${format}`, `--outfile=${file}`, '--log-level=error']
        execFileSync(here.resolve('esbuild/bin/esbuild'), args, { cwd: folder })
        let said = ''
        try { run(node, [file], { cwd: folder }) } catch (e) { said = e.message }
        if (!/NO_BINARY/.test(said) || !/leave it out of the bundle/.test(said)) throw new Error(`${entry} as ${format}: no such hint in:\n${said}`)
      }
    },
  },
  {
    group: 'bundlers', name: 'webpack, polylm external', run(context) {
      const folder = installed(context)
      const version = '5.112.2'
      const webpack = tool('webpack', version)
      writeFileSync(path.join(folder, 'webpack.cjs'), `
        const webpack = require(${JSON.stringify(webpack)})
        webpack({ mode: 'production', target: 'node', entry: './answer.cjs', context: __dirname,
          externals: { polylm: 'commonjs polylm' }, output: { path: __dirname + '/packed', filename: 'main.cjs' } },
        (e, stats) => { if (e ?? stats.hasErrors()) { console.error(e ?? stats.toString()); process.exit(1) } })`)
      run(node, ['webpack.cjs'], { cwd: folder })
      answer(node, folder, 'packed/main.cjs')
      return `webpack ${version}`
    },
  },
  {
    group: 'bundlers', name: 'Rollup, polylm external', run(context) {
      const folder = installed(context)
      const version = '4.67.4'
      const args = ['answer.mjs', '--external', 'polylm', '--format', 'es', '--file', 'rolled/main.mjs', '--silent']
      run(node, [path.join(tool('rollup', version), 'dist/bin/rollup'), ...args], { cwd: folder })
      answer(node, folder, 'rolled/main.mjs')
      return `Rollup ${version}`
    },
  },
  {
    group: 'bundlers', name: 'Vite, build --ssr', run(context) {
      const folder = installed(context)
      const version = '8.3.8'
      run(node, [path.join(tool('vite', version), 'bin/vite.js'), 'build', '--ssr', 'answer.mjs', '--outDir', 'vited'], { cwd: folder })
      answer(node, folder, 'vited/answer.mjs')
      return `Vite ${version}, without configuration`
    },
  },
  { group: 'bundlers', name: 'Next.js route, serverExternalPackages', run: nextRoute },
]

function nextRoute({ tarball }) {
  const versions = { next: '16.4.6', react: '19.2.0', 'react-dom': '19.2.0' }
  const folder = project('next', { type: 'module' })
  for (const name of readdirSync(folder)) if (name !== 'package.json') rmSync(path.join(folder, name))
  install(folder, tarball, ...Object.entries(versions).map(([name, version]) => `${name}@${version}`))
  const write = (name, text) => {
    run('mkdir', ['-p', path.dirname(path.join(folder, name))])
    writeFileSync(path.join(folder, name), text)
  }
  write('next.config.mjs', "export default { serverExternalPackages: ['polylm'], typescript: { ignoreBuildErrors: true } }\n")
  write('app/layout.jsx', 'export default function Layout({ children }) { return <html><body>{children}</body></html> }\n')
  write('app/page.jsx', `import { demoModel, Model } from 'polylm'
export default async function Page() {
  const model = await Model.load(demoModel)
  const prompt = 'Beijing is the capital of China.\\nTranslate this sentence from English to Chinese.'
  const { text } = await model.generate(prompt, { numBeams: 4, earlyStopping: true, maxTokens: 64 })
  await model.dispose()
  return <p>{text.trim()}</p>
}
`)
  run(node, [path.join(folder, 'node_modules/next/dist/bin/next'), 'build'], { cwd: folder, timeout: 600_000 })
  const page = path.join(folder, '.next/server/app/index.html')
  if (!existsSync(page)) throw new Error('the build made no page')
  if (!execFileSync('cat', [page], { encoding: 'utf8' }).includes('北京是中国的首都。')) throw new Error('no translation in the page')
  return `Next.js ${versions.next}, the page is rendered by the model while it is built`
}

// ------------------------------------------------------------------------------------------------- places

const places = [
  ...['a project with späces ñ 北京', 'a #project 100%'].map(name => ({
    group: 'places', name: `path "${name}"`, fast: true, run({ tarball }) {
      const folder = project(name)
      install(folder, tarball)
      for (const file of ['answer.mjs', 'answer.cjs']) answer(node, folder, file)
    },
  })),
  {
    group: 'places', name: 'read-only node_modules', fast: true, run({ tarball }) {
      const folder = project('read-only')
      install(folder, tarball)
      makeReadOnly(path.join(folder, 'node_modules'))
      const before = sizeOf(path.join(folder, 'node_modules'))
      // Root may write anywhere; there, that nothing was written is what shows it.
      for (const file of ['answer.mjs', 'answer.cjs']) answer(node, folder, file)
      if (sizeOf(path.join(folder, 'node_modules')) !== before) throw new Error('something was written')
    },
  },
  {
    group: 'places', name: 'no compiler, no CMake, no CUDA on PATH', fast: true, run({ tarball }) {
      const folder = project('bare')
      const npm = realpathSync(need('npm', 'it installs'))
      const bare = { PATH: pathWithOnly(node), CC: '', CXX: '', CUDACXX: '', CUDA_PATH: '' }
      run(node, [npm, 'install', '--ignore-scripts', '--prefer-offline', '--loglevel=error', tarball], { cwd: folder, env: bare })
      for (const file of ['answer.mjs', 'answer.cjs']) answer(node, folder, file, bare)
    },
  },
  {
    group: 'places', name: 'npm ci from a lockfile', fast: true, run({ tarball }) {
      const folder = project('ci')
      install(folder, tarball)
      rmSync(path.join(folder, 'node_modules'), { recursive: true })
      run('npm', ['ci', '--prefer-offline', '--loglevel=error'], { cwd: folder })          // scripts allowed: there must be none
      answer(node, folder, 'answer.mjs')
      return 'scripts allowed, and there are none'
    },
  },
  {
    group: 'places', name: 'uninstall leaves nothing', fast: true, run({ tarball }) {
      const folder = project('uninstall')
      const home = path.join(lab, 'home-uninstall')
      rmSync(home, { recursive: true, force: true })
      run('mkdir', ['-p', path.join(home, 'tmp')])
      const env = { HOME: home, TMPDIR: path.join(home, 'tmp') }
      install(folder, tarball)
      answer(node, folder, 'answer.mjs', env)
      run('npm', ['uninstall', '--ignore-scripts', '--loglevel=error', 'polylm'], { cwd: folder })
      const left = readdirSync(path.join(folder, 'node_modules'), { recursive: true }).filter(name => !/^\.(bin$|package-lock)/.test(name))     // npm's own: an empty folder and a list
      const written = readdirSync(home, { recursive: true }).filter(name => name !== 'tmp')
      if (left.length + written.length > 0) throw new Error(`left: ${[...left, ...written].join(', ')}`)
    },
  },
  {
    group: 'places', name: 'polylm-build from the tarball, offline, CMake alone', run({ tarball }) {
      const folder = project('source')
      install(folder, tarball)
      const unshare = need('unshare', 'it takes the network away')
      const home = path.join(folder, 'node_modules/polylm')
      rmSync(path.join(home, 'prebuilds'), { recursive: true })
      const started = performance.now()
      run(unshare, ['-r', '-n', node, path.join(home, 'scripts/build-native.mjs')], {
        cwd: folder, timeout: 1_800_000, env: { POLYLM_JOBS: '2', POLYLM_CMAKE_POLYLM_CUDA: 'OFF' },
      })
      const seconds = ((performance.now() - started) / 1000).toFixed(0)
      answer(node, folder, 'answer.mjs')
      return `${seconds} s with 2 jobs, no network`
    },
  },
]

// ------------------------------------------------------------------------------------------------- runtimes

const runtimes = [
  ...nodes.map(version => ({
    group: 'runtimes', name: `Node ${version}`, run(context) {
      const program = nodeOf(version)
      for (const file of ['answer.mjs', 'answer.cjs', 'worker.mjs']) answer(program, installed(context), file)
      return 'ESM, CJS, worker_threads'
    },
  })),
  {
    group: 'runtimes', name: 'Bun 1.4.5', run(context) {
      const bun = path.join(tool('@oven/bun-linux-x64', '1.4.5'), 'bin/bun')
      const folder = project('bun')
      run(bun, ['add', '--ignore-scripts', context.tarball], { cwd: folder })
      for (const file of ['answer.mjs', 'answer.cjs', 'worker.mjs']) answer(bun, folder, file)
      return 'bun add; ESM, CJS, worker_threads'
    },
  },
  {
    group: 'runtimes', name: 'Deno 2.9.6', run(context) {
      const deno = path.join(tool('@deno/linux-x64-glibc', '2.9.6'), 'deno')
      const folder = project('deno')
      install(folder, context.tarball)
      for (const file of ['answer.mjs', 'answer.cjs', 'worker.mjs']) {
        expectTranslation(run(deno, ['run', '--allow-all', '--node-modules-dir=manual', file], { cwd: folder }))
      }
      return 'node_modules of npm; ESM, CJS, worker_threads'
    },
  },
]

// ------------------------------------------------------------------------------------------------- package managers

const managers = [
  ...[['11.21.2', undefined], ['12.2.0', '22.23.3']].flatMap(([version, on]) => [
    {
      group: 'package managers', name: `npm ${version}: install, then ci`, run({ tarball }) {
        const folder = project(`npm-${version}`)
        const program = on === undefined ? node : nodeOf(on)
        const npm = args => run(program, [npmOf(version), ...args, '--prefer-offline', '--loglevel=error'], {
          cwd: folder, env: { PATH: `${path.dirname(program)}${path.delimiter}${process.env.PATH}` },
        })
        npm(['install', tarball])
        answer(program, folder, 'answer.mjs')
        rmSync(path.join(folder, 'node_modules'), { recursive: true })
        npm(['ci'])
        answer(program, folder, 'answer.cjs')
        return on === undefined ? '' : `under Node ${on}`
      },
    },
  ]),
  {
    group: 'package managers', name: 'pnpm 12.21.0', run({ tarball }) {
      const folder = project('pnpm')
      const program = nodeOf('22.23.3')
      const store = path.join(lab, 'pnpm-store')
      const file = readdirSync(path.join(tool('pnpm', '12.21.0'), 'bin')).find(name => /^pnpm\.[cm]?js$/.test(name))
      run(program, [path.join(tool('pnpm', '12.21.0'), 'bin', file), 'add', '--ignore-scripts', '--store-dir', store, tarball], {
        cwd: folder, env: { PATH: `${path.dirname(program)}${path.delimiter}${process.env.PATH}` },
      })
      for (const name of ['answer.mjs', 'answer.cjs']) answer(program, folder, name)
      return 'linked from its store'
    },
  },
  ...['node-modules', 'pnp'].map(linker => ({
    group: 'package managers', name: `yarn 4.18.1, ${linker}`, run({ tarball }) {
      const folder = project(`yarn-${linker}`)
      const yarn = args => run(node, [path.join(tool('@yarnpkg/cli-dist', '4.18.1'), 'bin/yarn.js'), ...args], {
        cwd: folder, env: { YARN_NODE_LINKER: linker, YARN_ENABLE_IMMUTABLE_INSTALLS: 'false', YARN_ENABLE_SCRIPTS: 'false' },
      })
      writeFileSync(path.join(folder, 'yarn.lock'), '')                   // a project of its own, not part of the one above
      yarn(['add', `polylm@file:${tarball}`])
      for (const name of ['answer.mjs', 'answer.cjs']) expectTranslation(yarn(['node', name]))
    },
  })),
  {
    group: 'package managers', name: 'yarn 1.22.22', run({ tarball }) {
      const folder = project('yarn-classic')
      run(node, [path.join(tool('yarn', '1.22.22'), 'bin/yarn.js'), 'add', '--ignore-scripts', '--silent', `file:${tarball}`], { cwd: folder })
      for (const name of ['answer.mjs', 'answer.cjs']) answer(node, folder, name)
    },
  },
]

// ------------------------------------------------------------------------------------------------- other machines

function foreign(context, target) {
  const home = path.join(installed(context), 'node_modules/polylm/prebuilds', target)
  if (!existsSync(home)) throw new NotRun(`the tarball has no binary for ${target}: npm run prebuilds -- ${target}`)
}

/** The libraries and the loader of glibc 2.17, which a package for cross compilers brings along. */
function oldGlibc(cpu, version) {
  const folder = path.join(lab, `glibc-2.17-${cpu}`)
  const libraries = path.join(folder, 'sysroot/lib')
  if (!existsSync(path.join(libraries, 'ld-2.17.so'))) {
    need('xz', 'the package is an .xz')
    const name = `${cpu}-unknown-linux-gnu`
    const archive = path.join(tool(`@napi-rs/cross-toolchain-x64-target-${cpu}`, version), `${name}.tar.xz`)
    mkdirSync(folder, { recursive: true })
    run('tar', ['xJf', archive, '-C', folder, '--strip-components=2', '--wildcards', `./${name}/sysroot/lib/*.so*`])
  }
  return libraries
}

/** Node 16 is the newest official one for glibc 2.17; old-node.cjs gives it what polylm expects of Node 20. */
function onOldGlibc(folder, command, isas) {
  const [program, ...args] = command
  const glibc = run(program, [...args, '-p', 'process.report.getReport().header.glibcVersionRuntime']).trim()
  if (glibc !== '2.17') throw new Error(`this is glibc ${glibc}`)
  for (const isa of isas) {
    expectTranslation(run(program, [...args, '-r', './old-node.cjs', 'answer.cjs'], { cwd: folder, timeout: slow, env: { POLYLM_ISA: isa } }))
  }
  return `Node 16.20.2 with three functions of Node 20 added; CJS; ${isas.map(isa => isa || 'the best instruction set').join(', ')}`
}

function arm64Emulator(context) {
  foreign(context, 'linux-arm64')
  return need('qemu-aarch64-static', 'user-mode emulation')
}

const machines = [
  ...['20.20.2', '24.22.0'].map(version => ({
    group: 'other machines', name: `linux-arm64, Node ${version} under qemu`, run(context) {
      const qemu = arm64Emulator(context)
      const sysroot = '/usr/aarch64-linux-gnu'
      if (!existsSync(path.join(sysroot, 'lib/ld-linux-aarch64.so.1'))) throw new NotRun('no arm64 libraries (g++-aarch64-linux-gnu)')
      const program = nodeOf(version, 'linux-arm64')
      for (const file of ['answer.mjs', 'answer.cjs', 'worker.mjs']) {
        expectTranslation(run(qemu, ['-L', sysroot, program, file], { cwd: installed(context), timeout: slow }))
      }
      return 'ESM, CJS, worker_threads'
    },
  })),
  {
    group: 'other machines', name: 'linux-x64, glibc 2.17', run(context) {
      const libraries = oldGlibc('x86_64', '1.0.0')
      const command = [path.join(libraries, 'ld-2.17.so'), '--library-path', libraries, nodeOf('16.20.2')]
      return onOldGlibc(installed(context), command, ['scalar', ''])
    },
  },
  {
    group: 'other machines', name: 'linux-arm64, glibc 2.17 under qemu', run(context) {
      const sysroot = path.resolve(oldGlibc('aarch64', '1.0.3'), '..')
      const command = [arm64Emulator(context), '-cpu', 'max', '-L', sysroot, nodeOf('16.20.2', 'linux-arm64')]
      return onOldGlibc(installed(context), command, ['scalar', 'neon', 'neonbf16'])
    },
  },
  ...['20.20.2', '22.23.3'].map(version => ({
    group: 'other machines', name: `win32-x64, Node ${version} under wine`, run(context) {
      foreign(context, 'win32-x64')
      const wine = need('wine64', 'it runs Windows programs')
      const program = nodeOf(version, 'win32-x64')
      const folder = installed(context)
      const env = { WINEPREFIX: path.join(lab, 'wine'), WINEDEBUG: '-all', NODE_SKIP_PLATFORM_CHECK: '1' }
      for (const file of ['answer.mjs', 'answer.cjs', 'worker.mjs']) {
        // Node cannot open pipes in wine 8: files take what it prints.
        run('sh', ['-c', `"${wine}" "${program}" ${file} > out.txt 2> err.txt || { cat out.txt err.txt; exit 1; }`], { cwd: folder, env, timeout: slow })
        expectTranslation(readFileSync(path.join(folder, 'out.txt'), 'utf8'))
      }
      return 'ESM, CJS, worker_threads'
    },
  })),
  ...['Nehalem', 'Haswell'].map(cpu => ({
    group: 'other machines', name: `an x86-64 processor of ${cpu === 'Nehalem' ? '2008' : '2013'} (${cpu}) under qemu`, run(context) {
      const qemu = need('qemu-x86_64-static', 'user-mode emulation')
      expectTranslation(run(qemu, ['-cpu', cpu, nodeOf('20.20.2'), 'answer.mjs'], { cwd: installed(context), timeout: slow }))
      return cpu === 'Nehalem' ? 'no AVX: the scalar kernels' : 'AVX2'
    },
  })),
  ...[
    ['linux-x64 musl (Alpine)', 'no C++ library for musl on this system, no Alpine machine'],
    ['darwin-arm64 (macOS)', 'no macOS machine'], ['real Windows', 'no Windows machine'], ['real arm64', 'no arm64 machine'],
    ['Electron', 'its npm package downloads the program from elsewhere'],
  ].map(([name, reason]) => ({ group: 'other machines', name, run() { throw new NotRun(reason) } })),
]

// ------------------------------------------------------------------------------------------------- linters

const linters = [
  {
    group: 'package', name: 'publint 0.3.25', run({ tarball }) {
      const said = run(node, [path.join(tool('publint', '0.3.25'), 'src/cli.js'), 'run', tarball, '--strict'])
      if (!/All good/.test(said)) throw new Error(said)
    },
  },
  {
    group: 'package', name: 'are-the-types-wrong 0.18.5', run({ tarball }) {
      run(node, [path.join(tool('@arethetypeswrong/cli', '0.18.5'), 'dist/index.js'), tarball, '--no-emoji', '--format', 'ascii'])
    },
  },
]

export const cells = [...linters, ...modules, ...bundlers, ...places, ...runtimes, ...managers, ...machines]
