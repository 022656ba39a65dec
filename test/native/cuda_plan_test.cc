// cuda_plan_test.cc: the numbers of csrc/cuda/tiles.h: places of elements are a bijection and lie
// where the tensor cores' documented fragments want them, parts of sums cover each chunk once and
// depend on K alone. Needs neither nvcc nor a card.
#include <algorithm>
#include <set>
#include <vector>

#include "backends.h"
#include "cuda/tiles.h"
#include "cuda/verdict.h"
#include "harness.h"

namespace polylm::test {
namespace {

// What lane 4g+t must hold for the product number `j` of a block of 32 k, by the PTX manual's
// fragments of m16n8k16 with k renamed: register r, half e.
struct Wanted {
  int row;
  int k;
};
Wanted operand_a(int lane, int j, int r, int e) {
  const int g = lane / 4;
  const int t = lane % 4;
  return {r % 2 == 0 ? g : g + 8, 8 * t + 4 * j + (r < 2 ? 0 : 2) + e};
}
// The k of an activation's fragment as the kernels take it from its 16 contiguous bytes.
int operand_b_k(int lane, int j, int r, int e) { return lane % 4 * 8 + 4 * j + 2 * r + e; }

}  // namespace

TEST(cuda_packed_weight_is_a_bijection) {
  const int64_t n = 48, k = 96, k_blocks = 3;
  std::set<int64_t> seen;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < k; ++j) {
      const int64_t at = packed_element(i, j, k_blocks);
      EXPECT(at >= 0 && at < n * k);
      seen.insert(at);
      const TilePlace place = packed_place(static_cast<int>(at % kTileElements));
      EXPECT_EQ(place.n, static_cast<int>(i % kTileN));
      EXPECT_EQ(place.k, static_cast<int>(j % kTileK));
      const int64_t block = at / kTileElements;
      EXPECT_EQ(block, i / kTileN * k_blocks + j / kTileK);
    }
  }
  EXPECT_EQ(static_cast<int64_t>(seen.size()), n * k);
  EXPECT_EQ(packed_bytes(n, k), n * k * 2);
  EXPECT_EQ(packed_bytes(17, 33), int64_t{2 * 2 * kTileBytes});
}

TEST(cuda_packed_weight_lies_in_fragments) {
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int j = 0; j < 2; ++j) {
      for (int r = 0; r < 4; ++r) {
        for (int e = 0; e < 2; ++e) {
          const Wanted a = operand_a(lane, j, r, e);
          const int at = j * 256 + lane * 8 + r * 2 + e;  // the lane's 16 bytes
          EXPECT_EQ(packed_element(a.row, a.k, 1), int64_t{at});
          if (r == 1 || r == 3) continue;
          EXPECT_EQ(a.k, operand_b_k(lane, j, r / 2, e));  // both operands name the same k
        }
      }
    }
  }
}

// As operand B (8 columns) a block gives registers 0 and 2, or 1 and 3, of the same lane.
TEST(cuda_packed_weight_serves_as_operand_b) {
  for (int lane = 0; lane < kWarp; ++lane) {
    for (int half = 0; half < 2; ++half) {
      for (int r = 0; r < 2; ++r) {
        for (int e = 0; e < 2; ++e) {
          const int column = lane / 4 + 8 * half;
          const int k = operand_b_k(lane, 1, r, e);
          EXPECT_EQ(packed_element(column, k, 1), int64_t{256 + lane * 8 + (2 * r + half) * 2 + e});
        }
      }
    }
  }
}

TEST(cuda_decode_parts_cover_each_chunk_once) {
  for (int k_blocks = 1; k_blocks <= 700; ++k_blocks) {
    int next = 0;
    for (int warp = 0; warp < kDecodeWarps; ++warp) {
      const ChunkRange part = decode_part(k_blocks, warp);
      EXPECT_EQ(part.begin, next);
      EXPECT(part.end >= part.begin);
      next = part.end;
    }
    EXPECT_EQ(next, (k_blocks + kChunkBlocks - 1) / kChunkBlocks);
  }
}

TEST(cuda_decode_part_stores_without_bank_conflicts) {
  for (int tiles = 1; tiles <= 2; ++tiles) {
    std::set<int> banks;
    for (int lane = 0; lane < kWarp; ++lane) {
      banks.insert((lane % 4 * 2 * decode_pitch(tiles) + lane / 4) % 32);
    }
    EXPECT_EQ(banks.size(), size_t{32});
  }
}

TEST(cuda_tiles_for_every_batch) {
  for (int64_t rows = 1; rows <= 300; ++rows) {
    for (const int64_t n : {17, 2048, 6144, 256000}) {
      const DecodeTiles d = decode_tiles(rows, n, 132);
      EXPECT(d.n_tiles == 1 || (d.n_tiles == 2 && d.row_tiles == 4));
      EXPECT(d.row_tiles == 1 || d.row_tiles == 2 || d.row_tiles == 4);
      EXPECT(rows > 32 || d.row_tiles * 8 >= rows);
      const int p = prefill_rows(rows, n, 132);
      EXPECT(p == 64 || p == 128);
      const int stage = p * kTileK * 2 + kPrefillCols * kTileK * 2;
      EXPECT(kPrefillStages * stage <= 99 * 1024);  // what a block may have on sm_86, 89 and 120
    }
  }
}

TEST(cuda_keys_of_scores_are_a_bijection) {
  std::set<int> keys;
  for (int i = 0; i < 4; ++i) {
    for (int c = 0; c < 8; ++c) keys.insert(key_of_column(i, c));
    for (int t = 0; t < 4; ++t) {  // lane t holds columns 2t and 2t+1: keys 8t .. 8t+7 in order
      EXPECT_EQ(key_of_column(i, 2 * t), 8 * t + 2 * i);
      EXPECT_EQ(key_of_column(i, 2 * t + 1), 8 * t + 2 * i + 1);
    }
  }
  EXPECT_EQ(keys.size(), size_t{kCudaBlockTokens});
  EXPECT_EQ(*keys.rbegin(), kCudaBlockTokens - 1);
}

// Pieces of K stay in their block, and none lies where another does.
TEST(cuda_cache_pieces_in_shared_memory) {
  for (int padded = 32; padded <= 256; padded += 32) {
    std::set<int> seen;
    for (int slot = 0; slot < kCudaBlockTokens; ++slot) {
      for (int piece = 0; piece < padded / 8; ++piece) seen.insert(k_piece(slot, piece, padded));
    }
    EXPECT_EQ(static_cast<int>(seen.size()), kCudaBlockTokens * padded / 8);
    EXPECT_EQ(*seen.rbegin(), kCudaBlockTokens * padded / 8 - 1);
    EXPECT(attend_stages(padded) * 4 * kCudaBlockTokens * padded <= 64 * 1024);
    EXPECT(attend_stages(padded) >= 2);
  }
}

// The 8 lanes that a 16-byte access serves at once fall into 8 different groups of banks: K by its
// flipping, V as it lies.
TEST(cuda_cache_reads_without_bank_conflicts) {
  for (int padded = 32; padded <= 256; padded += 32) {
    for (int i = 0; i < 4 * (kWarp / 8) * (padded / 32); ++i) {
      const int tile = i % 4;
      const int first = i / 4 % 4 * 8;
      const int b = i / 16;
      std::set<int> k_banks;
      std::set<int64_t> v_banks;
      for (int lane = first; lane < first + 8; ++lane) {
        k_banks.insert(k_piece(key_of_column(tile, lane / 4), b * 4 + lane % 4, padded) % 8);
        v_banks.insert(v_element(lane % 4 * 8, b * 8 + lane / 4) / 8 % 8);
      }
      EXPECT_EQ(k_banks.size(), size_t{8});
      EXPECT_EQ(v_banks.size(), size_t{8});
    }
  }
}

TEST(cuda_cache_elements_are_a_bijection) {
  for (const int64_t head : {8, 40, 64, 80, 96, 128, 256}) {
    const auto padded = static_cast<int>(padded_head(head));
    EXPECT(padded >= head && padded % 32 == 0 && padded - head < 32);
    std::set<int64_t> k;
    std::set<int64_t> v;
    for (int slot = 0; slot < kCudaBlockTokens; ++slot) {
      for (int d = 0; d < padded; ++d) {
        k.insert(k_element(slot, d, padded));
        v.insert(v_element(slot, d));
      }
    }
    EXPECT_EQ(static_cast<int64_t>(k.size()), half_elements(padded));
    EXPECT_EQ(static_cast<int64_t>(v.size()), half_elements(padded));
    EXPECT_EQ(*k.rbegin(), half_elements(padded) - 1);
    EXPECT_EQ(*v.rbegin(), half_elements(padded) - 1);
  }
}

TEST(cuda_buckets_of_steps) {
  int64_t last = 0;
  int kinds = 0;
  for (int64_t n = 1; n <= 4096; ++n) {
    const int64_t bucket = row_bucket(n);
    EXPECT(bucket >= n && bucket >= last && row_bucket(bucket) == bucket);
    EXPECT(n > 8 ? bucket < n + std::max<int64_t>(8, n / 2) : bucket < 2 * n);
    if (bucket != last && n <= 256) ++kinds;
    last = bucket;
    EXPECT(listed_bucket(n) >= n);
  }
  EXPECT_EQ(kinds, 15);  // 1 2 4 8, 16 24 32, 48 64, 96 128 160 192 224 256
  EXPECT_EQ(row_bucket(0) + listed_bucket(0), int64_t{0});
}

// Each reason not to use a card, and none for a good one.
TEST(cuda_verdicts) {
  const CudaFacts good{.driver = 13000, .runtime = 13000, .count = 2, .index = 1, .major = 9};
  EXPECT_EQ(card_obstacle(good), std::string());
  const auto says = [](const CudaFacts& f, const char* words) {
    if (card_obstacle(f).find(words) == std::string::npos) {
      report_failure(__FILE__, __LINE__, card_obstacle(f) + ": not " + words);
    }
  };
  CudaFacts f = good;
  f.driver = 0;
  says(f, "no NVIDIA driver");
  f.driver = 12080;
  says(f, "supports CUDA 12.8, this build needs 13.0");
  f = good;
  f.runtime = 13020;
  EXPECT_EQ(card_obstacle(f), std::string());  // minor versions are compatible
  f.failure = "system not yet initialized";
  says(f, "cannot be started: system not yet initialized");
  f = good;
  f.count = 0;
  says(f, "no NVIDIA GPU");
  f = good;
  f.index = 2;
  says(f, "no device 2");
  f = good;
  f.major = 7;
  f.minor = 5;
  says(f, "7.5 is below 8.0");
  f = good;
  f.has_kernels = false;
  says(f, "no kernels for sm_90");
}

TEST(device_auto_chooses_and_says_why_not) {
  DeviceReport card;
  card.kind = "cuda";
  card.usable = true;
  card.proven = true;
  card.free_bytes = 1000;
  DeviceReport large = card;
  large.free_bytes = 5000;
  DeviceReport bad;
  bad.kind = "cuda";
  bad.reason = "broken";
  DeviceReport cpu;
  cpu.kind = "cpu";
  cpu.usable = true;
  EXPECT_EQ(choose_device({cpu, card}, 900).device, std::string("cuda:0"));
  EXPECT_EQ(choose_device({cpu, card}, 900).reason, std::string());
  EXPECT_EQ(choose_device({cpu, bad, card, large}, 900).device, std::string("cuda:2"));
  EXPECT_EQ(choose_device({bad, card}, 0).device, std::string("cuda:1"));
  const DeviceChoice small = choose_device({cpu, card}, 1001);
  EXPECT_EQ(small.device, std::string("cpu"));
  EXPECT(small.reason.find("too little memory") != std::string::npos);
  EXPECT_EQ(choose_device({cpu, bad}, 0).device, std::string("cpu"));
  EXPECT_EQ(choose_device({cpu, bad}, 0).reason, std::string("cuda: broken"));
  DeviceReport unproven = large;
  unproven.proven = false;
  unproven.reason = "not proven";
  EXPECT_EQ(choose_device({cpu, unproven}, 0).device, std::string("cpu"));
  EXPECT_EQ(choose_device({cpu, unproven}, 0).reason, std::string("cuda: not proven"));
  EXPECT_EQ(choose_device({cpu, unproven, card}, 0).device, std::string("cuda:1"));
}

TEST(cuda_segments_and_strides) {
  EXPECT_EQ(segments_of(1), int64_t{1});
  EXPECT_EQ(segments_of(256), int64_t{1});
  EXPECT_EQ(segments_of(257), int64_t{2});
  EXPECT_EQ(kSegmentKeys % kCudaBlockTokens, 0);
  EXPECT_EQ(kWarpKeys % kCudaBlockTokens, 0);
  for (int64_t cols = 1; cols < 300; ++cols) {
    EXPECT(cuda_act_stride(cols) >= (cols + kTileK - 1) / kTileK * kTileK);
    EXPECT_EQ(cuda_act_stride(cols) % 8, int64_t{0});
  }
  EXPECT_EQ(logit_stride(256000), int64_t{256000});
}

}  // namespace polylm::test
