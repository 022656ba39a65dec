// sentencepiece-writer.ts: writes tokenizer.model files, right and wrong ones, for tests.

/** A piece of the vocabulary; `type` as in ModelProto (1 normal ... 6 byte). */
export interface WrittenPiece {
  readonly text: string | Uint8Array
  readonly score?: number
  readonly type?: number
}

/** What else may be said; undefined leaves a field out. */
export interface WrittenModel {
  readonly pieces: readonly WrittenPiece[]
  readonly modelType?: number
  readonly byteFallback?: boolean
  readonly charsmap?: Uint8Array
  readonly addDummyPrefix?: boolean
  readonly removeExtraWhitespaces?: boolean
}

/** A varint. */
export function varint(value: number | bigint): Buffer {
  const bytes: number[] = []
  let rest = BigInt(value)
  while (rest > 127n) {
    bytes.push(Number(rest & 127n) | 128)
    rest >>= 7n
  }
  bytes.push(Number(rest))
  return Buffer.from(bytes)
}

/** Tag of a field. */
export function tag(field: number, wire: number): Buffer {
  return varint(field * 8 + wire)
}

/** A length-delimited field. */
export function bytesField(field: number, content: Uint8Array): Buffer {
  return Buffer.concat([tag(field, 2), varint(content.length), content])
}

/** A varint field. */
export function numberField(field: number, value: number | bigint): Buffer {
  return Buffer.concat([tag(field, 0), varint(value)])
}

/** A float field. */
export function floatField(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeFloatLE(value)
  return Buffer.concat([tag(field, 5), bytes])
}

/** A piece as a field of the model. */
export function pieceField({ text, score = 0, type }: WrittenPiece): Buffer {
  const parts = [bytesField(1, Buffer.from(text)), floatField(2, score)]
  if (type !== undefined) parts.push(numberField(3, type))
  return bytesField(1, Buffer.concat(parts))
}

/** trainer_spec and normalizer_spec. */
export function specFields(model: Omit<WrittenModel, 'pieces'>): Buffer {
  const trainer = [numberField(3, model.modelType ?? 1)]
  if (model.byteFallback === true) trainer.push(numberField(35, 1))
  const normalizer = [bytesField(1, Buffer.from('identity'))]
  if (model.charsmap !== undefined) normalizer.push(bytesField(2, model.charsmap))
  if (model.addDummyPrefix !== undefined) normalizer.push(numberField(3, +model.addDummyPrefix))
  normalizer.push(numberField(4, +(model.removeExtraWhitespaces ?? false)))
  return Buffer.concat([
    bytesField(2, Buffer.concat(trainer)), bytesField(3, Buffer.concat(normalizer)),
  ])
}

/** The whole file. */
export function modelFile(model: WrittenModel): Buffer {
  return Buffer.concat([...model.pieces.map(pieceField), specFields(model)])
}

/**
 * A character map for so many `a` in a row. The children of the n-th lie around unit 256 n; those of the last around
 * 256 `next`, where `next` is given: a rule without an end.
 */
export function charsmapOfRun(count: number, next = count + 1): Buffer {
  const units = new Uint32Array(256 * (count + 2)).fill(2 ** 31)            // nobody's children
  units[0] = 256 << 10
  for (let n = 1; n <= count; n++) {
    const at = 256 * n + 97
    const children = 256 * (n === count ? next : n + 1)
    units[at] = ((at ^ children) << 10) | (n === count ? 256 : 0) | 97
  }
  const size = Buffer.alloc(4)
  size.writeUInt32LE(units.byteLength)
  return Buffer.concat([size, Buffer.from(units.buffer), Buffer.from('y\0')])
}

/** unk, bos and eos, then a few letters: a valid vocabulary. */
export const smallPieces: readonly WrittenPiece[] = [
  { text: '<unk>', type: 2 }, { text: '<s>', type: 3 }, { text: '</s>', type: 3 },
  { text: '▁', score: -1 }, { text: 'a', score: -2 }, { text: 'b', score: -3 },
  { text: 'ab', score: -4 }, { text: '▁a', score: -5 },
]

/** The 256 byte pieces. */
export const bytePieces: readonly WrittenPiece[] = Array.from({ length: 256 }, (_, byte) => ({
  text: `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, type: 6,
}))

/** A vocabulary of `size` different pieces, of lengths as in real ones (about 6 characters). */
export function syntheticPieces(size: number): WrittenPiece[] {
  const letters = 'aeionrstlcdmupghbyfvkwzxjqáéíóúñçãõüöäßšžčćłışğабвгдежзийклмнопрстуфхцчшщьюя'
  const pieces: WrittenPiece[] = [...smallPieces.slice(0, 3), ...bytePieces]
  pieces.push(...`▁ABEGLNTWZ.,${letters}`.split('').map(text => ({ text, score: -12 })))
  for (let i = 0; pieces.length < size; i++) {
    let text = i % 3 === 0 ? '▁' : ''
    for (let rest = i + 1; rest > 0; rest = Math.floor(rest / letters.length)) {
      text += letters[rest % letters.length]
    }
    text += `${letters[i % 7]}${letters[i % 11]}`
    pieces.push({ text: `${text}${i % 5 === 0 ? 'ing' : ''}${i}`, score: -Math.log(i + 2) })
  }
  return pieces
}
