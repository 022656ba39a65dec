// peaks.cu: see peaks.h. Grid-stride reads over memory that holds random bits, and independent
// products in registers. Trap: a result is stored where the compiler cannot know it is not needed.
#include "peaks.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/ptx.h"

namespace {

using polylm::Quad;

struct StreamCall {
  const Quad* from = nullptr;
  int64_t count = 0;
  uint32_t* out = nullptr;
};

__global__ void __launch_bounds__(256) read_kernel(const StreamCall p) {
  constexpr int kInFlight = 8;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * 256;
  int64_t at = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  uint32_t mix = 0;
  for (; at + (kInFlight - 1) * threads < p.count; at += kInFlight * threads) {
    Quad q[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) q[i] = polylm::load_constant(p.from + at + i * threads);
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) mix ^= q[i].x ^ q[i].y ^ q[i].z ^ q[i].w;
  }
  if (mix == 0x12345678U) p.out[0] = mix;
}

struct FillCall {
  uint32_t* to = nullptr;
  int64_t count = 0;
};
__global__ void __launch_bounds__(256) fill_kernel(const FillCall p) {
  const int64_t threads = static_cast<int64_t>(gridDim.x) * 256;
  int64_t i = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  for (; i < p.count; i += threads) {
    p.to[i] = static_cast<uint32_t>(i) * 2654435761U ^ static_cast<uint32_t>(i >> 13);
  }
}

struct ProductsCall {
  int64_t count = 0;
  float* out = nullptr;
};
__global__ void __launch_bounds__(256) products_kernel(const ProductsCall p) {
  constexpr int kIndependent = 8;
  float d[kIndependent][4] = {};
  const uint32_t salt = (blockIdx.x * 256 + threadIdx.x) * 2654435761U;
  uint32_t a[4];
  for (uint32_t i = 0; i < 4; ++i) a[i] = ((salt * (i + 3)) & 0x807f807fU) | 0x3f003f00U;
  for (int64_t n = 0; n < p.count; n += kIndependent) {
#pragma unroll
    for (int i = 0; i < kIndependent; ++i) polylm::mma_bf16(d[i], a, a[i % 4], a[(i + 1) % 4]);
  }
  float sum = 0.0F;
  for (int i = 0; i < kIndependent; ++i) sum += d[i][0] + d[i][1] + d[i][2] + d[i][3];
  if (sum == 12345.0F) p.out[0] = sum;
}

double seconds_of(cudaStream_t stream, cudaError_t started,
                  std::chrono::steady_clock::time_point start) {
  polylm::check_cuda(started, "measuring");
  polylm::check_cuda(cudaStreamSynchronize(stream), "measuring");
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int processors() {
  cudaDeviceProp p{};
  polylm::check_cuda(cudaGetDeviceProperties(&p, 0), "asking the device");
  return p.multiProcessorCount;
}

}  // namespace

double card_read_bandwidth(int64_t bytes, int repeats) {
  const polylm::DeviceBuffer data(bytes, "measuring");
  const polylm::DeviceBuffer out(256, "measuring");
  polylm::LaunchShape shape;
  shape.grid = polylm::grid_of(processors() * 8);
  shape.threads = 256;
  const FillCall fill{data.as<uint32_t>(), bytes / 4};
  polylm::check_cuda(polylm::launch(&fill_kernel, shape, fill), "measuring");
  polylm::check_cuda(cudaStreamSynchronize(nullptr), "measuring");
  std::vector<double> seconds;
  for (int i = 0; i <= repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const StreamCall call{data.as<Quad>(), bytes / 16, out.as<uint32_t>()};
    const double s = seconds_of(nullptr, polylm::launch(&read_kernel, shape, call), start);
    if (i > 0) seconds.push_back(s);  // the first one loads the kernel
  }
  std::sort(seconds.begin(), seconds.end());
  return static_cast<double>(bytes) / seconds[seconds.size() / 2] / 1e9;
}

double card_matrix_peak(int64_t products_per_warp, int repeats) {
  const polylm::DeviceBuffer out(256, "measuring");
  polylm::LaunchShape shape;
  const int blocks = processors() * 2;
  shape.grid = polylm::grid_of(blocks);
  shape.threads = 256;
  double best = 0.0;
  for (int i = 0; i <= repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    const ProductsCall call{products_per_warp, out.as<float>()};
    const double s = seconds_of(nullptr, polylm::launch(&products_kernel, shape, call), start);
    const double flop = 2.0 * 16 * 8 * 16 * static_cast<double>(products_per_warp) * 8.0 * blocks;
    if (i > 0) best = std::max(best, flop / s / 1e12);
  }
  return best;
}
