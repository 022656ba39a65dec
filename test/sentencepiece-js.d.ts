declare module 'sentencepiece-js' {
  export class SentencePieceProcessor {
    load(file: string): Promise<void>
    encodeIds(text: string): number[]
    decodeIds(ids: readonly number[]): string
  }
}
