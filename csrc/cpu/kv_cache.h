// kv_cache.h: K and V of all layers in blocks of 32 tokens, laid out as packed matrices so that the
// product kernels read them as they read weights: a block of K is tokens (n) by channels (k), a
// block of V is channels (n) by tokens (k). A head's K and V of a block are contiguous.
// Trap: V slots that no token has filled must be zero, because a zero weight times NaN is NaN:
// prepare_block before the first token of a block is written sees to it.
#pragma once

#include "cpu/kernels.h"
#include "ops/shapes.h"
#include "platform/buffer.h"

namespace polylm {

inline constexpr int64_t kCpuBlockTokens = 32;
inline constexpr int64_t kMaxHeadSize = 256;

struct KvCache {
  KvShape shape;
  bool is_bf16 = true;
  int64_t padded_head = 0;   // D rounded up to 32
  int64_t tile_bytes = 0;
  int64_t half_bytes = 0;    // K, or V, of one head of a block
  Buffer buffer;             // [layers][blocks][heads][K | V]

  int64_t block_bytes() const { return 2 * half_bytes * shape.heads; }
  char* block(int64_t layer, int64_t block) const {
    return buffer.as<char>() + (layer * shape.blocks + block) * block_bytes();
  }
  char* k_of(char* block, int64_t head) const { return block + 2 * half_bytes * head; }
  char* v_of(char* block, int64_t head) const { return k_of(block, head) + half_bytes; }
  int64_t k_column_bytes() const { return padded_head / kTileK * tile_bytes; }  // 16 tokens
  int64_t v_column_bytes() const { return tile_bytes; }                         // 16 channels
};

KvCache make_kv_cache(const KvShape& shape, bool is_bf16);

// Clears what the coming tokens [0, tokens) of a fresh block will not fill but attention reads.
void prepare_block(const KvCache& cache, int64_t layer, int64_t block, int64_t tokens);

// Channels [c0, c0 + count) (of all heads together: channel c is head c / D) of the tokens in slots
// [slot, slot + tokens), already rounded: bf16 or fp32 as the cache is, values[token * stride +
// channel]. Threads may write disjoint channels or blocks at once.
struct KvRows {
  int64_t slot = 0;
  int64_t tokens = 0;
  int64_t c0 = 0;
  int64_t count = 0;
  const void* values = nullptr;
  int64_t stride = 0;  // elements
};
void write_k(const KvCache& cache, char* block, const KvRows& rows);
void write_v(const KvCache& cache, char* block, const KvRows& rows);

void copy_block(const KvCache& cache, int64_t layer, int64_t from, int64_t to);

}  // namespace polylm
