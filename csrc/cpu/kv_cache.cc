// kv_cache.cc: where a channel of a token lies, and the four ways to touch it. See kv_cache.h.
#include "cpu/kv_cache.h"

#include <algorithm>
#include <cstring>

#include "platform/checked.h"

namespace polylm {
namespace {

// Element of (n, k) in a matrix of k_tiles tiles per column.
constexpr int64_t bf16_element(int64_t n, int64_t k, int64_t k_tiles) {
  const int64_t tile = n / kTileN * k_tiles + k / kTileK;
  return tile * kTileN * kTileK + (k % kTileK / 2) * 32 + n % kTileN * 2 + k % 2;
}
constexpr int64_t fp32_element(int64_t n, int64_t k, int64_t k_tiles) {
  const int64_t tile = n / kTileN * k_tiles + k / kTileK;
  return tile * kTileN * kTileK + k % kTileK * kTileN + n % kTileN;
}

// Calls f(head, first channel of the head, how many, index of the first in values).
template <class F>
void for_heads(const KvCache& cache, int64_t c0, int64_t count, F f) {
  const int64_t size = cache.shape.head_size;
  for (int64_t c = c0; c < c0 + count;) {
    const int64_t d = c % size;
    const int64_t some = std::min(size - d, c0 + count - c);
    f(c / size, d, some, c - c0);
    c += some;
  }
}

// Channels [d0, d0 + count) of one token; `to` is where its channel 0 goes. Neighbouring channels
// share a word, and words are a line apart: from one tile to the next too.
void write_k_token(const uint16_t* x, int64_t d0, int64_t count, uint16_t* to) {
  int64_t d = d0;
  const int64_t end = d0 + count;
  if (d % 2 != 0) to[d++ / 2 * 32 + 1] = *x++;
  for (; d + 2 <= end; d += 2, x += 2) std::memcpy(to + d / 2 * 32, x, 2 * sizeof *x);
  if (d < end) to[d / 2 * 32] = *x;
}

// Channels [d0, d0 + count) of two tokens that share words; `to` is where their channel 0 goes.
void write_v_pair(const uint16_t* even, const uint16_t* odd, int64_t d0, int64_t count,
                  uint16_t* to) {
  for (int64_t i = 0; i < count;) {
    const int64_t d = d0 + i;
    const int64_t some = std::min(kTileN - d % kTileN, count - i);
    uint16_t* line = to + d / kTileN * (kTileN * kTileK) + d % kTileN * 2;
    for (int64_t j = 0; j < some; ++j) {
      line[2 * j] = even[i + j];
      line[2 * j + 1] = odd[i + j];
    }
    i += some;
  }
}

}  // namespace

KvCache make_kv_cache(const KvShape& shape, bool is_bf16) {
  KvCache cache;
  cache.shape = shape;
  cache.is_bf16 = is_bf16;
  cache.padded_head = round_up(shape.head_size, kTileK);
  cache.tile_bytes = is_bf16 ? kTileBytesBf16 : kTileBytesFp32;
  cache.half_bytes = cache.padded_head * kCpuBlockTokens * (is_bf16 ? 2 : 4);
  const int64_t blocks = checked_mul(shape.layers, shape.blocks);
  const int64_t per_block = checked_mul(2 * cache.half_bytes, shape.heads);
  cache.buffer = Buffer(checked_mul(blocks, per_block), "the KV cache");
  return cache;
}

void prepare_block(const KvCache& cache, int64_t layer, int64_t block, int64_t tokens) {
  char* at = cache.block(layer, block);
  if (cache.padded_head != cache.shape.head_size) {
    std::memset(at, 0, static_cast<size_t>(cache.block_bytes()));
    return;
  }
  if (tokens == kCpuBlockTokens) return;
  for (int64_t head = 0; head < cache.shape.heads; ++head) {
    std::memset(cache.v_of(at, head), 0, static_cast<size_t>(cache.half_bytes));
  }
}

void write_k(const KvCache& cache, char* block, const KvRows& rows) {
  const int64_t k_tiles = cache.padded_head / kTileK;
  for_heads(cache, rows.c0, rows.count, [&](int64_t head, int64_t d0, int64_t some, int64_t from) {
    char* base = cache.k_of(block, head);
    for (int64_t t = 0; t < rows.tokens; ++t) {
      const int64_t slot = rows.slot + t;
      const int64_t at = t * rows.stride + from;
      if (cache.is_bf16) {
        write_k_token(static_cast<const uint16_t*>(rows.values) + at, d0, some,
                      reinterpret_cast<uint16_t*>(base) + bf16_element(slot, 0, k_tiles));
      } else {
        const float* x = static_cast<const float*>(rows.values) + at;
        auto* to = reinterpret_cast<float*>(base) + fp32_element(slot, 0, k_tiles);
        for (int64_t i = 0; i < some; ++i) to[(d0 + i) * kTileN] = x[i];
      }
    }
  });
}

void write_v(const KvCache& cache, char* block, const KvRows& rows) {
  for_heads(cache, rows.c0, rows.count, [&](int64_t head, int64_t d0, int64_t some, int64_t from) {
    char* base = cache.v_of(block, head);
    const int64_t end = rows.slot + rows.tokens;
    for (int64_t slot = rows.slot; slot < end;) {
      const int64_t at = (slot - rows.slot) * rows.stride + from;
      if (!cache.is_bf16) {
        const float* x = static_cast<const float*>(rows.values) + at;
        auto* to = reinterpret_cast<float*>(base);
        for (int64_t i = 0; i < some; ++i) to[fp32_element(d0 + i, slot, 1)] = x[i];
        ++slot;
        continue;
      }
      const auto* x = static_cast<const uint16_t*>(rows.values) + at;
      auto* to = reinterpret_cast<uint16_t*>(base);
      if (slot % 2 == 0 && slot + 1 < end) {
        write_v_pair(x, x + rows.stride, d0, some, to + bf16_element(0, slot, 1));
        slot += 2;
      } else {
        for (int64_t i = 0; i < some; ++i) to[bf16_element(d0 + i, slot, 1)] = x[i];
        ++slot;
      }
    }
  });
}

void copy_block(const KvCache& cache, int64_t layer, int64_t from, int64_t to) {
  std::memcpy(cache.block(layer, to), cache.block(layer, from),
              static_cast<size_t>(cache.block_bytes()));
}

}  // namespace polylm
