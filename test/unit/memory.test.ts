// memory.test.ts: which device memory is asked of: the one the model will run on.
import { deviceFor } from '../../lib/memory.js'
import type { NativeDevice } from '../../lib/native.js'

const device = (kind: string, freeBytes: number, proven = true, usable = true): NativeDevice =>
  ({ kind, name: kind, isa: '', usable, proven, reason: '', memoryBytes: freeBytes, freeBytes })
const cpu = device('cpu', 50)
const kindOf = (devices: NativeDevice[], name: string, weights: number): string => deviceFor(devices, name, weights).kind

test("'auto' is the proven GPU with the most free memory, when the weights fit it", () => {
  expect(kindOf([cpu, device('cuda', 100), device('cuda', 200)], 'auto', 150)).toBe('cuda:1')
  expect(kindOf([cpu, device('cuda', 100), device('cuda', 200, false)], 'auto', 90)).toBe('cuda:0')
  expect(kindOf([cpu, device('cuda', 100), device('cuda', 200, true, false)], 'auto', 150)).toBe('cpu')
  expect(deviceFor([cpu, device('cuda', 0, false, false)], 'auto', 1)).toEqual({ kind: 'cpu', found: cpu })
})

test('a named device is that device, and none where it does not exist', () => {
  const devices = [cpu, device('cuda', 100), device('cuda', 200)]
  expect(deviceFor(devices, 'cuda', 1).found).toBe(devices[1])
  expect(deviceFor(devices, 'cuda:1', 1).found).toBe(devices[2])
  expect(deviceFor(devices, 'cuda:7', 1).found).toBeUndefined()
  expect(deviceFor(devices, 'cpu', 1).found).toBe(cpu)
  expect(deviceFor(devices, 'ref', 1)).toEqual({ kind: 'ref', found: cpu })
})
