// consumer.ts: a program as users write it, compiled against the published declarations with every combination of
// libraries (test/e2e/types.test.ts). It names nothing of a platform. Not run.
import { isPolyLMError, Model, PolyLMError, Tokenizer } from 'polylm'
import type { ErrorCode, ErrorFields, GenerateOutput, LoadOptions, Session, TokenLogprob } from 'polylm'

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const same = <A, B>(_: Same<A, B>): void => { /* types alone */ }

export async function use(model: Model, session: Session, options: LoadOptions): Promise<void> {
  const { outputs, text } = await model.generate('a', { topK: undefined, logprobs: 1 })
  same<typeof text, string>(true)
  same<(typeof outputs)[number], GenerateOutput>(true)
  const token = outputs[0]?.logprobs?.[0]
  same<typeof token, TokenLogprob | undefined>(true)
  same<TokenLogprob['top'][number]['text'], string>(true)
  const bytes: readonly number[] | undefined = token?.top[0]?.bytes
  for await (const event of await model.stream('a')) {
    if (event.type === 'finish') same<typeof event.result.seed, number>(true)
  }
  const piece: string = model.tokenizer.idToPiece(5)
  same<ReturnType<Tokenizer['pieceToId']>, number | undefined>(true)
  await Promise.all([Model.load('dir', options), Tokenizer.load('dir'), session.send(piece), bytes])
}

export function errors(e: unknown): void {
  if (isPolyLMError(e, 'CONTEXT_OVERFLOW')) {
    same<typeof e.promptTokens, number>(true)
    same<typeof e.code, 'CONTEXT_OVERFLOW'>(true)
    const base: PolyLMError = e
    same<typeof base.hint, string | undefined>(true)
  }
  if (isPolyLMError(e, 'QUEUE_FULL', 'QUEUE_TIMEOUT')) same<typeof e.retryAfterMs, number>(true)
  if (isPolyLMError(e)) {
    same<typeof e.retryable, boolean>(true)
    switch (e.code) {
      case 'INVALID_OPTION': same<typeof e.option, string>(true); break
      case 'INSUFFICIENT_MEMORY': same<typeof e.suggestions, readonly string[]>(true); break
      case 'SESSION_FILE': same<typeof e.reason, 'damaged' | 'other-weights' | 'version'>(true); break
      case 'NO_BINARY': same<typeof e.tried, readonly string[]>(true); break
      case 'WEIGHTS_SHAPE': same<typeof e.file, string | undefined>(true); break
      default: same<typeof e.message, string>(true)
    }
  }
  same<keyof ErrorFields, ErrorCode>(true)
  // @ts-expect-error no such code
  isPolyLMError(e, 'CONTEXT_OVERFLOWS')
  // @ts-expect-error data is read only
  if (isPolyLMError(e, 'CONTEXT_OVERFLOW')) e.promptTokens = 1
}

/** A user's own model, for tests: the interfaces can be implemented, the values stand beside them. */
export const fake: Pick<Tokenizer, 'encode' | 'idToPiece'> = { encode: () => Int32Array.of(1), idToPiece: id => String(id) }
export const thrown = new PolyLMError('QUEUE_FULL', 'full', { waiting: 1, retryAfterMs: 10 })
