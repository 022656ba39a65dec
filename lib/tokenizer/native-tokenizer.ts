// native-tokenizer.ts: types of what the addon exports for tokenizers
// (csrc/binding/tokenizer_wrap.cc). No code.
import type { SentencePieceModel } from './sentencepiece-model.js'
import type { AddedTokenRow } from './special-tokens.js'

/** Tables of a tokenizer as the core takes them. */
export interface NativeTables extends SentencePieceModel {
  readonly added: readonly AddedTokenRow[]
  /** -1: none. */
  readonly unkId: number
  readonly bosId: number
  readonly eosId: number
  readonly padId: number
  readonly addBos: boolean
  readonly addEos: boolean
  readonly legacy: boolean
  readonly addPrefixSpace: boolean
  /** `hf-4.36` encodes as `hf-4.55` and decodes without its space after a leading special token. */
  readonly compat: 'hf-4.31' | 'hf-4.36' | 'hf-4.55'
  /** Vocabulary of the model, when it has more ids than the tokenizer; else 0. */
  readonly idLimit: number
}

/** A decoder that takes ids one by one. */
export interface NativeStreamDecoder {
  push(id: number): string
  finish(): string
}

/** A tokenizer of the core. Its methods trust their arguments' types. */
export interface NativeTokenizer {
  encode(text: string, addSpecialTokens: boolean, parseSpecial: boolean): Int32Array
  encodeWithOffsets(
    text: string, addSpecialTokens: boolean, parseSpecial: boolean,
  ): { ids: Int32Array; offsets: Uint32Array }
  count(text: string, addSpecialTokens: boolean, parseSpecial: boolean): number
  decode(ids: Int32Array, skipSpecialTokens: boolean): string
  createStreamDecoder(skipSpecialTokens: boolean, prompt: Int32Array): NativeStreamDecoder
  /** What the SentencePiece library alone does. */
  encodeRaw(text: string): Int32Array
  decodeRaw(ids: Int32Array): string
  /** Name of a token; '' for an id without one. */
  piece(id: number): string
  /** The id of a piece or an added token by its name; -1: none. */
  find(name: string): number
  /**
   * Texts of up to `count` tokens from `first` on, joined; where each ends; and for those that are a part of a
   * character: id, number of bytes, bytes.
   */
  texts(first: number, count: number): { text: string; ends: Uint32Array; partial: Int32Array }
  isSpecial(id: number): boolean
  /** Bytes of text that one id stands for at most: how many ids a text has at least. */
  readonly bytesPerToken: number
  readonly vocabSize: number
  readonly idLimit: number
}

/** Exports of the addon for tokenizers. */
export interface NativeTokenizers {
  /** Indexes the vocabulary on a thread of its own. */
  createTokenizer(tables: NativeTables): Promise<NativeTokenizer>
}
