// sentencepiece-js.d.ts: types of the development dependency that ships none; only what tests use.
declare module 'sentencepiece-js' {
  export class SentencePieceProcessor {
    load(file: string): Promise<void>
    encodeIds(text: string): number[]
    decodeIds(ids: readonly number[]): string
  }
}
