// gemm.h: the table of products, every shape of the 1.7B and the 13B model by numbers of rows.
#pragma once

#include <cstdint>
#include <string>

namespace polylm_bench {

struct GemmOptions {
  bool smoke = false;
  bool json = false;
  int64_t threads = 0;
  int64_t repeats = 7;
  std::string only;  // "gemm", then part of a line's name, e.g. "gemm 2048 to 6144"
};

void run_gemm(const GemmOptions& options);

}  // namespace polylm_bench
