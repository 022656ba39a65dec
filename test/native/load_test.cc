// load_test.cc: one model in both layouts and every type of number gives the same packed weights
// and the same fingerprint; another number gives another. Sizes are odd, so that pieces and tiles
// are cut everywhere. Not here: damaged files (TypeScript writes those).
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "backends.h"
#include "harness.h"
#include "model/weights.h"
#include "ops_rig.h"
#include "platform/wide.h"

namespace polylm::test {
namespace {

constexpr int64_t kOut = 1037, kIn = 91, kRows = 203;

// A matrix [kOut, kIn] that Conv1D stores transposed, a table [kRows, kIn] and a vector.
struct Numbers {
  std::vector<float> matrix, table, vector;
};

// Each of them a bfloat16 and a normal half.
Numbers make_numbers() {
  Random random(77);
  const auto numbers = [&](int64_t count) {
    std::vector<float> all = rounded(random.numbers(count, 0.5F));
    for (float& x : all) x = std::abs(x) < 0x1.0p-14F ? 0.125F : x;
    return all;
  };
  return {numbers(kOut * kIn), numbers(kRows * kIn), numbers(kOut)};
}

uint16_t half_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return static_cast<uint16_t>((bits >> 16 & 0x8000u) |
                               (((bits & 0x7fffffffu) - (112u << 23)) >> 13));
}

struct Loaded {
  std::string fingerprint;
  std::vector<float> matrix, table, vector;
};

class Files {
 public:
  Files() : path_((std::filesystem::temp_directory_path() / "polylm-load-test").string()) {}
  ~Files() { std::remove(path_.c_str()); }
  Files(const Files&) = delete;
  Files& operator=(const Files&) = delete;

  Loaded load(const Numbers& n, TensorType type, bool transposed) {
    std::vector<unsigned char> bytes;
    TensorTable table;
    const std::vector<int64_t> sizes =
        transposed ? std::vector<int64_t>{kIn, kOut} : std::vector<int64_t>{kOut, kIn};
    std::vector<float> matrix = n.matrix;
    if (transposed) {
      for (int64_t i = 0; i < kOut; ++i) {
        for (int64_t j = 0; j < kIn; ++j) {
          matrix[static_cast<size_t>(j * kOut + i)] = n.matrix[static_cast<size_t>(i * kIn + j)];
        }
      }
    }
    add("wte.weight", {kRows, kIn}, n.table, type, &table, &bytes);
    add("m.weight", sizes, matrix, type, &table, &bytes);
    add("v.bias", {kOut}, n.vector, type, &table, &bytes);
    write(bytes);
    table.files.push_back({.path = path_, .size_bytes = static_cast<int64_t>(bytes.size())});
    return read(std::move(table));
  }

 private:
  static void add(const char* name, const std::vector<int64_t>& sizes,
                  const std::vector<float>& values, TensorType type, TensorTable* table,
                  std::vector<unsigned char>* bytes) {
    TensorInfo t;
    t.name = name;
    t.type = type;
    t.shape = sizes;
    t.strides = sizes.size() == 2 ? std::vector<int64_t>{sizes[1], 1} : std::vector<int64_t>{1};
    t.offset_bytes = static_cast<int64_t>(bytes->size());
    table->tensors.push_back(t);
    for (const float value : values) {
      const uint16_t half = type == TensorType::kF16 ? half_of(value) : bf16_from_float(value);
      const bool wide = type == TensorType::kF32;
      const void* from = wide ? static_cast<const void*>(&value) : &half;
      const size_t size_bytes = wide ? sizeof value : sizeof half;
      bytes->resize(bytes->size() + size_bytes);
      std::memcpy(bytes->data() + bytes->size() - size_bytes, from, size_bytes);
    }
  }

  void write(const std::vector<unsigned char>& bytes) const {
    std::FILE* out = std::fopen(path_.c_str(), "wb");
    if (out == nullptr) skip("cannot write " + path_);
    EXPECT_EQ(std::fwrite(bytes.data(), 1, bytes.size(), out), bytes.size());
    EXPECT_EQ(std::fclose(out), 0);
  }

  static Loaded read(TensorTable table) {
    const auto ops = make_ops({.device = "cpu", .threads = 3});
    LoadControl control;
    control.threads = 3;
    const auto source = make_file_source(std::move(table), control);
    std::vector<Parameter> p = {{.name = "wte.weight", .n = kRows, .k = kIn},
                                {.name = "m.weight", .n = kOut, .k = kIn, .conv1d = true},
                                {.name = "v.bias", .n = kOut}};
    source->resolve(p, Precision::kBf16);
    p[0].weight = ops->make_weight(kRows, kIn, p[0].format);
    p[1].weight = ops->make_weight(kOut, kIn, p[1].format);
    source->read(p, *ops);
    Loaded out;
    out.fingerprint = source->fingerprint();
    out.table.resize(static_cast<size_t>(kRows * kIn));
    out.matrix.resize(static_cast<size_t>(kOut * kIn));
    ops->read_weight(p[0].weight, 0, kRows, out.table.data());
    ops->read_weight(p[1].weight, 0, kOut, out.matrix.data());
    out.vector = p[2].values;
    return out;
  }

  std::string path_;
};

TEST(load_layouts_and_types_agree) {
  Files files;
  Numbers n = make_numbers();
  const std::string fingerprint = files.load(n, TensorType::kBf16, true).fingerprint;
  EXPECT_EQ(fingerprint.size(), size_t{16});
  for (const TensorType type : {TensorType::kBf16, TensorType::kF16, TensorType::kF32}) {
    for (const bool transposed : {true, false}) {
      for (const bool narrow : {true, false}) {
        wide_loops_are_off = narrow;
        const Loaded got = files.load(n, type, transposed);
        EXPECT_EQ(got.fingerprint, fingerprint);
        EXPECT(got.matrix == n.matrix);
        EXPECT(got.table == n.table);
        EXPECT(got.vector == n.vector);
      }
    }
  }
}

TEST(load_fingerprint_sees_every_number) {
  Files files;
  Numbers n = make_numbers();
  const std::string fingerprint = files.load(n, TensorType::kBf16, true).fingerprint;
  n.matrix[5000] = -n.matrix[5000];
  const std::string one_changed = files.load(n, TensorType::kBf16, true).fingerprint;
  EXPECT(one_changed != fingerprint);
  std::swap(n.matrix[5001], n.matrix[5002]);
  EXPECT(files.load(n, TensorType::kBf16, true).fingerprint != one_changed);
}

}  // namespace
}  // namespace polylm::test
