// explain.cc: what a set of options does: the processors in the order they run, under Hugging
// Face's class names where it has them, and the given options that have no effect.
// Trap: "given" means "differs from the default"; a neutral value is never listed.
#include "engine/decoder.h"

namespace polylm {
namespace {

void add_if(bool condition, const char* name, std::vector<std::string>* out) {
  if (condition) out->emplace_back(name);
}

void list_processors(const SamplingParams& p, std::vector<std::string>* out) {
  add_if(p.has_bias(), "SequenceBiasLogitsProcessor", out);
  add_if(p.repetition_penalty != 1.0, "RepetitionPenaltyLogitsProcessor", out);
  add_if(p.presence_penalty != 0.0, "presencePenalty (OpenAI)", out);
  add_if(p.frequency_penalty != 0.0, "frequencyPenalty (OpenAI)", out);
  add_if(p.no_repeat_ngram_size > 0, "NoRepeatNGramLogitsProcessor", out);
  add_if(p.min_tokens > 0 && !p.stop_token_ids.empty(), "MinNewTokensLengthLogitsProcessor", out);
  add_if(!p.allow_tokens.empty() || !p.allow_choices.empty(), "PrefixConstrainedLogitsProcessor",
         out);
  add_if(p.forced_first_token >= 0, "ForcedBOSTokenLogitsProcessor", out);
  add_if(p.forced_last_token >= 0, "ForcedEOSTokenLogitsProcessor", out);
  if (p.temperature > 0.0) {
    add_if(p.temperature != 1.0, "TemperatureLogitsWarper", out);
    add_if(p.top_k > 0, "TopKLogitsWarper", out);
    add_if(p.top_p < 1.0, "TopPLogitsWarper", out);
    add_if(p.min_p > 0.0, "MinPLogitsWarper", out);
    add_if(p.typical_p < 1.0, "TypicalLogitsWarper", out);
    add_if(p.epsilon_cutoff > 0.0 && p.epsilon_cutoff < 1.0, "EpsilonLogitsWarper", out);
    add_if(p.eta_cutoff > 0.0 && p.eta_cutoff < 1.0, "EtaLogitsWarper", out);
  }
  add_if(p.renormalize, "LogitNormalization", out);
}

void list_inert(const SamplingParams& p, std::vector<std::string>* out) {
  const SamplingParams d;
  const bool greedy = p.temperature == 0.0;
  const bool beams = p.num_beams > 1;
  const bool single = !beams;
  add_if(greedy && p.top_k != d.top_k, "topK", out);
  add_if(greedy && p.top_p != d.top_p, "topP", out);
  add_if(greedy && p.min_p != d.min_p, "minP", out);
  add_if(greedy && p.typical_p != d.typical_p, "typicalP", out);
  add_if(p.epsilon_cutoff != 0.0 && (greedy || p.epsilon_cutoff >= 1.0), "epsilonCutoff", out);
  add_if(p.eta_cutoff != 0.0 && (greedy || p.eta_cutoff >= 1.0), "etaCutoff", out);
  add_if(greedy && p.seed != d.seed, "seed", out);
  add_if(p.sample_beams && (single || greedy), "sampleBeams", out);
  add_if(single && p.length_penalty != d.length_penalty, "lengthPenalty", out);
  add_if(single && p.early_stopping != d.early_stopping, "earlyStopping", out);
  add_if(single && p.beam_scoring != d.beam_scoring, "beamScoring", out);
  // Alone it shifts all scores of a row alike, which neither the best token nor a draw can see.
  add_if(single && p.renormalize && !(p.logprobs >= 0 && p.logprobs_processed), "renormalize", out);
  add_if(p.min_tokens > 0 && p.stop_token_ids.empty(), "minTokens", out);
  add_if(p.include_stop && p.stop.empty(), "includeStop", out);
  add_if(p.stop_hf && p.stop.empty(), "stopMatching", out);
  add_if(p.logprobs < 0 && p.logprobs_processed, "logprobsOf", out);
  // The first token comes with the prompt, and the last one leaves nothing to guess.
  add_if(p.speculate_lookup && p.max_tokens <= 2, "speculate", out);
  const bool pads_count = p.repetition_penalty != 1.0 || p.no_repeat_ngram_size > 0 ||
                          p.has_bias() || (p.stop_hf && !p.stop.empty()) ||
                          (beams && p.beam_scoring == BeamScoring::kHf431);
  add_if(p.pad_to_length > 0 && !pads_count, "padTo", out);
}

}  // namespace

Explanation explain(const SamplingParams& params) {
  Explanation out;
  list_processors(params, &out.processors);
  list_inert(params, &out.inert);
  return out;
}

}  // namespace polylm
