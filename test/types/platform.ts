// platform.ts: what of a platform the declarations name: its own signal, stream and disposal fit (types.test.ts). Not run.
import { Model } from 'polylm'

export async function use(signal: AbortSignal): Promise<Response> {
  await using model = await Model.load('dir', { signal })
  const stream = await model.stream('a', { signal })
  const bytes: ReadableStream<Uint8Array> = stream.toReadableStream()
  return new Response(bytes)
}
