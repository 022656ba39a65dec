// doctor.ts: `polylm doctor`: what this machine offers, what polylm uses of it, and what to do about the rest.
// It must work when nothing else does: every question that fails becomes a line of the answer.
import { execFile } from 'node:child_process'
import { cpus, freemem, totalmem } from 'node:os'
import { promisify } from 'node:util'
import { Command } from 'commander'
import { isPolyLMError, Model } from '../index.js'
import type { DeviceInfo } from '../index.js'
import { oneLine } from '../checkpoint/text.js'
import { describePlace, withoutPlaces } from '../binary.js'
import { findBinary, loadNative } from '../native.js'
import { exitCodes, QuietFailure } from './failure.js'
import { bytes, paint, print, printJson, table } from './terminal.js'
import { version } from './version.js'

const examples = `
Examples:
  polylm doctor
  POLYLM_ISA=avx2 polylm doctor --json`

interface Diagnosis {
  readonly polylm: {
    readonly version: string
    readonly binary: 'found' | 'missing'
    /** The file that is loaded. */
    readonly file?: string
    /** Where it was looked for, the first first, and what is there. */
    readonly searched: readonly string[]
    readonly compiler?: string
    readonly cudaBuilt?: boolean
    readonly problem?: string
    readonly hint?: string
  }
  readonly node: { readonly version: string; readonly npm: string; readonly platform: string; readonly libc?: string }
  readonly cpu: { readonly model: string; readonly cores: number; readonly forcedIsa?: string }
  readonly memory: { readonly total: number; readonly free: number; readonly limit?: number }
  readonly devices: readonly DeviceInfo[]
  /** What to do; empty when everything is in order. */
  readonly advice: readonly string[]
}

/** The `doctor` command. */
export function doctorCommand(): Command {
  const command = new Command('doctor')
    .description('check the installation: binary, devices, memory, and what to fix')
    .option('--json', 'print one JSON object')
  return command.addHelpText('after', examples).action(async () => {
    const diagnosis = await diagnose()
    if (command.getOptionValue('json') === true) await printJson(diagnosis)
    else await print(asText(diagnosis))
    const usable = diagnosis.polylm.binary === 'found' && diagnosis.devices.some(device => device.usable)
    if (!usable) throw new QuietFailure(exitCodes.failed)
  })
}

async function diagnose(): Promise<Diagnosis> {
  const devices = await Model.devices()
  const cpu = devices.find(({ kind }) => kind === 'cpu')       // without a binary it knows no memory
  const facts = {
    polylm: binary(),
    node: {
      version: process.versions.node, npm: await npmVersion(),
      platform: `${process.platform}-${process.arch}`, ...libc(),
    },
    cpu: { model: cpus()[0]?.model.trim() ?? 'unknown', cores: cpus().length, ...forcedIsa() },
    memory: { total: totalmem(), free: cpu !== undefined && cpu.memory > 0 ? cpu.free : freemem(), ...memoryLimit() },
    devices,
  }
  return { ...facts, advice: adviceFor(facts) }
}

function binary(): Diagnosis['polylm'] {
  const { file, places } = findBinary()
  const searched = places.map(describePlace)
  try {
    const { compiler, cuda } = loadNative().describe()
    return {
      version: version(), binary: 'found', ...(file === undefined ? {} : { file }), searched, compiler, cudaBuilt: cuda,
    }
  } catch (e) {
    const problem = withoutPlaces(e instanceof Error ? e.message : String(e))
    const hint = isPolyLMError(e) ? e.hint : undefined
    return {
      version: version(), binary: 'missing', ...(file === undefined ? {} : { file }), searched, problem,
      ...(hint === undefined ? {} : { hint }),
    }
  }
}

async function npmVersion(): Promise<string> {
  try {
    const shell = process.platform === 'win32'                  // npm is a script there
    const { stdout } = await promisify(execFile)('npm', ['--version'], { timeout: 10_000, shell })
    return stdout.trim()
  } catch {
    return 'not found'
  }
}

function libc(): { libc?: string } {
  const header = (process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined)?.header
  if (process.platform !== 'linux') return {}
  return { libc: header?.glibcVersionRuntime === undefined ? 'not glibc' : `glibc ${header.glibcVersionRuntime}` }
}

function forcedIsa(): { forcedIsa?: string } {
  const isa = process.env['POLYLM_ISA']
  return isa === undefined || isa === '' ? {} : { forcedIsa: isa }
}

/** A container's memory limit, where there is one below the machine's memory. */
function memoryLimit(): { limit?: number } {
  const limit = process.constrainedMemory()
  return limit > 0 && limit < totalmem() ? { limit } : {}
}

function adviceFor({ polylm, node, devices, memory }: Omit<Diagnosis, 'advice'>): string[] {
  const list: string[] = []
  if (polylm.binary === 'missing') {
    list.push(polylm.hint ?? 'compile the native part: npx polylm-build')
  }
  if (Number(node.version.split('.')[0]) < 20) list.push('polylm needs Node 20.4 or newer')
  if (polylm.binary === 'found' && !devices.some(device => device.usable)) {
    list.push('No usable device. See the reasons above.')
  }
  const usable = Math.min(memory.limit ?? Infinity, memory.free)
  if (usable < 5e9) list.push(`${bytes(usable)} of memory: enough for the demo model, not for PolyLM 1.7B (5 GB)`)
  return list
}

function asText({ polylm, node, cpu, memory, devices, advice: list }: Diagnosis): string {
  const found = polylm.binary === 'found'
  const head = table([
    ['polylm', polylm.version],
    ['binary', found ? `found, compiler ${polylm.compiler}, ${polylm.cudaBuilt === true ? 'with' : 'without'} CUDA`
      : paint('red', `missing: ${oneLine(polylm.problem ?? '')}`)],
    ...(found && polylm.file !== undefined
      ? [['file', oneLine(polylm.file)]]
      : polylm.searched.map(line => ['looked in', oneLine(line)])),
    ['node', `${node.version}, npm ${node.npm}, ${node.platform}${node.libc === undefined ? '' : `, ${node.libc}`}`],
    ['cpu', `${cpu.model}, ${cpu.cores} cores${cpu.forcedIsa === undefined ? '' : `, POLYLM_ISA=${cpu.forcedIsa}`}`],
    ['memory', `${bytes(memory.free)} free of ${bytes(memory.total)}` +
      (memory.limit === undefined ? '' : `, limited to ${bytes(memory.limit)}`)],
    ...devices.map(device => [`device ${device.kind}`, deviceLine(device)]),
  ])
  const todo = list.length === 0
    ? `${paint('green', 'No problems found.')}\n`
    : list.map(line => `- ${line}\n`).join('')
  return `${head}\n${todo}`
}

function deviceLine(device: DeviceInfo): string {
  const isa = device.isa === undefined ? '' : `(${device.isa})`
  const state = device.usable ? paint('green', 'usable') : paint('yellow', 'not usable')
  const reason = device.reason === undefined ? '' : `(${device.reason})`
  return [device.name, isa, state, reason].filter(part => part !== '').join(' ')
}
