// tokenizer.ts: the public Tokenizer: text to ids and back, as Hugging Face does it. Checks what
// users give; the work is the core's. Not here: reading files (load.ts).

import { PolyLMError } from '../errors.js'
import { inCore, loadNative } from '../native.js'
import {
  checkDir, maxManyIds, readBag, readBoolean, readChoice, readIds, readSignal, show,
} from '../option-reader.js'
import type { Compat } from '../options.js'
import { resultClass } from '../plain.js'
import { loadTokenizerFiles, type LoadedFiles, type SpecialToken } from './load.js'
import type { NativeStreamDecoder, NativeTokenizer } from './native-tokenizer.js'
import { TokenTexts } from './token-texts.js'

export type { SpecialToken } from './load.js'

/** Longest text in UTF-16 code units that one call encodes: these calls hold the event loop meanwhile. */
export const maxTextUnits = 16 * 1024 * 1024

/** Options of {@link Tokenizer.encode} and its kin. */
export interface EncodeOptions {
  /**
   * Whether bos and eos are added where tokenizer_config.json asks for them.
   * @default true
   */
  readonly addSpecialTokens?: boolean | undefined
  /**
   * Whether special and added tokens written in the text are recognised. False: they are ordinary
   * text, and no special id comes out (but unk, in a model without byte fallback).
   * @default true
   */
  readonly parseSpecial?: boolean | undefined
}

/** Options of {@link Tokenizer.decode} and {@link Tokenizer.createStreamDecoder}. */
export interface DecodeOptions {
  /**
   * Whether special tokens are left out of the text.
   * @default true
   */
  readonly skipSpecialTokens?: boolean | undefined
}

/** Options of {@link Tokenizer.createStreamDecoder}. */
export interface StreamDecoderOptions extends DecodeOptions {
  /**
   * Ids before the first: the decoder gives decode(prompt + ids) without decode(prompt).
   * @default []
   */
  readonly prompt?: ArrayLike<number> | undefined
}

/** Options of `Tokenizer.load`. */
export interface TokenizerLoadOptions {
  /**
   * Version of Hugging Face transformers whose LlamaTokenizer is followed.
   * @default 'hf-4.55'
   */
  readonly compat?: Compat | undefined
  /**
   * LlamaTokenizer's `legacy`.
   * @default the key of tokenizer_config.json, else false
   */
  readonly legacy?: boolean | undefined
  /** Aborting rejects with `signal.reason`. */
  readonly signal?: AbortSignal | undefined
}

/** Ids with the part of the text that each stands for. */
export interface Encoding {
  readonly ids: Int32Array
  /**
   * Begin and end of every id in UTF-16 code units, `[begin0, end0, begin1, ...]`, so that
   * `text.slice(begin, end)` is its part of the text as it was given, before normalisation. The
   * bytes of a character that fell back to bytes all have the character's range; ids for text that
   * normalisation inserted have an empty one.
   */
  readonly offsets: Uint32Array
}

/** The special tokens by role; null where the tokenizer has none. */
export interface SpecialTokens {
  readonly bos: SpecialToken | null
  readonly eos: SpecialToken | null
  readonly unk: SpecialToken | null
  readonly pad: SpecialToken | null
  /** All of them, other roles and additional ones included: what skipSpecialTokens leaves out. */
  readonly all: readonly SpecialToken[]
}

/** Turns ids into text as they come. */
export interface StreamDecoder {
  /**
   * The text that became certain with this id; often '', never a part of a character. All parts and
   * the last of {@link finish} joined are exactly what `decode` gives for all ids.
   *
   * @throws PolyLMError INVALID_PROMPT for an id out of range, STREAM_USED after `finish`
   */
  push(id: number): string
  /** What was held back, an incomplete character as U+FFFD. Ends the stream. */
  finish(): string
}

/**
 * Text to token ids and back, exactly as Hugging Face's LlamaTokenizer. Immutable; every call is
 * synchronous and holds the event loop: a prompt is quick, a text near the limit of 16 Mi characters takes
 * seconds. Where others wait on this thread, give long texts to a worker thread with a
 * tokenizer of its own (`Tokenizer.load`). A lone surrogate in a text counts as U+FFFD.
 *
 * @example
 * const tokenizer = await Tokenizer.load('./polylm-1.7b')
 * tokenizer.decode(tokenizer.encode('Beijing is the capital of China.'))
 */
export interface Tokenizer {
  /**
   * Ids of a text.
   *
   * @throws PolyLMError INVALID_OPTION, LIMIT for more than 16 Mi characters
   */
  encode(text: string, options?: EncodeOptions): Int32Array
  /** Ids of a text and where each comes from. */
  encodeWithOffsets(text: string, options?: EncodeOptions): Encoding
  /**
   * Text of ids, 16 Mi of them at most. Ids that the model has beyond the vocabulary (padding rows) give nothing.
   *
   * @throws PolyLMError INVALID_PROMPT for an id out of range
   */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string
  /** How many ids a text has. */
  count(text: string, options?: EncodeOptions): number
  /** A decoder for ids that come one by one. */
  createStreamDecoder(options?: StreamDecoderOptions): StreamDecoder
  /**
   * Name of an id in the vocabulary, as `convert_ids_to_tokens`: `'\u2581Paris'`, `'<0xE4>'`, `'</s>'`; '' for an id
   * without a token. It is not its text: log-probabilities carry that.
   *
   * @throws PolyLMError INVALID_PROMPT for an id out of range
   */
  idToPiece(id: number): string
  /** The id with exactly this name, special and added tokens included; undefined when there is none. */
  pieceToId(piece: string): number | undefined
  /** Ids are below this. */
  readonly vocabSize: number
  readonly specialTokens: SpecialTokens
}

const Offsets = resultClass<Encoding>('Encoding')

const encodeNames = new Set(['addSpecialTokens', 'parseSpecial'])
const decodeNames = new Set(['skipSpecialTokens'])
const streamNames = new Set(['skipSpecialTokens', 'prompt'])
const loadNames = new Set(['compat', 'legacy', 'signal'])

/** The {@link Tokenizer} that files make. */
export class LoadedTokenizer implements Tokenizer {
  readonly specialTokens: SpecialTokens
  /** The core's tokenizer, which the engine shares. */
  readonly native: NativeTokenizer
  /** What is odd about its files. */
  readonly warnings: readonly string[]
  /** Texts of single tokens. */
  readonly texts: TokenTexts
  readonly #added: ReadonlyMap<string, number>

  constructor(files: LoadedFiles) {
    this.native = files.native
    this.warnings = files.warnings
    this.texts = new TokenTexts(files.native)
    this.#added = new Map(files.added.map(token => [token.content, token.id]))
    this.specialTokens = {
      bos: files.roles.get('bos') ?? null,
      eos: files.roles.get('eos') ?? null,
      unk: files.roles.get('unk') ?? null,
      pad: files.roles.get('pad') ?? null,
      all: files.special,
    }
  }

  get vocabSize(): number {
    return this.native.vocabSize
  }

  encode(text: string, options?: EncodeOptions): Int32Array {
    const { add, parse } = encodeRules(text, options, 'encode')
    return inCore(() => this.native.encode(text, add, parse))
  }

  encodeWithOffsets(text: string, options?: EncodeOptions): Encoding {
    const { add, parse } = encodeRules(text, options, 'encodeWithOffsets')
    return new Offsets(inCore(() => this.native.encodeWithOffsets(text, add, parse)))
  }

  count(text: string, options?: EncodeOptions): number {
    const { add, parse } = encodeRules(text, options, 'count')
    return inCore(() => this.native.count(text, add, parse))
  }

  decode(ids: ArrayLike<number>, options?: DecodeOptions): string {
    const skip = readBoolean(readBag(options, decodeNames, 'decode'), 'skipSpecialTokens') ?? true
    const checked = this.#ids(ids)
    return inCore(() => this.native.decode(checked, skip))
  }

  createStreamDecoder(options?: StreamDecoderOptions): StreamDecoder {
    const bag = readBag(options, streamNames, 'createStreamDecoder')
    const skip = readBoolean(bag, 'skipSpecialTokens') ?? true
    const prompt = bag['prompt'] === undefined ? new Int32Array(0) : this.#ids(bag['prompt'])
    const native = inCore(() => this.native.createStreamDecoder(skip, prompt))
    return new CheckedStreamDecoder(native, this.native.idLimit)
  }

  idToPiece(id: number): string {
    readIds([id], this.native.idLimit, invalidIds)
    return inCore(() => this.native.piece(id))
  }

  pieceToId(piece: string): number | undefined {
    if (typeof piece !== 'string') throw invalidText('piece', piece)
    const id = inCore(() => this.native.find(piece))
    return id < 0 ? undefined : id
  }

  /** Id of an added or special token by its text. */
  controlId(content: string): number | undefined {
    return this.#added.get(content)
  }

  #ids(ids: unknown): Int32Array {
    return readIds(ids, this.native.idLimit, invalidIds, maxManyIds)
  }
}

class CheckedStreamDecoder implements StreamDecoder {
  readonly #native: NativeStreamDecoder
  readonly #idLimit: number
  #finished = false

  constructor(native: NativeStreamDecoder, idLimit: number) {
    this.#native = native
    this.#idLimit = idLimit
  }

  push(id: number): string {
    this.#check()
    readIds([id], this.#idLimit, invalidIds)
    return inCore(() => this.#native.push(id))
  }

  finish(): string {
    this.#check()
    this.#finished = true
    return inCore(() => this.#native.finish())
  }

  #check(): void {
    if (this.#finished) throw new PolyLMError('STREAM_USED', 'the stream decoder is finished')
  }
}

function invalidIds(reason: string): PolyLMError {
  return new PolyLMError('INVALID_PROMPT', `tokens: ${reason}`, {
    reason: reason.startsWith('token out of range') ? 'token out of range' : 'tokens',
  })
}

function invalidText(what: string, value: unknown): PolyLMError {
  return new PolyLMError('INVALID_PROMPT', `the ${what} is ${show(value)}, expected a string`, { reason: 'type' })
}

function encodeRules(
  text: unknown, options: EncodeOptions | undefined, what: string,
): { add: boolean; parse: boolean } {
  if (typeof text !== 'string') throw invalidText('text', text)
  if (text.length > maxTextUnits) {
    throw new PolyLMError(
      'LIMIT',
      `the text has ${text.length} characters, at most ${maxTextUnits} are encoded in one call`,
    )
  }
  const bag = readBag(options, encodeNames, what)
  return {
    add: readBoolean(bag, 'addSpecialTokens') ?? true,
    parse: readBoolean(bag, 'parseSpecial') ?? true,
  }
}

/** The functions beside the interface {@link Tokenizer}. */
export const Tokenizer = {
  /**
   * Reads the tokenizer of a checkpoint directory: tokenizer.model and the JSON files beside it.
   *
   * @throws PolyLMError INVALID_OPTION, TOKENIZER_MISSING when there is none, FILE_NOT_FOUND,
   * TOKENIZER_FORMAT and the other file errors; or `signal.reason`
   */
  async load(dir: string, options?: TokenizerLoadOptions): Promise<Tokenizer> {
    checkDir(dir)
    const bag = readBag(options, loadNames, 'Tokenizer.load')
    const signal = readSignal(bag)
    signal?.throwIfAborted()
    loadNative()                          // before the files: a program without the binary learns that first
    const files = await loadTokenizerFiles(dir, {
      compat: readChoice<Compat>(bag, 'compat', ['hf-4.55', 'hf-4.31']) ?? 'hf-4.55',
      legacy: readBoolean(bag, 'legacy'),
      signal,
    })
    return new LoadedTokenizer(files)
  },
} as const
