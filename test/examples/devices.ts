// Which devices there are, and why the others are not used.
import { Model } from '../../lib/index.js'

for (const { kind, name, usable, isa, reason } of await Model.devices()) {
  console.log(kind, name, usable ? `usable (${isa ?? 'any'})` : `not usable: ${reason}`)
}
