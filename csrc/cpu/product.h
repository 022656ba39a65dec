// product.h: how one product of an activation and a packed matrix is shared out and cut into calls
// of a kernel. Not here: the multiplication (isa_*.cc), what becomes of the sums (cpu_ops.cc).
// Many rows: a job is a strip of columns by a chunk of rows. On AMX a chunk's rows of x stay in the
// L2 cache, from job to job, while the weights pass by; K comes in blocks outside of the columns,
// so that they fit, and what the next call begins with is fetched meanwhile. Elsewhere the weights
// of a strip stay and panels of rows pass. Few rows: weights are read once, in long runs.
// Trap: sums go on in memory from one block of K to the next, which changes no bit on AMX alone:
// only its Cut has a k_tiles.
#pragma once

#include <algorithm>
#include <numeric>

#include "cpu/context.h"
#include "cpu/pack.h"
#include "platform/checked.h"

namespace polylm {

// A finished part of a product.
struct Panel {
  float* sums = nullptr;
  int64_t stride = 0;
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t first_col = 0;
  int64_t cols = 0;  // whole tiles
};

// Room for the sums of one worker.
inline int64_t sums_bytes(const CpuContext& context) {
  int64_t most = 0;
  for (const bool bf16 : {false, true}) {
    const Cut cut = context.cut(bf16);
    const int64_t tiles = cut.k_tiles == INT64_MAX ? cut.tiles : cut.strip;
    most = std::max(most, cut.rows * tiles * kTileN * static_cast<int64_t>(sizeof(float)));
  }
  return most;
}

class Product {
 public:
  // x: [rows, stride], fp32 where the matrix is.
  Product(const CpuContext& context, const PackedMatrix& w, const char* x, int64_t stride,
          int64_t rows)
      : context_(context), w_(w), bf16_(w.format == WeightFormat::kBf16),
        kernel_(context.product(bf16_)), cut_(context.cut(bf16_)), x_(x), rows_(rows) {
    const int64_t x_bytes = bf16_ ? context.element_bytes() : 4;
    x_row_bytes_ = stride * x_bytes;
    x_tile_bytes_ = kTileK * x_bytes;
    common_.x_stride = stride;
    common_.w_stride_bytes = w.column_bytes;
    common_.out_stride = cut_.tiles * kTileN;
    work_ = rows * w.n * w.k;
    workers_ = context.workers_for(work_);
    cut_.chunk_rows = std::min(cut_.chunk_rows, rows);
    if (rows <= kFewRows) {
      cut_.tiles = std::min(cut_.tiles, kFewTiles);
      cut_.k_tiles = w.k_tiles;
      const int64_t least = rows > 1 ? kFewTiles : 1;  // columns share what they read of x
      const int64_t run = std::clamp<int64_t>(kRunBytes / w.column_bytes, least, kFewTiles);
      unit_ = workers_ == 1 ? w.n_tiles : run;
      blocks_ = ceil_div(w.n_tiles, unit_);
      return;
    }
    if (w.k_tiles <= cut_.whole_k_tiles) {
      cut_.k_tiles = w.k_tiles;
      cut_.strip = cut_.tiles;  // x stays from job to job
    }
    chunks_ = ceil_div(rows, cut_.chunk_rows);
    if (chunks_ > 1) cut_.chunk_rows = round_up(ceil_div(rows, chunks_), kEvenRows);
    unit_ = cut_.strip;
    blocks_ = ceil_div(w.n_tiles, unit_);
    if (blocks_ * chunks_ >= workers_ * kJobsEach) return;
    unit_ = 2;  // few jobs: every worker gets as many, and they are alike
    const int64_t even = workers_ / std::gcd(workers_, chunks_);
    blocks_ = std::min(round_up(blocks_, even), ceil_div(w.n_tiles, unit_));
  }

  // sums: sums_bytes for each worker. finish(panel, worker) for every panel.
  template <class FinishPanel>
  void run(float* sums, FinishPanel finish) const {
    const int64_t jobs = blocks_ * chunks_;
    const int64_t each = sums_bytes(context_) / static_cast<int64_t>(sizeof(float));
    context_.for_each(jobs, 1, work_, [&](Range one, int64_t worker) {
      const Range own = part_of(jobs, worker, workers_);
      const bool is_own = own.begin <= one.begin && one.end <= own.end;
      const int64_t next = is_own && one.end < own.end ? one.end : jobs;
      const bool follows = is_own && one.begin > own.begin;
      run_job(one.begin, follows, next, sums + worker * each,
              [&](const Panel& panel) { finish(panel, worker); });
      context_.rest();
    });
  }

 private:
  static constexpr int64_t kFewRows = 16;        // up to which weights are read once
  static constexpr int64_t kFewTiles = 4;        // of a call with few rows
  static constexpr int64_t kRunBytes = 64 << 10;  // and what is read in some 10 us: so at the end
                                                 // nobody waits longer for the slowest worker
  static constexpr int64_t kJobsEach = 8;        // of a worker, else jobs are made alike
  static constexpr int64_t kEvenRows = 32;  // chunks are alike up to so many rows

  // Some columns, some of K.
  struct Block {
    Range tiles;
    Range k;
  };

  Range tiles_of(int64_t job) const {
    const Range units = part_of(ceil_div(w_.n_tiles, unit_), job % blocks_, blocks_);
    return {units.begin * unit_, std::min(units.end * unit_, w_.n_tiles)};
  }
  Range rows_of(int64_t job) const {
    const int64_t first = job / blocks_ * cut_.chunk_rows;
    return {first, std::min(rows_, first + cut_.chunk_rows)};
  }
  Range k_from(int64_t k) const { return {k, std::min(k + cut_.k_tiles, w_.k_tiles)}; }
  Range tiles_from(int64_t tile, Range job) const {
    return {tile, std::min(tile + cut_.tiles, job.end)};
  }
  const char* weights(const Block& b) const {
    return w_.column(b.tiles.begin) + b.k.begin * (bf16_ ? kTileBytesBf16 : kTileBytesFp32);
  }
  const char* input(int64_t row, const Block& b) const {
    return x_ + row * x_row_bytes_ + b.k.begin * x_tile_bytes_;
  }

  // follows: the worker has just done the job before. next: the job it will do, if there is one.
  template <class FinishPanel>
  void run_job(int64_t job, bool follows, int64_t next, float* sums, FinishPanel finish) const {
    const Range tiles = tiles_of(job);
    const Range rows = rows_of(job);
    const bool in_blocks = cut_.k_tiles < w_.k_tiles;
    Range k = k_from(0);
    for (; k.begin < w_.k_tiles; k = k_from(k.end)) {
      for (Range some = tiles_from(tiles.begin, tiles); some.begin < tiles.end;
           some = tiles_from(some.end, tiles)) {
        ProductArgs p = common_;
        p.ahead.own_x = !follows && k.begin == 0 && some.begin == tiles.begin;
        if (some.end < tiles.end) {
          look_ahead({tiles_from(some.end, tiles), k}, Range{}, &p);
        } else if (k.end < w_.k_tiles) {
          look_ahead({tiles, k_from(k.end)}, rows, &p);
        } else if (next < blocks_ * chunks_) {
          const Range others = rows_of(next);
          const bool same = others.begin == rows.begin && !in_blocks;
          look_ahead({tiles_of(next), k_from(0)}, same ? Range{} : others, &p);
        }
        const int64_t kept = in_blocks ? (some.begin - tiles.begin) * kTileN * cut_.chunk_rows : 0;
        run_block({some, k}, rows, p, sums + kept, finish);
      }
    }
  }

  // What is fetched for the block after this one; x_rows: of those not in the cache.
  void look_ahead(const Block& after, Range x_rows, ProductArgs* p) const {
    p->ahead.x = input(x_rows.begin, after);
    p->ahead.rows = x_rows.end - x_rows.begin;
    p->ahead.w = weights(after);
    p->ahead.n_tiles = after.tiles.end - after.tiles.begin;
  }

  // All panels of one block.
  template <class FinishPanel>
  void run_block(const Block& block, Range rows, ProductArgs p, float* sums,
                 FinishPanel finish) const {
    p.w = weights(block);
    p.n_tiles = block.tiles.end - block.tiles.begin;
    p.k_tiles = block.k.end - block.k.begin;
    p.continued = block.k.begin > 0;
    p.streamed = true;
    p.out = sums;
    for (int64_t row = rows.begin; row < rows.end; row += cut_.rows, p.streamed = false) {
      p.rows = std::min(cut_.rows, rows.end - row);
      p.x = input(row, block);
      kernel_(p);
      if (block.k.end < w_.k_tiles) continue;
      finish(Panel{p.out, p.out_stride, row, p.rows, block.tiles.begin * kTileN,
                   p.n_tiles * kTileN});
    }
  }

  const CpuContext& context_;
  const PackedMatrix& w_;
  const bool bf16_;
  void (*const kernel_)(const ProductArgs&);
  Cut cut_;
  const char* x_;
  const int64_t rows_;
  int64_t x_row_bytes_ = 0;
  int64_t x_tile_bytes_ = 0;
  ProductArgs common_;
  int64_t work_ = 0;
  int64_t workers_ = 1;
  int64_t unit_ = 1;    // tiles that blocks are made of
  int64_t blocks_ = 1;  // of columns
  int64_t chunks_ = 1;  // of rows
};

}  // namespace polylm
