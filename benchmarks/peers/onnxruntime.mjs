// onnxruntime.mjs: how fast onnxruntime-node multiplies at PolyLM 1.7B's shapes, in float32: it has no bfloat16 products on
// CPUs. Writes an ONNX file itself (the products of some layers, nothing else) and runs it:
//   node benchmarks/peers/onnxruntime.mjs FOLDER [--threads 4] [--rows 1,128,512] [--layers 6] [--repeats 5] [--smoke]
// FOLDER is where onnxruntime-node was installed from npm. Prints JSON lines. Tokens/s are those of the 24 layers' products
// alone: an upper bound of what a model could reach, without attention, norms and the output layer.
import { mkdtempSync, readFileSync, rmSync, writeSync, openSync, closeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { parseArgs } from 'node:util'

const { positionals: [folder], values: flags } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: '4' }, rows: { type: 'string', default: '1,128,512' },
    layers: { type: 'string', default: '6' }, repeats: { type: 'string', default: '5' }, smoke: { type: 'boolean', default: false },
    out: { type: 'string' },
  },
})
const scale = flags.smoke ? 32 : 1
const [hidden, inner] = [2048 / scale, 8192 / scale]
const layers = flags.smoke ? 2 : Number(flags.layers)
const repeats = flags.smoke ? 1 : Number(flags.repeats)

// Protocol buffers, as far as ONNX needs them: varints, and fields that are strings, numbers or messages.
const varint = value => {
  const bytes = []
  for (let rest = BigInt(value); ; rest >>= 7n) {
    if (rest < 128n) return Buffer.from([...bytes, Number(rest)])
    bytes.push(Number(rest & 127n) | 128)
  }
}
const number = (field, value) => Buffer.concat([varint(field << 3), varint(value)])
const message = (field, ...parts) => {
  const body = Buffer.concat(parts.map(part => (typeof part === 'string' ? Buffer.from(part) : part)))
  return Buffer.concat([varint((field << 3) | 2), varint(body.length), body])
}

const float = 1
const products = [['qkv', hidden, 3 * hidden], ['out', hidden, hidden], ['up', hidden, inner], ['down', inner, hidden]]
const node = (kind, inputs, output, ...attributes) =>
  message(1, ...inputs.map(name => message(1, name)), message(2, output), message(4, kind), ...attributes)
const tensorType = (name, columns) => [
  message(1, name), message(2, message(1, number(1, float), message(2, message(1, message(2, 'rows')), message(1, number(1, columns)))))]

/** Writes the products of all layers one after another; `qkv` is cut to its first third. Gives the file's size. */
function writeModel(file) {
  const nodes = []
  const constants = []
  let x = 'x'
  for (let layer = 0; layer < layers; layer++) {
    for (const [name, k, n] of products) {
      const weight = `${name}${layer}`
      constants.push({ weight, k, n })
      nodes.push(node('MatMul', [x, weight], `y${weight}`))
      x = `y${weight}`
      if (name !== 'qkv') continue
      nodes.push(node('Slice', [x, 'from', 'to', 'axis'], `q${layer}`))
      x = `q${layer}`
    }
  }
  nodes.push(node('Identity', [x], 'y'))
  const integers = [['from', 0], ['to', hidden], ['axis', 1]].map(([name, value]) => {
    const raw = Buffer.alloc(8)
    raw.writeBigInt64LE(BigInt(value))
    return message(5, number(1, 1), number(2, 7), message(8, name), message(9, raw))
  })
  const random = new Float32Array(1 << 20)
  let state = 7
  for (let i = 0; i < random.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    random[i] = (state / 2 ** 31 - 1) / 64
  }
  const block = Buffer.from(random.buffer)
  const headOf = ({ weight, k, n }) => Buffer.concat([number(1, k), number(1, n), number(2, float), message(8, weight)])
  const sized = constants.map(one => {
    const bytes = 4 * one.k * one.n
    const head = Buffer.concat([headOf(one), varint((9 << 3) | 2), varint(bytes)])
    return { bytes, start: Buffer.concat([varint((5 << 3) | 2), varint(head.length + bytes), head]) }
  })
  const rest = [...nodes, message(2, 'products'), ...integers, message(11, ...tensorType('x', hidden)), message(12, ...tensorType('y', hidden))]
  const graphBytes = rest.reduce((sum, part) => sum + part.length, 0) +
    sized.reduce((sum, { start, bytes }) => sum + start.length + bytes, 0)
  const out = openSync(file, 'w')
  let size = 0
  const put = bytes => { size += bytes.length; for (let at = 0; at < bytes.length;) at += writeSync(out, bytes, at) }
  put(Buffer.concat([number(1, 8), message(8, message(1, ''), number(2, 17)), varint((7 << 3) | 2), varint(graphBytes), ...rest]))
  for (const { start, bytes } of sized) {
    put(start)
    for (let done = 0; done < bytes; done += block.length) put(block.subarray(0, Math.min(block.length, bytes - done)))
  }
  closeSync(out)
  return size
}

if (flags.out !== undefined) {
  console.log(JSON.stringify({ file: flags.out, bytes: writeModel(flags.out) }))
  process.exit(0)
}
if (folder === undefined) {
  console.error('usage: node onnxruntime.mjs FOLDER [--threads 4] [--rows 1,128,512] [--layers 6] [--repeats 5] [--smoke]')
  process.exit(2)
}
const require = createRequire(path.resolve(folder, 'package.json'))
const { version } = JSON.parse(readFileSync(path.resolve(folder, 'node_modules/onnxruntime-node/package.json'), 'utf8'))
const { InferenceSession, Tensor } = require('onnxruntime-node')
const temporary = mkdtempSync(path.join(tmpdir(), 'polylm-onnx-'))
try {
  const file = path.join(temporary, 'products.onnx')
  writeModel(file)
  const session = await InferenceSession.create(file, { intraOpNumThreads: Number(flags.threads), executionProviders: ['cpu'] })
  const weights = layers * products.reduce((sum, [, k, n]) => sum + k * n, 0)
  for (const rows of flags.smoke ? [4] : flags.rows.split(',').map(Number)) {
    const x = new Tensor('float32', Float32Array.from({ length: rows * hidden }, (_, i) => (i % 17) / 17), [rows, hidden])
    await session.run({ x })
    const seconds = []
    for (let i = 0; i < repeats; i++) {
      const started = performance.now()
      await session.run({ x })
      seconds.push((performance.now() - started) / 1000)
    }
    seconds.sort((a, b) => a - b)
    const middle = seconds[Math.floor(repeats / 2)]
    console.log(JSON.stringify({
      engine: 'onnxruntime-node', version, dtype: 'float32', rows, threads: Number(flags.threads), layers,
      teraflopsPerSecond: 2 * rows * weights / middle / 1e12, gigabytesPerSecond: 4 * weights / middle / 1e9,
      tokensPerSecondAtMost: rows / (middle * 24 / layers), min: rows / (seconds.at(-1) * 24 / layers), max: rows / (seconds[0] * 24 / layers),
    }))
  }
} finally {
  rmSync(temporary, { recursive: true })
}
