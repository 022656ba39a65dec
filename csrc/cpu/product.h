// product.h: how one product of an activation and a packed matrix is shared out and cut into calls
// of a kernel. Not here: the multiplication (isa_*.cc), what becomes of the sums (cpu_ops.cc).
// Many rows: a job is a block of columns by a chunk of rows. Its weights stay in the L2 cache
// while panels of rows pass by; K comes in blocks outside of the rows, so that they fit, and what
// the next calls need is fetched meanwhile. Few rows: weights are read once, in long runs.
// Trap: sums go on in memory from one block of K to the next, which changes no bit on AMX alone:
// only its Cut has a k_tiles.
#pragma once

#include <algorithm>

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
    const int64_t rows = cut.k_tiles == INT64_MAX ? cut.rows : cut.chunk_rows;
    most = std::max(most, rows * cut.tiles * kTileN * static_cast<int64_t>(sizeof(float)));
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
    cut_.k_tiles = std::min(cut_.k_tiles, w.k_tiles);
    unit_ = cut_.tiles;
    blocks_ = ceil_div(w.n_tiles, unit_);
    chunks_ = ceil_div(rows, cut_.chunk_rows);
    if (blocks_ >= workers_ * kJobsEach) return;
    unit_ = 2;  // few blocks: every worker gets as many, and they are alike
    blocks_ = std::min(round_up(blocks_, workers_), ceil_div(w.n_tiles, unit_));
  }

  // sums: sums_bytes for each worker. finish(panel, worker) for every panel.
  template <class FinishPanel>
  void run(float* sums, FinishPanel finish) const {
    const int64_t jobs = blocks_ * chunks_;
    const int64_t each = sums_bytes(context_) / static_cast<int64_t>(sizeof(float));
    context_.for_each(jobs, 1, work_, [&](Range one, int64_t worker) {
      const Range own = part_of(jobs, worker, workers_);
      const bool goes_on = own.begin <= one.begin && one.end < own.end;
      run_job(one.begin, goes_on, sums + worker * each,
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
  static constexpr int64_t kTileLines = 16;
  static constexpr int64_t kLineBytes = 64;

  // The weights that stay in cache: some columns, some of K.
  struct Block {
    Range tiles;
    Range k;
  };

  Range tiles_of(int64_t job) const {
    const Range units = part_of(ceil_div(w_.n_tiles, unit_), job / chunks_, blocks_);
    return {units.begin * unit_, std::min(units.end * unit_, w_.n_tiles)};
  }
  Range rows_of(int64_t job) const {
    const int64_t first = job % chunks_ * cut_.chunk_rows;
    return {first, std::min(rows_, first + cut_.chunk_rows)};
  }
  Range k_from(int64_t k) const { return {k, std::min(k + cut_.k_tiles, w_.k_tiles)}; }
  const char* weights(const Block& b) const {
    return w_.column(b.tiles.begin) + b.k.begin * (bf16_ ? kTileBytesBf16 : kTileBytesFp32);
  }
  const char* input(int64_t row, const Block& b) const {
    return x_ + row * x_row_bytes_ + b.k.begin * x_tile_bytes_;
  }

  // goes_on: the worker's next job is the next one.
  template <class FinishPanel>
  void run_job(int64_t job, bool goes_on, float* sums, FinishPanel finish) const {
    const Range tiles = tiles_of(job);
    const Range rows = rows_of(job);
    for (int64_t tile = tiles.begin; tile < tiles.end; tile += cut_.tiles) {
      Block block = {{tile, std::min(tile + cut_.tiles, tiles.end)}, k_from(0)};
      for (; block.k.begin < w_.k_tiles; block.k = k_from(block.k.end)) {
        Block next = {block.tiles, k_from(block.k.end)};
        int64_t next_row = rows.begin;
        if (block.k.end == w_.k_tiles) {
          next = {goes_on ? tiles_of(job + 1) : Range{}, k_from(0)};
          next_row = goes_on ? rows_of(job + 1).begin : rows_;
        }
        run_block(block, rows, next, next_row, sums, finish);
      }
    }
  }

  // All panels of one block. Meanwhile what `next`, from next_row on, begins with is fetched.
  template <class FinishPanel>
  void run_block(const Block& block, Range rows, const Block& next, int64_t next_row, float* sums,
                 FinishPanel finish) const {
    const bool is_last = block.k.end == w_.k_tiles;
    const int64_t panels = ceil_div(rows.end - rows.begin, cut_.rows);
    const int64_t lines = (next.k.end - next.k.begin) * kTileLines;  // of one column
    ProductArgs p = common_;
    p.w = weights(block);
    p.n_tiles = block.tiles.end - block.tiles.begin;
    p.k_tiles = block.k.end - block.k.begin;
    p.continued = block.k.begin > 0;
    p.ahead.n_tiles = next.tiles.end - next.tiles.begin;
    for (int64_t i = 0; i < panels; ++i) {
      const int64_t row = rows.begin + i * cut_.rows;
      const int64_t after = i + 1 < panels ? row + cut_.rows : next_row;
      p.rows = std::min(cut_.rows, rows.end - row);
      p.x = input(row, block);
      p.out = sums + (p.continued || !is_last ? (row - rows.begin) * p.out_stride : 0);
      p.streamed = i == 0;
      p.ahead.x = input(after, i + 1 < panels ? block : next);
      p.ahead.rows = std::min(cut_.rows, rows_ - after);
      const Range part = part_of(lines, i, panels);
      p.ahead.w = weights(next) + part.begin * kLineBytes;
      p.ahead.lines = part.end - part.begin;
      kernel_(p);
      if (!is_last) continue;
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
