// hugging-face-table.ts: every argument of transformers' generate() for a decoder-only model, and what becomes of it:
// translated, dropped (it cannot change what is generated here), or refused. Read from transformers 4.55 and 4.57:
// the fields of GenerationConfig, the parameters of generate(), and those of GPT-2's forward().
// Not here: how a value is translated (hugging-face.ts). Trap: None is not "absent": it overwrites the default, which
// for top_k is 50 and for eos_token_id the model's.
import type { GenerateOptions } from './options.js'

/** What None means for a translated argument. */
export type NoneMeaning =
  | 'off'                   // as if the argument were not there
  | { readonly value: unknown }  // this value, other than the default
  | 'error'                 // transformers raises
  | 'error with beams'
  | 'error without max_new_tokens'

/** It becomes options of ours. */
export interface Translated {
  readonly becomes: ReadonlyArray<keyof GenerateOptions>
  readonly none: NoneMeaning
  /** Without this mode it has no effect in transformers either, and is dropped. */
  readonly only?: 'do_sample' | 'num_beams'
}

/** It cannot change the output, whatever its value. */
export interface Dropped {
  readonly dropped: string
}

/** It changes the output, and there is no counterpart; values that change nothing are dropped. None is such a value. */
export interface Refused {
  readonly refused: string
  readonly neutral?: (value: unknown) => boolean
  readonly hint?: string
  /** None is refused too when there are beams. */
  readonly none?: 'error with beams'
}

/** One argument. */
export type HuggingFaceArgument = Translated | Dropped | Refused

const to = (...becomes: Array<keyof GenerateOptions>): Translated => ({ becomes, none: 'off' })
const sampling = (option: keyof GenerateOptions): Translated => ({ becomes: [option], none: 'off', only: 'do_sample' })
const is = (...values: unknown[]) => (value: unknown): boolean => values.includes(value)
const atMost = (limit: number) => (value: unknown): boolean => typeof value === 'number' && value <= limit
const empty = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.keys(value).length === 0
// One or two dimensions of ones: nothing is masked.
const one = is(1, true)
const ones = (value: unknown): boolean => Array.isArray(value) && value.length > 0 &&
  value.every(each => one(each) || (Array.isArray(each) && each.length > 0 && each.every(one)))

const cacheOnly = 'where keys and values are kept'
const extraOutput = 'what is returned beside the tokens'
const draftOnly = 'how an assistant drafts'
const retired = 'retired in transformers 4.57'
const promptArgument = { refused: 'is the prompt', hint: 'give the prompt to generate' }
const modelInput = { refused: 'changes what the model computes' }

/** The table. */
export const huggingFaceTable: Readonly<Record<string, HuggingFaceArgument>> = {
  // GenerationConfig: length
  max_length: { becomes: ['maxTokens'], none: 'error without max_new_tokens' },
  max_new_tokens: to('maxTokens'),
  min_length: to('minTokens'),
  min_new_tokens: to('minTokens'),
  early_stopping: { becomes: ['earlyStopping'], none: 'error', only: 'num_beams' },
  max_time: { refused: 'ends where the clock says', hint: 'pass signal: AbortSignal.timeout(ms), onAbort: \'return\'' },
  stop_strings: to('stop', 'stopMatching', 'includeStop'),
  // strategy
  do_sample: to('temperature', 'topK'),
  num_beams: { becomes: ['numBeams', 'sampleBeams'], none: 'error' },
  // cache
  use_cache: { dropped: cacheOnly },
  cache_implementation: {
    refused: 'is not known to leave the numbers as they are',
    neutral: is('dynamic', 'dynamic_full', 'static', 'offloaded', 'offloaded_static'),
  },
  cache_config: { dropped: cacheOnly },
  return_legacy_cache: { dropped: cacheOnly },
  prefill_chunk_size: { dropped: 'how a prompt is computed' },
  // logits
  temperature: sampling('temperature'),
  top_k: { becomes: ['topK'], none: { value: 0 }, only: 'do_sample' },
  top_p: sampling('topP'),
  min_p: sampling('minP'),
  typical_p: sampling('typicalP'),
  epsilon_cutoff: sampling('epsilonCutoff'),
  eta_cutoff: sampling('etaCutoff'),
  repetition_penalty: to('repetitionPenalty'),
  encoder_repetition_penalty: {
    refused: 'favours the tokens of the prompt, in decoder-only models too', neutral: is(1),
  },
  length_penalty: { becomes: ['lengthPenalty'], none: 'error with beams' },
  no_repeat_ngram_size: to('noRepeatNgramSize'),
  encoder_no_repeat_ngram_size: {
    refused: 'bans the n-grams of the prompt, in decoder-only models too', neutral: atMost(0),
  },
  bad_words_ids: to('bias', 'biasSparesStops'),
  renormalize_logits: to('renormalize'),
  forced_bos_token_id: to('forcedFirstToken'),
  forced_eos_token_id: to('forcedLastToken'),
  remove_invalid_values: { refused: 'replaces the -Infinity of banned tokens too', neutral: is(false) },
  exponential_decay_length_penalty: { refused: 'raises the score of the end with every token' },
  suppress_tokens: to('bias'),
  begin_suppress_tokens: { refused: 'bans tokens at the first place only', neutral: empty },
  sequence_bias: to('bias'),
  token_healing: { refused: 'changes the prompt', neutral: is(false) },
  guidance_scale: { refused: 'mixes in a second prompt', neutral: is(1) },
  watermarking_config: { refused: 'biases the tokens' },
  // output
  num_return_sequences: { becomes: ['n'], none: 'error' },
  output_attentions: { dropped: extraOutput },
  output_hidden_states: { dropped: extraOutput },
  output_scores: { dropped: extraOutput },
  output_logits: { dropped: extraOutput },
  return_dict_in_generate: { dropped: extraOutput },
  // special tokens
  pad_token_id: { dropped: 'prompts are not padded here' },
  bos_token_id: { dropped: 'begins an empty prompt only, which is an error here' },
  eos_token_id: { becomes: ['stopTokenIds'], none: { value: [] } },
  decoder_start_token_id: { dropped: 'encoder-decoder models only' },
  // assistants: the same tokens in fewer steps
  is_assistant: { refused: 'ends where the model is unsure', neutral: is(false) },
  num_assistant_tokens: { dropped: draftOnly },
  num_assistant_tokens_schedule: { dropped: draftOnly },
  assistant_confidence_threshold: { dropped: draftOnly },
  prompt_lookup_num_tokens: { dropped: draftOnly },
  max_matching_ngram_size: { dropped: draftOnly },
  assistant_early_exit: { refused: 'runs a part of the model' },
  assistant_lookbehind: { dropped: draftOnly },
  target_lookbehind: { dropped: draftOnly },
  // performance
  compile_config: { dropped: 'how the model is compiled' },
  disable_compile: { dropped: 'how the model is compiled' },
  // retired strategies
  low_memory: { dropped: `the order of beams in memory, ${retired}` },
  penalty_alpha: { refused: `contrastive search, ${retired}`, neutral: atMost(0) },
  dola_layers: { refused: `contrasts layers, ${retired}` },
  diversity_penalty: { refused: `groups of beams, ${retired}`, neutral: is(0), none: 'error with beams' },
  num_beam_groups: { refused: `groups of beams, ${retired}`, neutral: is(1), none: 'error with beams' },
  constraints: { refused: `constrained beam search, ${retired}`, hint: 'allow restricts the output' },
  force_words_ids: { refused: `constrained beam search, ${retired}`, hint: 'allow restricts the output' },
  forced_decoder_ids: { refused: 'forces tokens of encoder-decoder models' },
  generation_kwargs: { refused: 'its members are not read', neutral: empty },
  // about the file
  _from_model_config: { dropped: 'where the file came from' },
  _commit_hash: { dropped: 'where the file came from' },
  transformers_version: { dropped: 'where the file came from' },
  // parameters of generate()
  inputs: promptArgument,
  input_ids: promptArgument,
  inputs_embeds: promptArgument,
  generation_config: { refused: 'its members are not read', hint: 'spread its members into the arguments' },
  logits_processor: { refused: 'is code', neutral: empty, hint: 'bias and allow' },
  stopping_criteria: { refused: 'is code', neutral: empty, hint: 'stop and stopTokenIds, or a signal' },
  prefix_allowed_tokens_fn: { refused: 'is code', hint: 'allow takes tokens or choices' },
  synced_gpus: { dropped: 'how devices are kept together' },
  assistant_model: { refused: 'is another model', hint: 'leave it out: the tokens are the same without it' },
  streamer: { refused: 'is code', hint: 'model.stream' },
  negative_prompt_ids: { dropped: 'used with guidance_scale only' },
  negative_prompt_attention_mask: { dropped: 'used with guidance_scale only' },
  use_model_defaults: { dropped: 'used with generation_config only' },
  custom_generate: { refused: 'is code' },
  tokenizer: { dropped: 'the model has its own' },
  assistant_tokenizer: { dropped: draftOnly },
  trust_remote_code: { dropped: 'used with custom_generate only' },
  // of the model's forward()
  attention_mask: {
    refused: 'hides tokens of the prompt', neutral: ones,
    hint: 'leave padding out of the prompt; padTo counts it where transformers does',
  },
  position_ids: modelInput,
  cache_position: modelInput,
  token_type_ids: modelInput,
  head_mask: modelInput,
  past_key_values: modelInput,
  encoder_hidden_states: modelInput,
  encoder_attention_mask: modelInput,
  labels: modelInput,
  logits_to_keep: { dropped: 'which rows of the prompt are computed' },
}
