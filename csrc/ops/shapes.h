// shapes.h: the alphabet and the plain data that cross the Ops interface. Devices, models and the
// engine include it; it includes nothing of ours but the platform.
//
// The alphabet, everywhere in this project:
//   T rows (tokens) of a step     S sequences of a step    R rows whose logits are wanted
//   C channels (hidden size)      H heads                  D head size
//   F feed-forward width          L layers                 V vocabulary
//   B tokens per KV block         K, N inner and outer size of a product y[T,N] = x[T,K] · w[N,K]ᵀ
#pragma once

#include <cstdint>
#include <string>

namespace polylm {

// What activations, P and the KV cache are rounded to. Accumulation and the residual stream are
// fp32 in both. kFp32 rounds nothing: float32 arithmetic on the exact weights.
enum class Precision : uint8_t { kBf16, kFp32 };

// How a matrix is stored. Only prepare/pack and the products look inside.
enum class WeightFormat : uint8_t { kBf16, kFp32 };

// A matrix w[N,K] owned by its Ops. N and K are the logical sizes; padding is the device's secret.
struct Weight {
  int64_t n = 0;
  int64_t k = 0;
  WeightFormat format = WeightFormat::kBf16;
  int32_t handle = -1;
};

// A piece of a matrix on its way into the packed layout: element (n0 + i, k0 + j) is
// data[i * stride_n + j * stride_k], for i < n_count, j < k_count. Exactly one of bf16_data and
// fp32_data is set, as the Weight's format says.
struct WeightPiece {
  int64_t n0 = 0;
  int64_t n_count = 0;
  int64_t k0 = 0;
  int64_t k_count = 0;
  int64_t stride_n = 0;
  int64_t stride_k = 0;
  const uint16_t* bf16_data = nullptr;
  const float* fp32_data = nullptr;
};

// A vector of fp32 parameters (bias, norm) owned by its Ops; size 0 means "none".
struct Vector {
  int64_t size = 0;
  int32_t handle = -1;
};

// kResidual: the fp32 stream x[T,C]. kInput: what feeds a product, in the device's layout and
// precision (row-major here, packed tiles there).
enum class ActKind : uint8_t { kResidual, kInput };

// Activations of a step: at most `rows` rows of `cols` numbers, owned by its Ops.
struct Act {
  int64_t rows = 0;
  int64_t cols = 0;
  ActKind kind = ActKind::kInput;
  int32_t handle = -1;
};

// The paged KV cache of all layers: `blocks` blocks of B = DeviceInfo::block_tokens tokens.
struct KvShape {
  int64_t layers = 0;
  int64_t heads = 0;      // H
  int64_t head_size = 0;  // D
  int64_t blocks = 0;
};
struct Kv {
  KvShape shape;
  int32_t handle = -1;
};

// Rows of one sequence in a step: rows [first_row, first_row + row_count) of the step are its
// positions [first_position, first_position + row_count). blocks[i] holds positions
// [i*B, (i+1)*B); the table covers at least first_position + row_count positions.
struct SequenceRows {
  int64_t first_row = 0;
  int64_t row_count = 0;
  int64_t first_position = 0;
  const int32_t* blocks = nullptr;
  int64_t block_count = 0;
};

// Everything a step needs from the host, uploaded once by Ops::begin. Pointers stay valid until
// collect. Rows [0, generated_rows) are generated tokens, the rest are prompt tokens (the two roles
// of decisions.md 4); a sequence's rows have one role.
// With `sources` the step follows one that is in flight, whose results nobody has seen yet: the
// token of row t is the best candidate of select sources[t] of that one, or any token where that
// has no candidate (its row is broken, and so is what follows). All rows are generated ones then.
struct StepInputs {
  int64_t rows = 0;            // T
  int64_t generated_rows = 0;  // <= T
  const int32_t* tokens = nullptr;  // [T], or null with sources
  const SequenceRows* sequences = nullptr;  // [S], covering all rows in order
  int64_t sequence_count = 0;               // S
  const int32_t* sources = nullptr;  // [T] or null; only where DeviceInfo::feeds_back
};

// One row whose logits are wanted. `listed` are distinct token ids in [0, V), any order, whose raw
// logits come back one by one and which are left out of candidates and sums.
struct SelectRow {
  int64_t row = 0;  // index in the step, < T
  const int32_t* listed = nullptr;
  int64_t listed_count = 0;
  float temperature = 1.0F;  // > 0: the second sum of exponentials is taken at this temperature
  bool keep_full = false;    // Ops::full_row(i) may be asked for after collect
};

inline constexpr int64_t kCandidates = 64;   // best tokens returned per row
inline constexpr int64_t kSumTokens = 1024;  // sums of exponentials are folded over blocks of this

// What select returns for one row. "Rest" is the vocabulary without the listed tokens and without
// tokens whose logit is -inf. When a logit is not finite there are no candidates and no sums.
struct SelectResult {
  const float* listed_logits = nullptr;  // [listed_count], in the order of SelectRow::listed
  int64_t candidate_count = 0;           // min(64, size of the rest)
  const int32_t* candidate_ids = nullptr;     // by logit descending, equal logits by id ascending
  const float* candidate_logits = nullptr;
  float rest_max = 0.0F;              // -inf when the rest is empty
  double rest_sum_exp = 0.0;          // sum over the rest of exp(logit - rest_max)
  double rest_sum_exp_tempered = 0.0;  // sum over the rest of exp((logit - rest_max) / temperature)
  bool finite = true;                 // false when any logit of the row is NaN or +inf
};

// One block copied onto another in every layer, K and V (copy-on-write).
struct BlockCopy {
  int32_t from = 0;
  int32_t to = 0;
};

struct DeviceInfo {
  std::string kind;  // "cpu", "cuda", "ref", "sim"
  std::string name;  // what the machine calls it
  std::string isa;   // the instruction set in use, "" where that means nothing
  int64_t index = 0;  // among the devices of its kind
  std::string reason;  // why not a better one, "" when there is nothing to say
  Precision precision = Precision::kBf16;
  int64_t block_tokens = 0;  // B
  // Whether generated and prompt rows of the same tokens may differ in bits (decisions.md 4).
  bool roles_matter = false;
  // Whether a step may begin while the one before it is in flight (StepInputs::sources).
  bool feeds_back = false;
};

// Bytes this Ops holds, by owner.
struct DeviceMemory {
  int64_t weights_bytes = 0;
  int64_t kv_bytes = 0;
  int64_t workspace_bytes = 0;
};

}  // namespace polylm
