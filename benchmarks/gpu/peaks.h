// peaks.h: what the card itself can do, measured: the yardsticks of the GPU benchmark.
#pragma once

#include <cstdint>

// GB/s (1e9) of a read-only stream of `bytes` with 16-byte loads, the median of `repeats` passes.
double card_read_bandwidth(int64_t bytes, int repeats);
// TFLOP/s of mma.sync m16n8k16 bf16 on registers with random operands, the best of `repeats`.
double card_matrix_peak(int64_t products_per_warp, int repeats);
