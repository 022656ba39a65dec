// terminal-picture.test.ts: the picture of the command line: what a program writes becomes what a person sees, and the
// committed picture has its scenes.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { columnsOf, Screen } from '../../benchmarks/published/screen.js'
import { drawTerminal } from '../../benchmarks/published/terminal-picture.js'
import { root } from '../tidy/files.js'
import { elementsOf } from '../xml.js'

function seen(output: string, columns = 20): string[] {
  const screen = new Screen(columns)
  screen.write(output)
  return screen.rows().map(runs => runs.map(({ column, text }) => `${column}:${text}`).join(' '))
}

test('lines, carriage returns, wrapping, erased lines, saved places', () => {
  expect(seen('\r\n one \r\ntwo\rT')).toEqual(['', '0: one', '0:Two'])
  expect(seen('abcdef', 4)).toEqual(['0:abcd', '0:ef'])
  expect(seen('\x1b[?7labcdef', 4)).toEqual(['0:abcd'])
  expect(seen('10%\x1b[1G20%\x1b[0K\x1b[1G\x1b[2Kdone\r\n')).toEqual(['0:done'])
  expect(seen('\x1b7ab\x1b8c')).toEqual(['0:cb'])
  expect(seen('a\r\nb\x1b[1A\x1b[3Gc\x1b[0J')).toEqual(['0:a c'])
  expect(seen('\x1b]0;title\x07a\tb\x08c')).toEqual(['0:a       c'])
})

test('wide characters take two columns, marks none, and neither moves what follows', () => {
  expect(['a', '北', 'ี', '가', '。'].map(columnsOf)).toEqual([1, 2, 0, 2, 2])
  expect(seen('北京 ok')).toEqual(['0:北京 4: ok'])
  expect(seen('กีx')).toEqual(['0:กี 1:x'])
  expect(seen('北京市', 5)).toEqual(['0:北京', '0:市'])
})

test('colours', () => {
  const screen = new Screen(20)
  screen.write('\x1b[36m> \x1b[0mhi \x1b[1;31mno\x1b[39;22m.')
  expect(screen.rows()[0]?.map(({ text, color, bold }) => [text, color, bold])).toEqual([
    ['> ', 36, undefined], ['hi ', undefined, undefined], ['no', 31, true], ['.', undefined, undefined]])
  const svg = drawTerminal('a & b', [{ kind: 'printed', runs: screen.rows()[0] ?? [] }, { kind: 'typed', runs: [] }], 20)
  expect(elementsOf(svg).filter(name => name === 'tspan')).toHaveLength(4)
})

test('the committed picture has every scene, untrimmed, and no path of the machine that made it', () => {
  const svg = readFileSync(path.join(root, 'docs/terminal.svg'), 'utf8')
  elementsOf(svg)
  const text = svg.replace(/<[^>]*>/g, '')
  const commands = ['generate --demo', '--num-beams 4', 'Chinese', 'Thai', '--output-text', 'chat --demo']
  for (const command of commands) expect(text).toContain(command)
  expect(text).toMatch(/\[=+ +\] \d+%/)
  expect(text).not.toMatch(/\/tmp\/|\/home\/|dist\/cli/)
})
