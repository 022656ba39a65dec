// A typed consumer; it is checked without skipLibCheck, so that the package's own types are too.
import { demoModel, isPolyLMError, Model, PolyLMError } from 'polylm'
import type { GenerateOptions, GenerateResult, Session } from 'polylm'

export async function main(options: GenerateOptions): Promise<string> {
  const model: Model = await Model.load(demoModel)
  const session: Session = model.createSession()
  try {
    const result: GenerateResult = await model.generate('Hello', { ...options, numBeams: 2 })
    // @ts-expect-error an unknown option is an error of types
    void (() => model.generate('Hello', { numBeans: 2 }))
    return result.text
  } catch (e) {
    if (isPolyLMError(e, 'CONTEXT_OVERFLOW')) return e.code satisfies 'CONTEXT_OVERFLOW'
    if (e instanceof PolyLMError) return e.hint ?? e.message
    throw e
  } finally {
    await session.dispose()
    await model.dispose()
  }
}
