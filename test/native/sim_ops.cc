// sim_ops.cc: the simulated device and the model on it.
#include "sim_ops.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <new>
#include <thread>

#include "alloc_probe.h"
#include "platform/error.h"

namespace polylm::test {
namespace {

constexpr int64_t kChannels = 8;

uint64_t mix(uint64_t x) {  // splitmix64's finaliser
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9u;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

size_t at(int64_t i) { return static_cast<size_t>(i); }

}  // namespace

uint64_t sim_start(const SimOptions& options) { return mix(options.seed + 0x9e3779b97f4a7c15u); }

uint64_t sim_extend(uint64_t history, int32_t token, bool generated) {
  const auto word = static_cast<uint64_t>(token) * 2 + (generated ? 1 : 0);
  return mix(history + 0x9e3779b97f4a7c15u * (word + 1));
}

void sim_logits(const SimOptions& options, uint64_t history, float* logits) {
  const bool broken = options.nan_every != 0 && mix(history) % options.nan_every == 0;
  for (int64_t v = 0; v < options.vocab; ++v) {
    const uint64_t bits = mix(history ^ (static_cast<uint64_t>(v) * 0xd1342543de82ef95u));
    logits[v] = static_cast<float>(bits % 96) / 8.0F - 6.0F;
    if (broken) logits[v] = std::numeric_limits<float>::quiet_NaN();
  }
}

namespace {

// Logits have few values: rows are put in order by counting, and powers of e are looked up.
constexpr int32_t kLevels = 96;
using Powers = std::array<double, kLevels>;

int32_t level_of(float logit) { return static_cast<int32_t>((logit + 6.0F) * 8.0F); }

// exp(-level / 8 / temperature)
const Powers& powers_at(float temperature) {
  thread_local std::map<float, Powers> known;
  const auto found = known.find(temperature);
  if (found != known.end()) return found->second;
  if (known.size() > 10000) known.clear();  // a test tries very many
  Powers powers;
  for (int32_t level = 0; level < kLevels; ++level) {
    const double below = -static_cast<double>(level) / 8.0;
    powers[at(level)] = std::exp(below / static_cast<double>(temperature));
  }
  return known.emplace(temperature, powers).first->second;
}

// The candidates by logit, equal ones by id, and the sums relative to the best of them.
void order_candidates(float temperature, SimRow* row, SelectResult* r) {
  std::array<int32_t, kLevels + 1> places{};  // by level, best first
  const auto place_of = [&](size_t v) { return at(kLevels - 1 - level_of(row->logits[v])); };
  for (size_t v = 0; v < row->logits.size(); ++v) {
    if (row->is_listed[v] == 0) ++places[place_of(v) + 1];
  }
  size_t best = 0;
  while (best < kLevels && places[best + 1] == 0) ++best;
  if (best == kLevels) return;  // all are listed
  r->rest_max = static_cast<float>(kLevels - 1 - static_cast<int32_t>(best)) / 8.0F - 6.0F;
  const Powers plain = powers_at(1.0F);
  const Powers& tempered = powers_at(temperature);
  for (size_t place = best; place < kLevels; ++place) {
    const auto count = static_cast<double>(places[place + 1]);
    r->rest_sum_exp += count * plain[place - best];
    r->rest_sum_exp_tempered += count * tempered[place - best];
  }
  for (size_t place = 0; place < kLevels; ++place) places[place + 1] += places[place];
  row->candidate_ids.resize(at(places[kLevels]));
  for (size_t v = 0; v < row->logits.size(); ++v) {
    if (row->is_listed[v] != 0) continue;
    row->candidate_ids[at(places[place_of(v)]++)] = static_cast<int32_t>(v);
  }
}

}  // namespace

SelectResult sim_select(const SelectRow& wanted, SimRow* row) {
  SelectResult r;
  row->listed.clear();
  row->is_listed.assign(row->logits.size(), 0);
  for (int64_t j = 0; j < wanted.listed_count; ++j) {
    row->listed.push_back(row->logits[at(wanted.listed[j])]);
    row->is_listed[at(wanted.listed[j])] = 1;
  }
  row->candidate_ids.clear();
  r.finite = std::isfinite(row->logits[0]);  // all or none
  r.rest_max = -std::numeric_limits<float>::infinity();
  if (r.finite) order_candidates(wanted.temperature, row, &r);
  if (static_cast<int64_t>(row->candidate_ids.size()) > kCandidates) {
    row->candidate_ids.resize(at(kCandidates));
  }
  row->candidate_logits.clear();
  for (const int32_t v : row->candidate_ids) row->candidate_logits.push_back(row->logits[at(v)]);
  r.listed_logits = row->listed.data();
  r.candidate_count = static_cast<int64_t>(row->candidate_ids.size());
  r.candidate_ids = row->candidate_ids.data();
  r.candidate_logits = row->candidate_logits.data();
  return r;
}

SimOps::SimOps(const SimOptions& options) : options_(options) {
  info_.kind = "sim";
  info_.name = "simulated";
  info_.block_tokens = options.block_tokens;
  info_.roles_matter = options.roles_matter;
  info_.feeds_back = options.feeds_back;
}

DeviceMemory SimOps::memory() const {
  DeviceMemory memory;
  memory.kv_bytes = static_cast<int64_t>(cells_.size() * sizeof(Cell));
  return memory;
}

Weight SimOps::do_make_weight(int64_t n, int64_t k, WeightFormat format) {
  return {n, k, format, handles_++};
}
void SimOps::do_pack_weight(const Weight&, const WeightPiece&) {}
void SimOps::do_read_weight(const Weight& w, int64_t, int64_t n_count, float* out) const {
  std::fill(out, out + n_count * w.k, 0.0F);
}
Vector SimOps::do_make_vector(const float*, int64_t size) { return {size, handles_++}; }
Act SimOps::do_make_act(int64_t rows, int64_t cols, ActKind kind) {
  return {rows, cols, kind, handles_++};
}
void SimOps::do_write_act(const Act&, int64_t, const float*) {}
void SimOps::do_read_act(const Act& act, int64_t rows, float* out) const {
  std::fill(out, out + rows * act.cols, 0.0F);
}

Kv SimOps::do_make_kv(const KvShape& shape) {
  kv_shape_ = shape;
  cells_.assign(at(shape.layers * shape.blocks * options_.block_tokens), Cell{});
  return {shape, handles_++};
}

void SimOps::do_reserve(const StepLimits& limits) {
  seen_.resize(at(limits.rows));
  for (Made& made : made_) {
    made.rows.resize(at(limits.select_rows));
    for (SimRow& row : made.rows) row.logits.resize(at(limits.vocab));
  }
}

void SimOps::do_copy_blocks(const Kv&, const BlockCopy* copies, int64_t count) {
  if (options_.skip_copies) return;
  const int64_t tokens = options_.block_tokens;
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t layer = 0; layer < kv_shape_.layers; ++layer) {
      const int64_t base = layer * kv_shape_.blocks;
      std::copy_n(&cells_[at((base + copies[i].from) * tokens)], tokens,
                  &cells_[at((base + copies[i].to) * tokens)]);
    }
  }
}

// Whether and where this step will fail.
void SimOps::plan_fault() {
  const uint64_t bits = mix(options_.seed * 31 + ++begun_);
  made().fault_planned = options_.fault_every != 0 && bits % options_.fault_every == 0;
  made().fault_place = static_cast<Place>((bits >> 32) % 6);
  made().fault_kind = (bits >> 40) % 3;
}

void SimOps::maybe_throw(Place place) {
  Made& m = made();
  if (!m.fault_planned || m.fault_place != place) return;
  m.fault_planned = false;
  // A row that cannot be fetched ends its request unless the device is gone.
  if (place == Place::kFullRow || m.fault_kind == 0) throw_fault(Code::kDevice, false);
  throw_fault(Code::kInternal, m.fault_kind == 1);
}

void SimOps::do_begin() {
  plan_fault();
  maybe_throw(Place::kBegin);
  prompt_rows_seen_ += step().rows - step().generated_rows;
  max_rows_seen_ = std::max(max_rows_seen_, step().rows);
  made().in_flight = false;
  made().sequences.assign(step().sequences, step().sequences + step().sequence_count);
  made().tables.clear();
  for (int64_t i = 0; i < step().sequence_count; ++i) {
    const SequenceRows& s = step().sequences[i];
    std::vector<int32_t>& table =
        made().tables.emplace_back(s.blocks, s.blocks + s.block_count);
    ++sequences_seen_;
    const int64_t every = options_.wrong_block_every;
    if (every > 0 && sequences_seen_ % every == 0) {
      table[0] = static_cast<int32_t>((table[0] + 1) % kv_shape_.blocks);
    }
  }
  if (step().sources == nullptr) return;
  ++fed_steps_;
  check_follows();
}

// A row whose token comes from the step in flight must follow the row that chooses it.
void SimOps::check_follows() {
  const Made& before = made_[1 - slot()];
  for (int64_t i = 0; i < step().sequence_count; ++i) {
    const SequenceRows& s = step().sequences[i];
    const int64_t chosen_by = before.wanted[at(step().sources[s.first_row])].row;
    size_t j = 0;
    while (before.sequences[j].first_row + before.sequences[j].row_count <= chosen_by) ++j;
    const SequenceRows& parent = before.sequences[j];
    const int64_t position = parent.first_position + chosen_by - parent.first_row;
    const int64_t shared = position / options_.block_tokens + 1;
    const bool follows = s.row_count == 1 && s.first_position == position + 1 &&
                         std::equal(s.blocks, s.blocks + shared, before.tables[j].begin());
    if (!follows && options_.wrong_block_every == 0) ++violations_;
  }
}

std::vector<int32_t> SimOps::blocks_in_flight() const {
  std::vector<int32_t> blocks;
  for (const Made& m : made_) {
    for (size_t i = 0; m.in_flight && i < m.sequences.size(); ++i) {
      const SequenceRows& s = m.sequences[i];
      for (int64_t p = s.first_position; p < s.first_position + s.row_count; ++p) {
        blocks.push_back(m.tables[i][at(p / options_.block_tokens)]);
      }
    }
  }
  return blocks;
}

int32_t SimOps::token_of(int64_t row) const {
  if (step().sources == nullptr) return step().tokens[row];
  const int64_t right = step().sources[row];
  const int64_t source = options_.wrong_source ? std::max<int64_t>(0, right - 1) : right;
  const SelectResult& chosen = made_[1 - slot()].results[at(source)];
  return chosen.candidate_count > 0 ? chosen.candidate_ids[0] : 0;
}

SimOps::Cell& SimOps::cell(int64_t layer, const SequenceRows& s, int64_t position) {
  const std::vector<int32_t>& table = made().tables[at(&s - step().sequences)];
  const int64_t block = table[at(position / options_.block_tokens)];
  const int64_t slot = (layer * kv_shape_.blocks + block) * options_.block_tokens;
  return cells_[at(slot + position % options_.block_tokens)];
}

void SimOps::do_embed(const EmbedArgs&) {}
void SimOps::do_norm(const NormArgs&) {}
void SimOps::do_linear(const LinearArgs&) {}

void SimOps::do_qkv(const QkvArgs& a) {
  for (int64_t i = 0; i < step().sequence_count; ++i) {
    const SequenceRows& s = step().sequences[i];
    for (int64_t r = 0; r < s.row_count; ++r) {
      const int64_t row = s.first_row + r;
      const int64_t position = s.first_position + r;
      Cell written;
      written.token = token_of(row);
      written.position = static_cast<int32_t>(position);
      written.generated = options_.roles_matter &&
                          row < step().generated_rows - (options_.swap_roles ? 1 : 0);
      const uint64_t before =
          position == 0 ? sim_start(options_) : cell(a.layer, s, position - 1).history;
      written.history = sim_extend(before, written.token, written.generated);
      cell(a.layer, s, position) = written;
    }
  }
}

// What attention sees from the rows of a sequence; a broken chain is a violation.
void SimOps::walk(int64_t layer, const SequenceRows& s) {
  uint64_t history = sim_start(options_);
  bool whole = true;
  const int64_t end = s.first_position + s.row_count;
  for (int64_t p = 0; p < end; ++p) {
    const Cell& seen = cell(layer, s, p);
    history = sim_extend(history, seen.token, seen.generated);
    whole = whole && seen.position == p && seen.history == history;
    if (p >= s.first_position) seen_[at(s.first_row + p - s.first_position)] = history;
  }
  if (!whole) ++violations_;
}

void SimOps::do_attend(const AttendArgs& a) {
  if (a.layer == 0) maybe_throw(Place::kFirstLayer);
  if (a.layer + 1 == kv_shape_.layers) maybe_throw(Place::kLastLayer);
  for (int64_t i = 0; i < step().sequence_count; ++i) walk(a.layer, step().sequences[i]);
}

void SimOps::do_select(const SelectArgs& a) {
  maybe_throw(Place::kSelect);
  Made& m = made();
  m.wanted.assign(a.rows, a.rows + a.row_count);
  m.results.clear();
  for (int64_t i = 0; i < a.row_count; ++i) {
    sim_logits(options_, seen_[at(a.rows[i].row)], m.rows[at(i)].logits.data());
    m.results.push_back(sim_select(a.rows[i], &m.rows[at(i)]));
  }
}

void SimOps::throw_fault(Code code, bool is_bad_alloc) {
  fault_thrown_ = is_bad_alloc ? Code::kInsufficientMemory : code;
  if (is_bad_alloc) throw std::bad_alloc();
  fail(code, "injected by the test");
}

const std::vector<SelectResult>& SimOps::do_collect() {
  made().in_flight = false;
  maybe_throw(Place::kCollect);
  if (steps_++ == options_.fault_step) throw_fault(options_.fault, options_.fault_is_bad_alloc);
  return made().results;
}

const float* SimOps::do_full_row(int64_t select_index) {
  POLYLM_CHECK(made().wanted[at(select_index)].keep_full);
  maybe_throw(Place::kFullRow);
  return made().rows[at(select_index)].logits.data();
}

SimModel::SimModel(const SimOptions& options) : options_(options), ops_(options) {
  config_.family = "sim";
  config_.layers = options.layers;
  config_.heads = 1;
  config_.hidden_size = kChannels;
  config_.inner_size = kChannels;
  config_.context_size = options.context;
  config_.vocab_size = options.vocab;
  head_ = ops_.make_weight(options.vocab, kChannels, WeightFormat::kFp32);
  const float ones[kChannels] = {1, 1, 1, 1, 1, 1, 1, 1};
  norm_ = ops_.make_vector(ones, kChannels);
}

void SimModel::reserve(const StepLimits& limits, int64_t kv_blocks) {
  x_ = ops_.make_act(limits.rows, kChannels, ActKind::kResidual);
  h_ = ops_.make_act(limits.rows, kChannels, ActKind::kInput);
  q_ = ops_.make_act(limits.rows, kChannels, ActKind::kInput);
  out_ = ops_.make_act(limits.rows, kChannels, ActKind::kInput);
  kv_ = ops_.make_kv({options_.layers, 1, kChannels, kv_blocks});
  ops_.reserve(limits);
}

bool SimModel::forward(const StepInputs& in, const SelectRows& select,
                       const std::atomic<bool>& stop) {
  const AllocPause device;  // its memory is not the engine's
  const Weight qkv{3 * kChannels, kChannels, WeightFormat::kFp32, 0};
  ops_.begin(in);
  ops_.embed({head_, {}, x_});
  for (int64_t layer = 0; layer < options_.layers; ++layer) {
    if (stop.load()) return false;
    if (options_.layer_us > 0) {
      std::this_thread::sleep_for(std::chrono::microseconds(options_.layer_us));
    }
    ops_.norm({x_, norm_, norm_, 1e-5F, h_});
    ops_.qkv({h_, qkv, {}, kv_, layer, 1.0F, q_});
    ops_.attend({q_, kv_, layer, out_});
  }
  ops_.select({out_, head_, select.rows, select.count});
  ops_.submit();
  return true;
}

}  // namespace polylm::test
