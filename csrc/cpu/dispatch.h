// dispatch.h: which instruction sets this build and this machine have, and the kernels of each.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cpu/kernels.h"
#include "ops/shapes.h"

namespace polylm {

// From worst to best, one processor family after the other.
enum class Isa : uint8_t { kScalar, kAvx2, kAvx512, kAvx512Bf16, kAmx, kNeon, kNeonBf16 };
inline constexpr int kIsaCount = 7;

const char* isa_name(Isa isa);

// "" when kernels for it are built and the machine runs them, else why not.
std::string isa_obstacle(Isa isa);

// The best one without an obstacle.
Isa best_isa();

// "scalar", "avx2", ... exactly; throws DEVICE for any other word and for an ISA with an obstacle.
Isa isa_from_name(std::string_view name, const char* source);

// What POLYLM_ISA says, or best_isa() when it is unset or empty. Throws as isa_from_name.
Isa isa_from_environment();

// The table of `isa` with its null entries taken from the ones below it.
const KernelTable& kernels_of(Isa isa);

// How activations and keys are stored for these kernels at this precision.
InputKind input_kind(const KernelTable& kernels, Precision precision);

}  // namespace polylm
