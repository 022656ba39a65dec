// dispatch.cc: chooses kernels once, by what the processor says and POLYLM_ISA; never by timing.
#include "cpu/dispatch.h"

#include <array>
#include <cstdlib>

#include "platform/cpu_features.h"
#include "platform/error.h"

namespace polylm {
namespace {

struct Row {
  const char* name;
  const KernelTable& (*kernels)();  // null: not in this build
  bool (*runs)(const CpuFeatures&);
};

constexpr std::array<Row, kIsaCount> kRows = {{
    {"scalar", scalar_kernels, [](const CpuFeatures&) { return true; }},
#if defined(POLYLM_ISA_AVX2)
    {"avx2", avx2_kernels, [](const CpuFeatures& f) { return f.avx2; }},
#else
    {"avx2", nullptr, [](const CpuFeatures& f) { return f.avx2; }},
#endif
#if defined(POLYLM_ISA_AVX512)
    {"avx512", avx512_kernels, [](const CpuFeatures& f) { return f.avx512; }},
#else
    {"avx512", nullptr, [](const CpuFeatures& f) { return f.avx512; }},
#endif
#if defined(POLYLM_ISA_AVX512BF16)
    {"avx512bf16", avx512bf16_kernels, [](const CpuFeatures& f) { return f.avx512_bf16; }},
#else
    {"avx512bf16", nullptr, [](const CpuFeatures& f) { return f.avx512_bf16; }},
#endif
#if defined(POLYLM_ISA_AMX)
    {"amx", amx_kernels, [](const CpuFeatures& f) { return f.amx_bf16; }},
#else
    {"amx", nullptr, [](const CpuFeatures& f) { return f.amx_bf16; }},
#endif
#if defined(POLYLM_ISA_NEON)
    {"neon", neon_kernels, [](const CpuFeatures& f) { return f.neon; }},
#else
    {"neon", nullptr, [](const CpuFeatures& f) { return f.neon; }},
#endif
#if defined(POLYLM_ISA_NEONBF16)
    {"neonbf16", neonbf16_kernels, [](const CpuFeatures& f) { return f.neon_bf16; }},
#else
    {"neonbf16", nullptr, [](const CpuFeatures& f) { return f.neon_bf16; }},
#endif
}};

const Row& row_of(Isa isa) { return kRows[static_cast<size_t>(isa)]; }

// Entries of `upper` that are not null replace those of `table`.
void overlay(const KernelTable& upper, KernelTable* table) {
  const auto take = [](auto from, auto* to) {
    if (from != nullptr) *to = from;
  };
  take(upper.name, &table->name);
  take(upper.product_bf16, &table->product_bf16);
  if (upper.product_bf16 != nullptr) table->cut_bf16 = upper.cut_bf16;
  take(upper.product_list_bf16, &table->product_list_bf16);
  take(upper.rest, &table->rest);
  take(upper.product_mixed, &table->product_mixed);
  take(upper.product_fp32, &table->product_fp32);
  take(upper.row_scores_bf16, &table->row_scores_bf16);
  take(upper.row_scores_mixed, &table->row_scores_mixed);
  take(upper.row_scores_fp32, &table->row_scores_fp32);
  take(upper.row_sums_bf16, &table->row_sums_bf16);
  take(upper.row_sums_mixed, &table->row_sums_mixed);
  take(upper.row_sums_fp32, &table->row_sums_fp32);
  take(upper.finish, &table->finish);
  take(upper.norm, &table->norm);
  take(upper.store_inputs, &table->store_inputs);
  take(upper.load_inputs, &table->load_inputs);
  take(upper.softmax, &table->softmax);
  take(upper.fold, &table->fold);
  take(upper.has_nonfinite, &table->has_nonfinite);
  take(upper.block_sums, &table->block_sums);
  take(upper.filter, &table->filter);
  take(upper.stream, &table->stream);
  take(upper.busy, &table->busy);
}

using Tables = std::array<KernelTable, kIsaCount>;

// Trap: a function that makes a table is itself compiled for its instruction set, so it is called
// only where that runs; the tables above stay as the last one that does, and nobody asks for them.
Tables merged_tables() {
  Tables tables;
  KernelTable table;
  for (size_t i = 0; i < tables.size(); ++i) {
    const Row& row = kRows[i];
    if (row.kernels != nullptr && row.runs(cpu_features())) overlay(row.kernels(), &table);
    tables[i] = table;
  }
  return tables;
}

}  // namespace

const char* isa_name(Isa isa) { return row_of(isa).name; }

std::string isa_obstacle(Isa isa) {
  const Row& row = row_of(isa);
  if (!row.runs(cpu_features())) return "this processor does not have it";
  if (row.kernels == nullptr) return "this build has no kernels for it";
  return "";
}

Isa best_isa() {
  for (int i = kIsaCount - 1; i > 0; --i) {
    if (isa_obstacle(static_cast<Isa>(i)).empty()) return static_cast<Isa>(i);
  }
  return Isa::kScalar;
}

Isa isa_from_name(std::string_view name, const char* source) {
  std::string usable;
  for (int i = 0; i < kIsaCount; ++i) {
    const Isa isa = static_cast<Isa>(i);
    const std::string obstacle = isa_obstacle(isa);
    if (name == isa_name(isa)) {
      if (obstacle.empty()) return isa;
      fail(Code::kDevice, std::string(source) + " is " + quoted(name) + ", but " + obstacle,
           std::string("leave ") + source + " unset for the best that works");
    }
    if (obstacle.empty()) usable += (usable.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  fail(Code::kDevice, std::string(source) + " is " + quoted(name) + ", expected one of " + usable,
       std::string("leave ") + source + " unset for the best that works");
}

Isa isa_from_environment() {
  const char* wanted = std::getenv("POLYLM_ISA");
  if (wanted == nullptr || *wanted == '\0') return best_isa();
  return isa_from_name(wanted, "POLYLM_ISA");
}

const KernelTable& kernels_of(Isa isa) {
  static const Tables tables = merged_tables();
  return tables[static_cast<size_t>(isa)];
}

InputKind input_kind(const KernelTable& kernels, Precision precision) {
  if (precision == Precision::kFp32) return InputKind::kExact;
  return kernels.product_bf16 != nullptr ? InputKind::kBf16 : InputKind::kRounded;
}

}  // namespace polylm
