// sentencepiece-model.ts: tokenizer.model, a protocol buffer, to plain tables: one buffer with all
// pieces and typed arrays beside it. Reads what the tokenizer needs and checks the structure of the
// rest; what the values must satisfy, the core checks. Yields every few milliseconds.

import { PolyLMError } from '../errors.js'
import { withFile } from '../checkpoint/file.js'
import { Slicer } from '../checkpoint/slicer.js'
import { mistakenFor, sniffBytes, type Mistaken } from '../checkpoint/sniff.js'
import { quotePath } from '../checkpoint/text.js'
import { protoError, ProtoReader, wireBytes, wireFixed32, wireVarint } from './proto.js'

/** Larger model files are refused. */
export const maxModelBytes = 256 * 1024 * 1024
/** More pieces are refused. */
export const maxPieces = 2 ** 20

/** What tokenizer.model says, not yet validated. */
export interface SentencePieceModel {
  readonly kind: 'unigram' | 'bpe'
  /** All pieces, UTF-8, one after another. */
  readonly blob: Uint8Array
  /** Where each piece begins in `blob`, and where the last one ends. */
  readonly offsets: Uint32Array
  readonly scores: Float32Array
  /** Type of each: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. */
  readonly types: Uint8Array
  readonly byteFallback: boolean
  readonly unkSurface: Uint8Array
  readonly charsmap: Uint8Array
  readonly addDummyPrefix: boolean
  readonly removeExtraWhitespaces: boolean
  readonly escapeWhitespaces: boolean
  readonly treatWhitespaceAsSuffix: boolean
}

/** Reads and parses `path`. */
export async function readSentencePieceModel(
  path: string,
  signal?: AbortSignal | undefined,
): Promise<SentencePieceModel> {
  const { bytes, file } = await withFile(path, async opened => {
    const { size, path: absolute } = opened.entry
    if (size > maxModelBytes) {
      throw new PolyLMError(
        'LIMIT',
        `${quotePath(absolute)} has ${size} bytes, at most ${maxModelBytes} are accepted`,
        { file: absolute },
      )
    }
    const read = await opened.read(0, size, signal)
    const mistaken = mistakenFor(read.subarray(0, sniffBytes), size, absolute) ?? isJson(read)
    if (mistaken === undefined) return { bytes: read, file: absolute }
    const { what, hint } = mistaken
    const text = `${quotePath(absolute)} ${what}`
    throw new PolyLMError('PROTO_FORMAT', text, { file: absolute, offset: 0, hint })
  })
  return await parseSentencePieceModel(bytes, { file, signal })
}

function isJson(bytes: Buffer): Mistaken | undefined {
  if (!/^\s*\{\s*"/.test(bytes.toString('latin1', 0, sniffBytes))) return undefined
  return { what: 'is JSON text', hint: 'tokenizer.model is the SentencePiece file: download that' }
}

/**
 * Parses the content of a tokenizer.model.
 *
 * @throws PolyLMError PROTO_FORMAT when it is no such file, TOKENIZER_UNSUPPORTED for word and
 * character models and for denormalisers, LIMIT; or the signal's reason.
 */
export async function parseSentencePieceModel(
  bytes: Uint8Array,
  options: { readonly file: string; readonly signal?: AbortSignal | undefined },
): Promise<SentencePieceModel> {
  const slicer = new Slicer(options.signal)
  const parser = new ModelParser(bytes, options.file)
  while (!parser.run()) {
    if (slicer.due()) await slicer.pause()
  }
  return parser.result()
}

// Pieces, and bytes, between two looks at the clock.
const stepPieces = 1024
const stepBytes = 256 * 1024
// A piece with everything that may stand beside its text, and a spec: both are walked in one go.
const maxPieceMessageBytes = 64 * 1024
const maxSpecBytes = 4 * 1024 * 1024
const emptyBytes = new Uint8Array(0)

const fieldPieces = 1
const fieldTrainer = 2
const fieldNormalizer = 3
const fieldDenormalizer = 5
const specNames: ReadonlyMap<number, string> = new Map([
  [fieldTrainer, 'trainer_spec'],
  [fieldNormalizer, 'normalizer_spec'],
  [fieldDenormalizer, 'denormalizer_spec'],
])

// A flag or choice of trainer_spec and normalizer_spec, with SentencePiece's default.
interface Spec {
  modelType: number
  byteFallback: boolean
  treatWhitespaceAsSuffix: boolean
  unkSurface: Uint8Array
  charsmap: Uint8Array
  addDummyPrefix: boolean
  removeExtraWhitespaces: boolean
  escapeWhitespaces: boolean
}

class ModelParser {
  readonly #bytes: Uint8Array
  readonly #file: string
  readonly #top: ProtoReader
  readonly #inner: ProtoReader
  readonly #seen = new Set<number>()
  readonly #blob: Uint8Array
  #blobBytes = 0
  #count = 0
  #offsets = new Uint32Array(4097)
  #scores = new Float32Array(4096)
  #types = new Uint8Array(4096)
  readonly #spec: Spec = {
    modelType: 1,
    byteFallback: false,
    treatWhitespaceAsSuffix: false,
    unkSurface: new TextEncoder().encode(' \u2047 '),
    charsmap: emptyBytes,
    addDummyPrefix: true,
    removeExtraWhitespaces: true,
    escapeWhitespaces: true,
  }

  constructor(bytes: Uint8Array, file: string) {
    this.#bytes = bytes
    this.#file = file
    this.#top = new ProtoReader(bytes, file)
    this.#inner = new ProtoReader(bytes, file)
    // Pieces are parts of the file, so they cannot be longer together.
    this.#blob = new Uint8Array(bytes.length)
  }

  // Works through the next fields; true when the file is complete.
  run(): boolean {
    const top = this.#top
    const end = top.offset + stepBytes
    for (let step = 0; step < stepPieces && top.offset < end; step++) {
      if (!top.next()) return true
      if (top.field === fieldPieces) {
        top.expect(wireBytes)
        this.#piece(top.start, top.end)
      } else if (specNames.has(top.field)) {
        top.expect(wireBytes)
        this.#once(this.#seen, top)
        this.#readSpec(top.field, top.start, top.end)
      }
    }
    return false
  }

  result(): SentencePieceModel {
    for (const field of [fieldTrainer, fieldNormalizer]) {
      if (this.#seen.has(field)) continue
      throw protoError(this.#file, this.#bytes.length, `the end without ${specNames.get(field)}`)
    }
    const { modelType, ...spec } = this.#spec
    if (modelType !== 1 && modelType !== 2) {
      throw this.#unsupported(`model type ${modelNames.get(modelType) ?? modelType}`)
    }
    return {
      kind: modelType === 1 ? 'unigram' : 'bpe',
      blob: this.#blob.subarray(0, this.#blobBytes),
      offsets: this.#offsets.slice(0, this.#count + 1),
      scores: this.#scores.slice(0, this.#count),
      types: this.#types.slice(0, this.#count),
      ...spec,
    }
  }

  #piece(start: number, end: number): void {
    if (this.#count === maxPieces) throw this.#limit(`more than ${maxPieces} pieces`)
    if (end - start > maxPieceMessageBytes) throw this.#limit(`a piece of ${end - start} bytes`)
    if (this.#count === this.#types.length) this.#grow()
    const inner = this.#inner
    inner.enter(start, end)
    let seen = 0
    let type = 1
    let score = 0
    while (inner.next()) {
      if (inner.field > 3) continue
      if ((seen & (1 << inner.field)) !== 0) throw this.#twice(inner)
      seen |= 1 << inner.field
      if (inner.field === 1) {
        inner.expect(wireBytes)
        this.#copy(inner.start, inner.end)
      } else if (inner.field === 2) {
        inner.expect(wireFixed32)
        score = this.#float(inner.start)
      } else {
        inner.expect(wireVarint)
        type = Math.min(inner.value, 255)
      }
    }
    this.#scores[this.#count] = score
    this.#types[this.#count] = type
    this.#offsets[++this.#count] = this.#blobBytes
  }

  #copy(start: number, end: number): void {
    if (end - start > 32) {
      this.#blob.set(this.#bytes.subarray(start, end), this.#blobBytes)
      this.#blobBytes += end - start
      return
    }
    for (let i = start; i < end; i++) this.#blob[this.#blobBytes++] = this.#bytes[i] as number
  }

  #float(at: number): number {
    return new DataView(this.#bytes.buffer, this.#bytes.byteOffset + at, 4).getFloat32(0, true)
  }

  #grow(): void {
    const size = this.#types.length * 2
    this.#offsets = grown(this.#offsets, new Uint32Array(size + 1))
    this.#scores = grown(this.#scores, new Float32Array(size))
    this.#types = grown(this.#types, new Uint8Array(size))
  }

  #readSpec(message: number, start: number, end: number): void {
    if (end - start > maxSpecBytes) {
      throw this.#limit(`a ${specNames.get(message)} of ${end - start} bytes`)
    }
    const inner = this.#inner
    inner.enter(start, end)
    const seen = new Set<number>()
    while (inner.next()) {
      const known = specFields.get(message * 100 + inner.field)
      if (known === undefined) continue
      this.#once(seen, inner)
      inner.expect(known.wire)
      known.store(this.#spec, inner, this.#bytes)
      if (message === fieldDenormalizer && inner.end > inner.start) {
        throw this.#unsupported('a denormaliser')
      }
    }
  }

  #once(seen: Set<number>, reader: ProtoReader): void {
    if (seen.has(reader.field)) throw this.#twice(reader)
    seen.add(reader.field)
  }

  #twice(reader: ProtoReader): PolyLMError {
    return protoError(this.#file, reader.offset, `field ${reader.field} twice before`)
  }

  #limit(what: string): PolyLMError {
    return new PolyLMError('LIMIT', `${quotePath(this.#file)} has ${what}`, { file: this.#file })
  }

  #unsupported(what: string): PolyLMError {
    return new PolyLMError(
      'TOKENIZER_UNSUPPORTED',
      `${quotePath(this.#file)} has ${what}; unigram and BPE models without one are supported`,
      { file: this.#file },
    )
  }
}

const modelNames: ReadonlyMap<number, string> = new Map([[3, 'WORD'], [4, 'CHAR']])

interface SpecField {
  readonly wire: number
  store(spec: Spec, reader: ProtoReader, bytes: Uint8Array): void
}

// Fields of the specs by message * 100 + number.
const specFields: ReadonlyMap<number, SpecField> = new Map<number, SpecField>([
  [203, { wire: wireVarint, store: (s, r) => { s.modelType = r.value } }],
  [224, { wire: wireVarint, store: (s, r) => { s.treatWhitespaceAsSuffix = r.value !== 0 } }],
  [235, { wire: wireVarint, store: (s, r) => { s.byteFallback = r.value !== 0 } }],
  [244, { wire: wireBytes, store: (s, r, b) => { s.unkSurface = b.slice(r.start, r.end) } }],
  [302, { wire: wireBytes, store: (s, r, b) => { s.charsmap = b.slice(r.start, r.end) } }],
  [303, { wire: wireVarint, store: (s, r) => { s.addDummyPrefix = r.value !== 0 } }],
  [304, { wire: wireVarint, store: (s, r) => { s.removeExtraWhitespaces = r.value !== 0 } }],
  [305, { wire: wireVarint, store: (s, r) => { s.escapeWhitespaces = r.value !== 0 } }],
  [502, { wire: wireBytes, store: () => {} }],
])

function grown<T extends { set(source: T): void }>(from: T, to: T): T {
  to.set(from)
  return to
}
