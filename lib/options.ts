// options.ts: the options of the public functions, as types with their defaults and ranges. How they
// are checked is in option-table.ts, option-reader.ts, generate-options.ts and load-options.ts.
import type { Prompt } from './prompt.js'

/** Progress of {@link LoadOptions.onProgress}. */
export interface LoadProgress {
  /** `read`: weights are read and packed; `prepare`: memory is set up; `warmup`: a first step runs. */
  readonly phase: 'read' | 'prepare' | 'warmup'
  /** Bytes of weights read so far. */
  readonly loaded: number
  /** Bytes of weights to read. */
  readonly total: number
  /** The file that is being read. */
  readonly file?: string | undefined
}

/** Receives what the library has to say; silent unless given. */
export type Logger = (
  level: 'debug' | 'info' | 'warn',
  message: string,
  fields: Readonly<Record<string, unknown>>,
) => void

/** Whose tokenizer rules and beam search are followed. */
export type Compat = 'hf-4.55' | 'hf-4.31'

/** Options of `Model.load` that decide what runs where. */
export interface EstimateOptions {
  // ---- Where it runs
  /**
   * Where to run: `auto` takes the best usable device, and `model.info.device.reason` says why not a
   * better one. `ref` is a slow oracle in double precision for checking results.
   * @default 'auto'
   */
  readonly device?: 'auto' | 'cpu' | 'ref' | 'cuda' | `cuda:${number}` | undefined
  /**
   * `bf16`: weights, products' inputs and KV cache in bfloat16, sums in float32. `fp32`: float32
   * arithmetic on the exact weights. `auto` is `bf16`.
   * @default 'auto'
   */
  readonly dtype?: 'auto' | 'bf16' | 'fp32' | undefined
  // ---- Memory
  /**
   * Tokens of prompt and output together, 1 to the positions of the checkpoint.
   * @default the positions of the checkpoint
   */
  readonly contextSize?: number | undefined
  /**
   * Sequences that can generate at the same time (every beam and every `n` counts), 1..1024.
   * @default 64
   */
  readonly maxSequences?: number | undefined
  /**
   * Memory of the KV cache in bytes, as a number or as text such as `'4GiB'`. `auto`: four full
   * contexts, or what a quarter of the memory that is free after the weights can hold if that is less
   * (but at least one full context). Control group limits are respected.
   * @default 'auto'
   */
  readonly kvMemory?: 'auto' | number | `${number}${'B' | 'KiB' | 'MiB' | 'GiB' | 'kB' | 'MB' | 'GB'}` | undefined
}

/** Options of `Model.load`. */
export interface LoadOptions extends EstimateOptions {
  // ---- Scheduling
  /**
   * Requests that may wait before `QUEUE_FULL`, 1..1000000.
   * @default 4096
   */
  readonly maxQueue?: number | undefined
  // ---- Speed
  /**
   * Keep the KV of prompts while nothing else needs the memory: a prompt that begins like an earlier one
   * computes the rest alone (`usage.cachedTokens` says how much it saved). The tokens are the same.
   * @default true
   */
  readonly prefixCache?: boolean | undefined
  // ---- Where it runs
  /**
   * CPU workers, 1..1024. There is one pool per process: the first model decides.
   * @default 'auto'
   */
  readonly threads?: 'auto' | number | undefined
  // ---- Loading
  /**
   * Version of Hugging Face transformers whose tokenizer rules and beam search are followed.
   * `hf-4.31` is the version that PolyLM's README pins.
   * @default 'hf-4.55'
   */
  readonly compat?: Compat | undefined
  /**
   * LlamaTokenizer's `legacy`.
   * @default the key of tokenizer_config.json, else false
   */
  readonly legacyTokenizer?: boolean | undefined
  /** Receives remarks about the load. What it throws, or rejects with, ends the load. @default none */
  readonly logger?: Logger | undefined
  /** Aborting frees everything and rejects with the signal's reason. @default none */
  readonly signal?: AbortSignal | undefined
  /**
   * Called at most about 20 times a second. What it throws ends the load. It may be async: the load ends after its
   * promises have, and what one rejects with ends the load.
   * @default none
   */
  readonly onProgress?: ((progress: LoadProgress) => void) | undefined
}

/** How text becomes tokens, for every call that takes a prompt. */
export interface PromptOptions {
  // ---- Prompt
  /**
   * Whether bos and eos are added around text where the checkpoint's tokenizer asks for them.
   * PolyLM's asks for none.
   * @default true
   */
  readonly addSpecialTokens?: boolean | undefined
  /**
   * Whether special tokens written in text prompts are recognised, as Hugging Face does. Never
   * applies to the content of messages.
   * @default true
   */
  readonly parseSpecial?: boolean | undefined
  /**
   * What happens to content of user and system messages that holds a marker of the template (such as `<|user|>`):
   * `reject` throws INVALID_PROMPT, `escape` puts a space behind its first character. Content of assistant messages
   * is what a model wrote and is never refused: it is escaped always, and so is what a session already holds.
   * @default 'reject'
   */
  readonly controlText?: 'reject' | 'escape' | undefined
}

/** Options of `generate`, `stream`, `generateEach`, `explain` and a session's `send` and `stream`. */
export interface GenerateOptions extends PromptOptions {
  // ---- Length
  /**
   * New tokens, 1..context. The default is silently limited to the room that is left; a given value
   * that does not fit throws `CONTEXT_OVERFLOW`.
   * @default 256
   */
  readonly maxTokens?: number | undefined
  /** No end-of-sequence token before so many new tokens, 0..maxTokens. @default 0 */
  readonly minTokens?: number | undefined
  // ---- Sampling
  /**
   * 0 is greedy; above 0 tokens are sampled, 0..100. Values below 1e-30 count as 1e-30, where the best tokens
   * have all the probability. Without it, an option that only sampling can follow (`topK`, `topP`, `minP`,
   * `typicalP`, `epsilonCutoff`, `etaCutoff`, and `sampleBeams` with beams) means 1, as in Hugging Face's
   * sampling and OpenAI's interface; with an explicit 0 those options have no effect and `explain` lists them.
   * @default 0, or 1 with a sampling option
   */
  readonly temperature?: number | undefined
  /** Keep the k most probable tokens; 0 is off. Turns sampling on, see `temperature`. @default 0 */
  readonly topK?: number | undefined
  /** Keep the smallest set of tokens with this probability, 0..1; 1 is off. Turns sampling on. @default 1 */
  readonly topP?: number | undefined
  /** Drop tokens less probable than this share of the best one, 0..1; 0 is off. Turns sampling on. @default 0 */
  readonly minP?: number | undefined
  /** Locally typical sampling, 0..1; 1 is off. Turns sampling on. @default 1 */
  readonly typicalP?: number | undefined
  /** Drop tokens less probable than this, 0..1; 0 and 1 are off. Turns sampling on. @default 0 */
  readonly epsilonCutoff?: number | undefined
  /** Eta sampling, 0..1; 0 and 1 are off. Turns sampling on. @default 0 */
  readonly etaCutoff?: number | undefined
  // ---- Penalties
  /** Hugging Face's, over prompt and output, 0.0001..1000; 1 is off. @default 1 */
  readonly repetitionPenalty?: number | undefined
  /** No n-gram of this size twice, prompt included; 0 is off. @default 0 */
  readonly noRepeatNgramSize?: number | undefined
  /** OpenAI's: subtracted once for every token that was generated, -2..2. @default 0 */
  readonly presencePenalty?: number | undefined
  /** OpenAI's: subtracted per occurrence among the generated tokens, -2..2. @default 0 */
  readonly frequencyPenalty?: number | undefined
  // ---- Constraints
  /**
   * Added to the score of a token, or of the last token of a sequence when the tokens before it were
   * just produced. A number that float32 holds (up to 3.4e38 in size); `-Infinity` bans. Each token or sequence
   * once; up to a rule for every token of the vocabulary (1,048,576 token ids in all; more than 1,024 rules cost a
   * look at every token in each step).
   * @default none
   */
  readonly bias?: ReadonlyArray<readonly [number | ArrayLike<number>, number]> | undefined
  /**
   * Tokens whose ban by `bias` does not count where they are stop tokens: Hugging Face's rule for
   * `bad_words_ids`. `fromHuggingFace` sets it when the stop tokens are the model's own.
   * @default none
   */
  readonly biasSparesStops?: ArrayLike<number> | undefined
  /**
   * Only these tokens, or exactly one of these continuations (text or token ids, encoded without
   * special tokens): at most 1,024 of them, 131,072 characters and 65,536 token ids together.
   * @default none
   */
  readonly allow?:
    | { readonly tokens: ArrayLike<number> }
    | { readonly choices: ReadonlyArray<string | { readonly tokens: ArrayLike<number> }> }
    | undefined
  /** The first new token. @default none */
  readonly forcedFirstToken?: number | undefined
  /** The token at `maxTokens`. @default none */
  readonly forcedLastToken?: number | undefined
  // ---- Sampling
  /** Log-softmax after all processors, as Hugging Face's `renormalize_logits`. @default false */
  readonly renormalize?: boolean | undefined
  // ---- Beam search
  /** Beam search when above 1, 1..32. @default 1 */
  readonly numBeams?: number | undefined
  /** With `numBeams`: sample the candidates of the beams. Needs sampling, which it turns on. @default false */
  readonly sampleBeams?: boolean | undefined
  /**
   * Exponent of the length in the score of a beam, -100..100. With beams the power of the longest length must
   * be below 1e300: 90 for 2,048 tokens.
   * @default 1
   */
  readonly lengthPenalty?: number | undefined
  /** When beam search ends, as in Hugging Face. @default false */
  readonly earlyStopping?: boolean | 'never' | undefined
  /** Which version's beam search. @default the model's `compat` */
  readonly beamScoring?: Compat | undefined
  // ---- Prompt
  /** Behave as if left-padded to this width with this token. @default none */
  readonly padTo?: { readonly length: number; readonly tokenId: number } | undefined
  // ---- Several outputs
  /** Outputs per prompt, 1..16 and at most `numBeams` with beams. Greedy with n > 1 throws. @default 1 */
  readonly n?: number | undefined
  // ---- Where it ends
  /** Text at which an output ends; at most 1,024 strings, together 65,536 bytes of UTF-8. @default none */
  readonly stop?: string | readonly string[] | undefined
  /**
   * `output`: `stop` is looked for in the text of the output alone, and cut off (see `includeStop`). `hf`: as
   * Hugging Face's `stop_strings`: the match may begin in the prompt, special tokens count as their names, a
   * character that comes as several byte tokens matches nothing, and nothing is cut: the token that completes
   * the match stays whole.
   * @default 'output'
   */
  readonly stopMatching?: 'output' | 'hf' | undefined
  /** Keep the stop string at the end of `text`. @default false */
  readonly includeStop?: boolean | undefined
  /**
   * Tokens that end an output, at most 64; a given list replaces the default and `[]` disables.
   * @default model.info.stopTokenIds
   */
  readonly stopTokenIds?: ArrayLike<number> | undefined
  // ---- What is returned
  /**
   * Log-probability of each token with so many alternatives, 0..20. The numbers are finite: where float32 ends
   * (a huge `bias`, a tiny `temperature` with `logprobsOf: 'processed'`) stands -3.4028234663852886e+38.
   * @default off
   */
  readonly logprobs?: number | undefined
  /** Of the raw distribution, or of the one after all processors. @default 'model' */
  readonly logprobsOf?: 'model' | 'processed' | undefined
  // ---- Sampling
  /** Noise depends on (seed, output index, step) alone, 0..2^53-1. @default random, see `result.seed` */
  readonly seed?: number | undefined
  // ---- Prompt
  /**
   * `truncateLeft` keeps the last contextSize - maxTokens tokens of the prompt; `maxTokens` must be
   * given then.
   * @default 'error'
   */
  readonly onOverflow?: 'error' | 'truncateLeft' | undefined
  // ---- Scheduling
  /** Cancels the call. @default none */
  readonly signal?: AbortSignal | undefined
  /** `throw` rejects with the signal's reason, `return` resolves with what there is. @default 'throw' */
  readonly onAbort?: 'throw' | 'return' | undefined
  /** Longest time in the queue in milliseconds; then `QUEUE_TIMEOUT`. @default none */
  readonly queueTimeoutMs?: number | undefined
  /**
   * `interactive` requests start before `batch` requests, and batch requests that run make place for them.
   * Batch work still gets a place when none of it has run for 64 steps.
   * @default 'interactive'; in `generateEach` 'batch'
   */
  readonly priority?: 'interactive' | 'batch' | undefined
  /**
   * Whose call this is: beginnings of prompts are shared within equal salts only, and callers take turns by
   * their salts. Give each user of a server a salt: otherwise response times can reveal what others asked,
   * and one user's many calls make the others wait. At most 256 characters.
   * @default '' (shared in this model; a session then takes turns by itself)
   */
  readonly cacheSalt?: string | undefined
  // ---- What is returned
  /** Whether special tokens are left out of `text`. @default true */
  readonly skipSpecialTokens?: boolean | undefined
  // ---- Speed
  /**
   * `lookup` guesses the next tokens from what followed the last ones earlier in the prompt and the
   * answer, and computes the guesses in the same step: the same tokens, in fewer steps where text is
   * copied. Throws with `numBeams` or `n` above 1. Off by default because it costs time where nothing is
   * copied; measured speeds are in the guide Decoding options.
   * @default false
   */
  readonly speculate?: 'lookup' | false | undefined
}

/** Options of `logits`. */
export interface LogitsOptions extends PromptOptions {
  /** After which tokens of the prompt: the last one, or these indices, 1 to 64 of them. @default 'last' */
  readonly positions?: 'last' | readonly number[] | undefined
  /** As in {@link GenerateOptions}. @default 'interactive' */
  readonly priority?: 'interactive' | 'batch' | undefined
  /** As in {@link GenerateOptions}. @default '' */
  readonly cacheSalt?: string | undefined
  /** Cancels the call. @default none */
  readonly signal?: AbortSignal | undefined
}

/** One item of `loglikelihood`. */
export interface LoglikelihoodItem {
  /** May be empty: then the continuation follows `prefixToken`. */
  readonly context: Prompt
  /** What is scored; never empty. */
  readonly continuation: Prompt
}

/** Options of `loglikelihood`. */
export interface LoglikelihoodOptions {
  /** Stands before an empty context. @default the tokenizer's bos, else eos, else the first stop token */
  readonly prefixToken?: number | undefined
  /** What to do with more tokens than the context holds: throw, or drop the first ones. @default 'error' */
  readonly onOverflow?: 'error' | 'truncateLeft' | undefined
  /** As in {@link GenerateOptions}. @default 'batch' */
  readonly priority?: 'interactive' | 'batch' | undefined
  /** As in {@link GenerateOptions}. @default '' */
  readonly cacheSalt?: string | undefined
  /** Cancels the call. @default none */
  readonly signal?: AbortSignal | undefined
  /**
   * Called when an item is done. What it throws ends the call. It may be async: the call ends after its promises
   * have, and what one rejects with ends the call.
   * @default none
   */
  readonly onProgress?: ((progress: { readonly done: number; readonly total: number }) => void) | undefined
}

/** Options of `score`. */
export interface ScoreOptions extends PromptOptions {
  /** Stands before the first token; null: the first token is not scored. @default null */
  readonly prefixToken?: number | null | undefined
  /** Tokens that each scored token may see at most, 1..contextSize. @default contextSize */
  readonly window?: number | undefined
  /** Tokens scored per window, 1..window. Smaller is slower and gives each token more context. @default window */
  readonly stride?: number | undefined
  /** List every token with its log-probability and so many alternatives, 0..20. @default off */
  readonly logprobs?: number | undefined
  /** As in {@link GenerateOptions}. @default 'batch' */
  readonly priority?: 'interactive' | 'batch' | undefined
  /** As in {@link GenerateOptions}. @default '' */
  readonly cacheSalt?: string | undefined
  /** Cancels the call. @default none */
  readonly signal?: AbortSignal | undefined
}

/** Options of `dispose`. */
export interface DisposeOptions {
  /**
   * New calls reject with `DRAINING` and running ones may finish for so many milliseconds; the rest
   * reject with `DISPOSED`.
   * @default 0
   */
  readonly drainMs?: number | undefined
}
