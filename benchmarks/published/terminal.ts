// terminal.ts: what scripts/terminal-svg.mjs needs, bundled.
export { columnsOf, Screen } from './screen.js'
export { drawTerminal } from './terminal-picture.js'
