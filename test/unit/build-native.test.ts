// build-native.test.ts: the build script with a CMake that only notes its arguments: a clone that was moved.
import { spawnSync } from 'node:child_process'
import {
  chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, renameSync, rmSync, symlinkSync, writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const scripts = path.resolve(__dirname, '../../scripts')
let folder: string
beforeEach(() => { folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'polylm-'))) })
afterEach(() => { rmSync(folder, { recursive: true }) })

// Like CMake: configuring writes the cache and a Makefile with the paths of today, building makes the addon.
const cmake = `#!/bin/sh
echo "$@" >> "$NOTES"
case "$1" in
  --version) echo "cmake version 3.25.1";;
  --build) echo addon > "$2/polylm.node";;
  *) mkdir -p "$4" && touch "$4/Makefile"
    printf 'CMAKE_CACHEFILE_DIR:INTERNAL=%s\\nCMAKE_HOME_DIRECTORY:INTERNAL=%s\\n' "$4" "$2" > "$4/CMakeCache.txt";;
esac
`

function build(clone: string): { status: number | null; stdout: string; stderr: string; ran: string[] } {
  const bin = path.join(folder, 'bin')
  const notes = path.join(folder, 'notes')
  mkdirSync(bin, { recursive: true })
  writeFileSync(path.join(bin, 'cmake'), cmake)
  writeFileSync(path.join(bin, 'c++'), '#!/bin/sh\necho "g++ (Debian) 12.2.0"\n')
  for (const name of ['cmake', 'c++']) chmodSync(path.join(bin, name), 0o755)
  writeFileSync(notes, '')
  const env = { PATH: `${bin}:${process.env['PATH'] ?? ''}`, NOTES: notes }
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(clone, 'scripts/build-native.mjs')], { encoding: 'utf8', env })
  const ran = readFileSync(notes, 'utf8').trim().split('\n').filter(line => line !== '--version')
  return { status, stdout, stderr, ran: ran.map(line => (line.startsWith('--build') ? 'build' : 'configure')) }
}

if (process.platform !== 'win32') {
  test('a clone that was moved is configured anew, in its new place; one that was not is only built', () => {
    const clone = path.join(folder, 'before')
    cpSync(scripts, path.join(clone, 'scripts'), { recursive: true })
    expect(build(clone)).toMatchObject({ status: 0, stderr: '', ran: ['configure', 'build'] })
    expect(build(clone)).toMatchObject({ status: 0, stderr: '', ran: ['build'] })
    const target = path.join('build-cmake', `${process.platform}-${process.arch}-Release`)
    writeFileSync(path.join(clone, target, 'old.o'), '')

    const moved = path.join(folder, 'after it was moved')
    renameSync(clone, moved)
    const after = build(moved)
    expect(after).toMatchObject({ status: 0, stderr: '', ran: ['configure', 'build'] })
    expect(after.stdout).toContain(`was configured in ${clone}, and this is ${moved}: it is built anew`)
    const there = [path.join(target, 'old.o'), 'build/Release/polylm.node'].map(name => existsSync(path.join(moved, name)))
    expect(there).toEqual([false, true])
    expect(build(moved)).toMatchObject({ ran: ['build'] })

    symlinkSync(moved, clone)                             // another name of the same place is not another place
    expect(build(clone)).toMatchObject({ status: 0, ran: ['build'] })
  })
}
