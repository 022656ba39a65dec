// beam_decoder.cc: beam search and beam sampling of one prompt: scores the rows of the running
// beams, gathers the candidates, asks the version's rule (beam_rule.h) what becomes of them.
// Not here: the rules, single outputs (sample_decoder.cc).
// Trap: scores are log-probabilities that processors act on (a penalty multiplies negative ones),
// and 4.31's warpers act on the sums while 4.55's act before the sum is added.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "engine/beam_rule.h"
#include "engine/decode_context.h"
#include "engine/draw.h"
#include "engine/logprobs.h"
#include "engine/output_text.h"
#include "engine/processors.h"
#include "engine/warpers.h"
#include "platform/error.h"
#include "platform/philox.h"

namespace polylm {
namespace {

struct Beam {
  std::vector<int32_t> row;    // pads + prompt + tokens
  std::vector<int32_t> nodes;  // one per token
  double score = 0.0;
  std::optional<OutputText> text;  // only when there are stop strings
};

// Better scores first, then by row, as in the flattened [beams, V].
struct Ranked {
  Entry entry;
  int32_t row = 0;
  bool operator<(const Ranked& other) const {
    if (entry.score != other.entry.score) return entry.score > other.entry.score;
    return row != other.row ? row < other.row : ranks_before(entry, other.entry);
  }
};

// Sums of scores up to here leave every step room: a score of one token is below 1e80 in size
// (bias, penalties, temperature), and all of it times 1e30 (the least temperature) is finite.
constexpr double kMostSum = 1e200;

// Only 4.31's beam sampling gets there: it divides the sums by the temperature in every step.
// transformers 4.31 itself raises at 3e38, where float32 ends.
[[noreturn]] void fail_sum(int64_t step) {
  fail(Code::kInvalidOption,
       "temperature: the scores of the beams overflow at output token " + std::to_string(step) +
           ", expected a higher one, because beamScoring 'hf-4.31' divides their sums by it at " +
           "every token",
       "use beamScoring 'hf-4.55', a temperature of 1 or fewer tokens");
}

class BeamDecoder final : public Decoder {
 public:
  explicit BeamDecoder(DecodeContext context);

  int64_t width_max() const override { return params_.num_beams; }
  int64_t width() const override { return width_; }
  SelectNeeds needs(int64_t h, std::vector<int32_t>* listed) override;
  void advance(const SelectResult* rows, const std::vector<int32_t>* listed, FullRows& full,
               std::vector<Transition>* next) override;
  void drain(std::vector<OutputDelta>* out) override;
  std::vector<OutputResult> finish(bool aborted) override;

 private:
  void reserve_rows();
  void score_row(const SelectResult& row, int64_t h, FullRows& full);
  bool process(int64_t h);
  void rank_candidates();
  void draw_candidates(FullRows& full);
  void mark_ends();
  void finish_candidates();
  void run_on(std::vector<Transition>* next);
  void add_open_beams();
  FinishedBeam finished_beam(const BeamCandidate& candidate, double score);
  int32_t parent(const BeamCandidate& c) const { return generated_ == 0 ? 0 : c.beam; }
  void feed_stream(const int32_t* tokens, const int32_t* nodes, int64_t count, int32_t silent);
  OutputResult result(const FinishedBeam& beam, OutputTrack* track) const;
  bool old_rule() const { return params_.beam_scoring == BeamScoring::kHf431; }

  DecodeContext context_;
  const SamplingParams& params_;
  Processors processors_;
  BeamRule rule_;
  Warpers warpers_;
  OutputText start_;
  std::vector<RowPlan> plans_;
  ScoreRow scratch_;                    // the row being scored
  std::vector<ScoreRow> rows_;          // scored: the candidates of each beam, or all when drawing
  std::vector<RowLogprobs> logprobs_;   // of each row
  std::vector<int64_t> full_index_;
  int64_t row_count_ = 0;
  RowsDraw draws_;
  std::vector<Ranked> ranked_;
  std::vector<BeamCandidate> candidates_;
  std::vector<OutputText> texts_;       // of the candidates, when there are stop strings
  BeamVerdict verdict_;
  std::vector<Beam> beams_;             // [num_beams]; the first width_ run
  std::vector<Beam> next_beams_;
  int64_t width_ = 1;
  int64_t generated_ = 0;
  FinishedBeams finished_;
  TokenLog log_;
  OutputTrack stream_;                  // output 0, as far as it is certain
  int64_t streamed_ = 0;                // its tokens
  std::vector<FinishedBeam> returned_;  // best first, once the search is over
};

BeamDecoder::BeamDecoder(DecodeContext context)
    : context_(std::move(context)),
      params_(context_.params),
      processors_(params_, context_.prefix_width(), context_.max_tokens, context_.vocab),
      rule_(params_, context_.prefix_width(), context_.max_tokens),
      warpers_(params_, rule_.min_keep()),
      start_(params_, context_.prompt, context_.tokenizer),
      plans_(static_cast<size_t>(params_.num_beams)),
      rows_(static_cast<size_t>(params_.num_beams)),
      beams_(static_cast<size_t>(params_.num_beams)),
      next_beams_(static_cast<size_t>(params_.num_beams)),
      finished_(params_.num_beams, params_.beam_scoring, context_.max_tokens),
      stream_(start_, context_.max_tokens, params_.logprobs) {
  for (int64_t i = 0; i < params_.num_beams; ++i) logprobs_.emplace_back(params_);
  const auto row_max = context_.prefix.size() + static_cast<size_t>(context_.max_tokens);
  for (std::vector<Beam>* all : {&beams_, &next_beams_}) {
    for (Beam& beam : *all) {
      beam.row.reserve(row_max);
      beam.nodes.reserve(static_cast<size_t>(context_.max_tokens));
    }
  }
  beams_.front().row = context_.prefix;
  if (!params_.stop.empty()) {
    texts_.assign(static_cast<size_t>(rule_.candidates()), start_);
    for (OutputText& text : texts_) text.reserve(context_.max_tokens);
    for (std::vector<Beam>* all : {&beams_, &next_beams_}) {
      for (Beam& beam : *all) beam.text.emplace(start_).reserve(context_.max_tokens);
    }
  }
  const auto candidates = static_cast<size_t>(rule_.candidates());
  candidates_.reserve(candidates);
  ranked_.reserve(candidates * static_cast<size_t>(params_.num_beams));
  verdict_.running.reserve(candidates);
  verdict_.finish.reserve(candidates);
  full_index_.reserve(static_cast<size_t>(params_.num_beams));
  draws_.reserve(params_.num_beams);
  // In every step as many may finish as go on.
  log_.reserve(2 * params_.num_beams * (context_.max_tokens + 1),
               std::max<int64_t>(0, params_.logprobs));
  reserve_rows();
}

// Room for the scores of rows: the one being scored may be a full one.
void BeamDecoder::reserve_rows() {
  for (RowPlan& plan : plans_) processors_.reserve(&plan);
  const int64_t listed = processors_.most_edits();
  const bool wide = processors_.needs_full() ||
                    (context_.sampling() ? warpers_.may_need_full()
                                         : rule_.candidates() > kCandidates);
  const int64_t full = wide ? context_.vocab : 0;
  scratch_.reserve(listed, full);
  if (wide) warpers_.reserve(context_.vocab);
  for (ScoreRow& row : rows_) {
    if (context_.sampling()) {
      row.reserve(listed, full);
    } else {
      row.reserve(rule_.candidates(), 0);
    }
  }
}

SelectNeeds BeamDecoder::needs(int64_t h, std::vector<int32_t>* listed) {
  RowPlan& plan = plans_[static_cast<size_t>(h)];
  processors_.plan(beams_[static_cast<size_t>(h)].row, &plan);
  for (int64_t i = 0; i < plan.listed(); ++i) {
    listed->push_back(plan.edits[static_cast<size_t>(i)].id);
  }
  SelectNeeds needs;
  needs.temperature = row_temperature(params_);
  plan.temperature = static_cast<double>(needs.temperature);
  const bool wide = context_.sampling() ? warpers_.may_need_full()
                                        : rule_.candidates() > kCandidates;
  needs.keep_full = plan.needs_row() || (plan.rest == RestTokens::kKeep && wide);
  return needs;
}

// Runs what follows the processors on scratch_. False: it takes a full row.
bool BeamDecoder::process(int64_t h) {
  const double sum = beams_[static_cast<size_t>(h)].score;
  const bool sampling = context_.sampling();
  if (old_rule()) {
    if (params_.renormalize) renormalize(&scratch_);
    scratch_.add(sum);
    if (!sampling) return true;
    if (!warpers_.run(&scratch_)) return false;
    if (params_.renormalize) renormalize(&scratch_);
    return true;
  }
  if (sampling && !warpers_.run(&scratch_)) return false;
  if (params_.renormalize) renormalize(&scratch_);
  scratch_.add(sum);
  return true;
}

void BeamDecoder::score_row(const SelectResult& row, int64_t h, FullRows& full) {
  if (!row.finite) fail_not_finite(generated_);
  const double sum = beams_[static_cast<size_t>(h)].score;
  if (!(std::fabs(sum) <= kMostSum)) fail_sum(generated_);
  const auto at = static_cast<size_t>(h);
  const RowPlan& plan = plans_[at];
  const double log_z = raw_log_sum(row, plan.listed());
  const int64_t wanted = rule_.candidates();
  bool complete = !plan.needs_row();
  if (complete) {
    scratch_.build(row, plan, processors_, log_z);
    complete = process(h);
  }
  if (complete && !context_.sampling() && scratch_.has_tail()) {
    scratch_.rank(wanted);
    const std::vector<Entry>& entries = scratch_.entries();
    complete = scratch_.size() >= wanted &&
               scratch_.certain(entries[static_cast<size_t>(wanted - 1)]);
  }
  if (!complete) {
    scratch_.build_full(full.row(h), context_.vocab, plan, processors_, log_z);
    POLYLM_CHECK(process(h));
  }
  logprobs_[at].start(row, plan, log_z, &scratch_);
  if (context_.sampling()) {
    std::swap(rows_[at], scratch_);
    return;
  }
  scratch_.rank(wanted);
  scratch_.truncate(wanted);
  rows_[at].copy_entries(scratch_);  // a few; scratch_ keeps the memory of a full row
}

void BeamDecoder::rank_candidates() {
  ranked_.clear();
  for (int64_t h = 0; h < row_count_; ++h) {
    for (const Entry& entry : rows_[static_cast<size_t>(h)].entries()) {
      ranked_.push_back({entry, static_cast<int32_t>(h)});
    }
  }
  const auto count = std::min(ranked_.size(), static_cast<size_t>(rule_.candidates()));
  std::partial_sort(ranked_.begin(), ranked_.begin() + static_cast<int64_t>(count), ranked_.end());
  ranked_.resize(count);
}

void BeamDecoder::draw_candidates(FullRows& full) {
  ranked_.clear();
  draws_.start(&rows_, row_count_, &full_index_, context_.vocab);
  DrawnEntry drawn;
  for (int64_t i = 0; i < rule_.candidates(); ++i) {
    const double u = philox_uniform(static_cast<uint64_t>(params_.seed), 0,
                                    static_cast<uint32_t>(generated_), static_cast<uint32_t>(i));
    if (!draws_.next(u, full, &drawn)) break;
    ranked_.push_back({drawn.entry, drawn.row});
  }
  if (old_rule()) std::sort(ranked_.begin(), ranked_.end());
}

// Fills candidates_ from ranked_ and finds those that end their hypothesis.
void BeamDecoder::mark_ends() {
  candidates_.clear();
  const bool last = generated_ + 1 >= context_.max_tokens;
  for (const Ranked& ranked : ranked_) {
    BeamCandidate candidate;
    candidate.score = ranked.entry.score;
    candidate.beam = ranked.row;
    candidate.token = ranked.entry.id;
    const RowLogprobs& logprobs = logprobs_[static_cast<size_t>(ranked.row)];
    candidate.logprob = reported_logprob(logprobs.of(ranked.entry));
    const Beam& beam = beams_[static_cast<size_t>(parent(candidate))];
    const bool stop_id = processors_.is_stop(candidate.token);
    candidate.ends = stop_id || processors_.completes_choice(beam.row, candidate.token) ||
                     (last && !old_rule());
    if (beam.text) {
      TokenInfo ignored;
      OutputText& text = texts_[candidates_.size()];
      text = *beam.text;  // keeps its own memory
      if (!stop_id && text.push(candidate.token, &ignored)) {
        candidate.stop_string = text.stop();
        candidate.ends = true;
      }
    }
    candidates_.push_back(candidate);
  }
}

FinishedBeam BeamDecoder::finished_beam(const BeamCandidate& candidate, double score) {
  const Beam& beam = beams_[static_cast<size_t>(parent(candidate))];
  FinishedBeam out = finished_.blank();
  out.score = score;
  out.tokens.assign(beam.row.begin() + context_.prefix_width(), beam.row.end());
  out.tokens.push_back(candidate.token);
  out.nodes.assign(beam.nodes.begin(), beam.nodes.end());
  out.nodes.push_back(
      log_.add(candidate.logprob, logprobs_[static_cast<size_t>(candidate.beam)].top()));
  const bool stop_id = processors_.is_stop(candidate.token);
  out.stop_token = stop_id ? candidate.token : -1;
  const bool stopped = stop_id || candidate.stop_string >= 0 ||
                       processors_.completes_choice(beam.row, candidate.token);
  out.reason = stopped ? FinishReason::kStop : FinishReason::kLength;
  return out;
}

void BeamDecoder::finish_candidates() {
  for (const BeamVerdict::Finish& finish : verdict_.finish) {
    const BeamCandidate& candidate = candidates_[static_cast<size_t>(finish.candidate)];
    if (finished_.full() && !(finish.score > finished_.worst())) continue;
    finished_.add(finished_beam(candidate, finish.score));
  }
}

void BeamDecoder::run_on(std::vector<Transition>* next) {
  for (size_t i = 0; i < verdict_.running.size(); ++i) {
    const auto index = static_cast<size_t>(verdict_.running[i]);
    const BeamCandidate& candidate = candidates_[index];
    const int32_t from = parent(candidate);
    const Beam& beam = beams_[static_cast<size_t>(from)];
    Beam& to = next_beams_[i];
    to.row = beam.row;
    to.row.push_back(candidate.token);
    to.nodes = beam.nodes;
    to.nodes.push_back(
        log_.add(candidate.logprob, logprobs_[static_cast<size_t>(candidate.beam)].top()));
    to.score = candidate.score;
    if (beam.text) std::swap(*to.text, texts_[index]);
    next->push_back({from, candidate.token});
  }
  beams_.swap(next_beams_);
  width_ = static_cast<int64_t>(verdict_.running.size());
}

// 4.31 at max_tokens: what still runs is added as it is.
void BeamDecoder::add_open_beams() {
  for (const int32_t index : verdict_.running) {
    const BeamCandidate& candidate = candidates_[static_cast<size_t>(index)];
    const double score = rule_.open_score(candidate.score, generated_ + 1);
    finished_.add(finished_beam(candidate, score));
  }
}

void BeamDecoder::advance(const SelectResult* rows, const std::vector<int32_t>*, FullRows& full,
                          std::vector<Transition>* next) {
  next->clear();
  full_index_.clear();
  row_count_ = width_;
  for (int64_t h = 0; h < width_; ++h) {
    score_row(rows[h], h, full);
    full_index_.push_back(h);
  }
  if (generated_ == 0 && context_.sampling() && old_rule()) {
    // 4.31 starts beam sampling with num_beams equal beams, so equal tokens can be drawn again.
    for (; row_count_ < params_.num_beams; ++row_count_) {
      rows_[static_cast<size_t>(row_count_)] = rows_.front();
      logprobs_[static_cast<size_t>(row_count_)] = logprobs_.front();
      full_index_.push_back(0);
    }
  }
  if (context_.sampling()) {
    draw_candidates(full);
  } else {
    rank_candidates();
  }
  mark_ends();
  const bool complete = static_cast<int64_t>(candidates_.size()) == rule_.candidates();
  rule_.decide(candidates_, generated_, complete, &verdict_);
  finish_candidates();
  bool over = rule_.over(candidates_, verdict_, generated_, finished_);
  if (!over && generated_ + 1 >= context_.max_tokens) {
    add_open_beams();
    over = true;
  }
  if (!over) {
    run_on(next);
  } else {
    width_ = 0;
    for (const FinishedBeam* beam : finished_.sorted()) returned_.push_back(*beam);
    if (returned_.empty()) fail_no_token(processors_.restricting_option(), generated_);
    if (static_cast<int64_t>(returned_.size()) > params_.n) {
      returned_.resize(static_cast<size_t>(params_.n));
    }
  }
  ++generated_;
}

void BeamDecoder::feed_stream(const int32_t* tokens, const int32_t* nodes, int64_t count,
                              int32_t silent) {
  for (; streamed_ < count; ++streamed_) {
    const int32_t token = tokens[streamed_];
    stream_.push(log_.info(token, nodes[streamed_]), streamed_ == count - 1 && token == silent);
  }
}

void BeamDecoder::drain(std::vector<OutputDelta>* out) {
  if (width_ > 0 && generated_ > 0) {
    const Beam& first = beams_.front();
    const int32_t* tokens = first.row.data() + context_.prefix_width();
    int64_t agreed = generated_;
    const auto agree = [&](const int32_t* other, int64_t count) {
      agreed = std::min(agreed, count);
      const auto differ = std::mismatch(tokens + streamed_, tokens + std::max(agreed, streamed_),
                                        other + streamed_);
      agreed = differ.first - tokens;
    };
    for (int64_t h = 1; h < width_; ++h) {
      agree(beams_[static_cast<size_t>(h)].row.data() + context_.prefix_width(), generated_);
    }
    if (const FinishedBeam* best = finished_.best()) {
      agree(best->tokens.data(), static_cast<int64_t>(best->tokens.size()));
    }
    feed_stream(tokens, first.nodes.data(), agreed, -1);
  } else if (width_ == 0 && !returned_.empty()) {
    const FinishedBeam& best = returned_.front();
    feed_stream(best.tokens.data(), best.nodes.data(), static_cast<int64_t>(best.tokens.size()),
                best.stop_token);
    stream_.close();
  }
  OutputDelta delta;
  if (stream_.drain(&delta)) out->push_back(std::move(delta));
}

OutputResult BeamDecoder::result(const FinishedBeam& beam, OutputTrack* track) const {
  track->close();
  OutputResult out;
  track->result(params_.logprobs >= 0, &out);
  out.score = beam.score;
  out.finish_reason = beam.reason;
  out.stopped_by_token = beam.stop_token;
  if (out.stopped_by_string >= 0 && beam.reason == FinishReason::kLength) {
    out.finish_reason = FinishReason::kStop;
  }
  return out;
}

std::vector<OutputResult> BeamDecoder::finish(bool aborted) {
  POLYLM_CHECK(aborted || width_ == 0);
  if (width_ > 0) {
    for (const FinishedBeam* beam : finished_.sorted()) returned_.push_back(*beam);
    for (int64_t h = 0; h < width_; ++h) {
      const Beam& beam = beams_[static_cast<size_t>(h)];
      FinishedBeam open;
      open.score = generated_ > 0 ? rule_.open_score(beam.score, generated_)
                                  : std::numeric_limits<double>::quiet_NaN();
      open.tokens.assign(beam.row.begin() + context_.prefix_width(), beam.row.end());
      open.nodes = beam.nodes;
      open.reason = FinishReason::kAbort;
      returned_.push_back(std::move(open));
    }
    const auto better = [](const FinishedBeam& a, const FinishedBeam& b) {
      return a.score > b.score;
    };
    std::stable_sort(returned_.begin(), returned_.end(), better);
    if (static_cast<int64_t>(returned_.size()) > params_.n) {
      returned_.resize(static_cast<size_t>(params_.n));
    }
    // Finished hypotheses too: the search that would have chosen among them was not finished.
    for (FinishedBeam& beam : returned_) beam.reason = FinishReason::kAbort;
    width_ = 0;
  }
  std::vector<OutputResult> results;
  for (size_t k = 0; k < returned_.size(); ++k) {
    const FinishedBeam& beam = returned_[k];
    const auto count = static_cast<int64_t>(beam.tokens.size());
    if (k == 0) {
      feed_stream(beam.tokens.data(), beam.nodes.data(), count, beam.stop_token);
      results.push_back(result(beam, &stream_));
      continue;
    }
    OutputTrack track(start_, count, params_.logprobs);
    for (int64_t i = 0; i < count; ++i) {
      const auto at = static_cast<size_t>(i);
      track.push(log_.info(beam.tokens[at], beam.nodes[at]),
                 i == count - 1 && beam.tokens[at] == beam.stop_token);
    }
    results.push_back(result(beam, &track));
  }
  return results;
}

}  // namespace

std::unique_ptr<Decoder> make_beam_decoder(DecodeContext context) {
  return std::make_unique<BeamDecoder>(std::move(context));
}

}  // namespace polylm
