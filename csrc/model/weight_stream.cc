// weight_stream.cc: see weight_stream.h. A tensor is cut into tasks of about 4 MiB of whole lines
// (its major axis), tasks are handed out by a counter, and each is worked off in pieces that fit a
// core's L2 (measured: 256 KiB of staging reads 1.6 times as fast as 16 MiB).
#include "model/weight_stream.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <mutex>
#include <utility>

#include "platform/bf16.h"
#include "platform/checked.h"
#include "platform/run_on_threads.h"
#include "platform/wide.h"

namespace polylm {
namespace {

constexpr int64_t kPieceBytes = 256 << 10;
constexpr int64_t kPieceBytesMax = 1 << 20;
constexpr int64_t kTaskBytes = 4 << 20;
constexpr int64_t kLineBytesMax = 16 << 20;
constexpr int64_t kProgressBytes = 16 << 20;

uint32_t mix32(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}
// Two odd numbers of 16 bits for each n and each k: see Hash.
struct Key {
  int16_t a = 0;
  int16_t b = 0;
};
Key key_of(uint32_t x) {
  const uint32_t mixed = mix32(x) | 0x00010001u;
  return {static_cast<int16_t>(mixed & 0xffffu), static_cast<int16_t>(mixed >> 16)};
}
Key key_n(int64_t n) { return key_of(static_cast<uint32_t>(n) * 2 + 1); }
Key key_k(int64_t k) { return key_of(static_cast<uint32_t>(k) * 2 + 0x40000000u); }

// The keys of the elements of a line.
struct ElementKeys {
  std::vector<int16_t> a;
  std::vector<int16_t> b;
};

// A placement seen as lines along its axis of larger stride: line i, element j.
struct Lines {
  bool along_n = true;  // lines are rows n, elements are k
  int64_t count = 0;
  int64_t length = 0;
  int64_t line_stride = 0;
  int64_t element_stride = 0;

  // A vector (k == 1) is one line of n elements.
  explicit Lines(const Placement& p) : along_n(p.k != 1 && p.stride_n >= p.stride_k) {
    count = along_n ? p.n : p.k;
    length = along_n ? p.k : p.n;
    line_stride = along_n ? p.stride_n : p.stride_k;
    element_stride = along_n ? p.stride_k : p.stride_n;
  }
  // Elements between the first and one past the last of `lines` lines.
  int64_t span(int64_t lines) const {
    return checked_add(checked_add(checked_mul(lines - 1, line_stride),
                                   checked_mul(length - 1, element_stride)), 1);
  }
  bool dense() const { return element_stride == 1 && (line_stride == length || count == 1); }
  int64_t per(int64_t bytes, int64_t element_bytes) const {
    const int64_t line_bytes = std::max<int64_t>(1, line_stride) * element_bytes;
    const int64_t lines = std::max<int64_t>(2, bytes / line_bytes);
    if (lines >= 32) return std::min(count, lines / 32 * 32);
    // Whole tiles are packed fastest, as long as the piece fits a core's L2.
    return std::min(count, 32 * line_bytes <= kPieceBytesMax ? 32 : lines / 2 * 2);
  }
};

// Buffers of one thread, grown on first use and kept.
struct Staging {
  std::vector<unsigned char> raw;
  std::vector<bf16> narrow;
  std::vector<float> wide;
  const bf16* values = nullptr;  // of the piece: narrow, or raw where that is bf16 already
};

// out[line, element] = convert(float) over lines [0, count) for one type, chosen once.
template <class Out, class Convert>
void convert_lines(const Lines& lines, int64_t count, const Placement& p, const unsigned char* raw,
                   Out* out, Convert convert) {
  const auto run = [&](auto sample, auto to_float) {
    const auto line_of = [&](const unsigned char* line, int64_t step)
                             __attribute__((always_inline)) {
      for (int64_t j = 0; j < lines.length; ++j) {
        auto bits = sample;
        std::memcpy(&bits, line + j * step, sizeof bits);
        out[j] = convert(to_float(bits));
      }
    };
    for (int64_t i = 0; i < count; ++i, out += lines.length) {
      const unsigned char* line = raw + i * lines.line_stride * p.element_bytes;
      if (lines.element_stride == 1) {
        // A step that the compiler knows: it takes vectors.
        widely(POLYLM_WIDE_LOOP { line_of(line, sizeof sample); });
      } else {
        line_of(line, lines.element_stride * p.element_bytes);
      }
    }
  };
  switch (p.tensor->type) {
    case TensorType::kF32: run(0.0F, [](float x) { return x; }); break;
    case TensorType::kF16: run(uint16_t{0}, [](uint16_t x) { return half_to_float(x); }); break;
    default: run(uint16_t{0}, [](uint16_t x) { return bf16_to_float(x); }); break;
  }
}

// Gathers lines [0, count) from raw into dense rows of `length` numbers.
void to_float(const Lines& lines, int64_t count, const Placement& p, Staging* s) {
  s->wide.resize(static_cast<size_t>(count * lines.length));
  convert_lines(lines, count, p, s->raw.data(), s->wide.data(), [](float x) { return x; });
}

void to_bf16(const Lines& lines, int64_t count, const Placement& p, Staging* s) {
  if (p.tensor->type == TensorType::kBf16 && (lines.dense() || count == 1) &&
      lines.element_stride == 1) {
    s->values = reinterpret_cast<const bf16*>(s->raw.data());
    return;
  }
  s->narrow.resize(static_cast<size_t>(count * lines.length));
  s->values = s->narrow.data();
  convert_lines(lines, count, p, s->raw.data(), s->narrow.data(),
                [](float x) { return bf16_from_float(x); });
}

[[noreturn]] void fail_nonfinite(const bf16* values, int64_t line0, const Lines& lines,
                                 const Placement& p) {
  int64_t bad = 0;
  while ((values[bad] & 0x7f80u) != 0x7f80u) ++bad;
  const int64_t line = line0 + bad / lines.length;
  const int64_t element = bad % lines.length;
  fail(Code::kWeightsNonfinite,
       "tensor " + quoted(p.tensor->name) + " has a value at [" +
           std::to_string(lines.along_n ? line : element) + ", " +
           std::to_string(lines.along_n ? element : line) + "] (output, input) that is not finite",
       "the checkpoint is damaged, or its numbers do not fit bfloat16", place_fields(p));
}

// Two hashes of 32 bits, each the sum over the piece of key_n(n) * key_k(k) * value modulo 2^32:
// bilinear, so that neither the order nor the layout matters; numbers of 16 bits are multiplied,
// eight at once on any x86-64. Odd keys: no single changed value goes unnoticed.
struct Hash {
  uint32_t a = 0;
  uint32_t b = 0;
  void add(const Hash& h) {
    a += h.a;
    b += h.b;
  }
  uint64_t whole() const { return static_cast<uint64_t>(a) << 32 | b; }
};

// What one look at a line tells.
struct LineScan {
  uint32_t a = 0;        // sums of key times value
  uint32_t b = 0;
  uint16_t highest = 0;  // exponent, as it lies in the number: what vectors compare best
};

LineScan scan_line(const bf16* values, const ElementKeys& keys, int64_t count) {
  const int16_t* key_a = keys.a.data();
  const int16_t* key_b = keys.b.data();
  return widely(POLYLM_WIDE_LOOP {
    LineScan s;
    for (int64_t j = 0; j < count; ++j) {
      const auto value = static_cast<int16_t>(values[j]);
      const auto exponent = static_cast<uint16_t>(values[j] & 0x7f80u);
      s.highest = exponent > s.highest ? exponent : s.highest;
      s.a += static_cast<uint32_t>(key_a[j] * value);
      s.b += static_cast<uint32_t>(key_b[j] * value);
    }
    return s;
  });
}

// The hash of a piece whose numbers are all finite; WEIGHTS_NONFINITE otherwise.
Hash scan_piece(const bf16* values, int64_t line0, int64_t count, const Lines& lines,
                const ElementKeys& keys, const Placement& p) {
  Hash sum;
  for (int64_t i = 0; i < count; ++i) {
    const bf16* row = values + i * lines.length;
    const LineScan scan = scan_line(row, keys, lines.length);
    if (scan.highest == 0x7f80u) fail_nonfinite(row, line0 + i, lines, p);
    const Key line = lines.along_n ? key_n(line0 + i) : key_k(line0 + i);
    sum.a += scan.a * static_cast<uint32_t>(line.a);
    sum.b += scan.b * static_cast<uint32_t>(line.b);
  }
  return sum;
}

struct Task {
  size_t item = 0;
  int64_t line0 = 0;
  int64_t lines = 0;
  uint32_t crc = 0;
  int64_t bytes = 0;
  Hash hash = {};
};

void read_piece(const Placement& p, const Lines& lines, int64_t line0, int64_t count, Staging* s) {
  const auto bytes = static_cast<size_t>(lines.span(count) * p.element_bytes);
  s->raw.resize(bytes);
  p.file->read(p.tensor->offset_bytes + line0 * lines.line_stride * p.element_bytes, bytes,
               s->raw.data());
}

void deliver(const Lines& lines, int64_t line0, int64_t count, Parameter* to, Ops& ops,
             const Staging& s) {
  const bool wide = to->format == WeightFormat::kFp32;
  if (to->k == 0) {
    std::copy_n(s.wide.data(), count * lines.length, to->values.data() + line0 * lines.length);
    return;
  }
  WeightPiece piece;
  piece.n0 = lines.along_n ? line0 : 0;
  piece.n_count = lines.along_n ? count : lines.length;
  piece.k0 = lines.along_n ? 0 : line0;
  piece.k_count = lines.along_n ? lines.length : count;
  piece.stride_n = lines.along_n ? lines.length : 1;
  piece.stride_k = lines.along_n ? 1 : lines.length;
  if (wide) {
    piece.fp32_data = s.wide.data();
  } else {
    piece.bf16_data = s.values;
  }
  ops.pack_weight(to->weight, piece);
}

// Runs body(task index) on several threads until all are done or one throws.
void run_tasks(int64_t threads, size_t count, const std::function<void(size_t, Staging*)>& body) {
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  run_on_threads(std::min(threads, static_cast<int64_t>(count)), [&] {
    try {
      Staging staging;
      for (size_t i = next++; i < count && !failed; i = next++) body(i, &staging);
    } catch (...) {
      failed = true;
      throw;
    }
  });
}

}  // namespace

WeightStream::WeightStream(LoadControl control) : control_(std::move(control)) {}

void WeightStream::advance(int64_t bytes, const std::string& file) {
  if (control_.cancel->load()) fail(Code::kAborted, "the load was aborted");
  const std::lock_guard lock(mutex_);
  loaded_bytes_ += bytes;
  const bool due = loaded_bytes_ - reported_bytes_ >= kProgressBytes ||
                   loaded_bytes_ >= total_bytes_;
  if (!due || !control_.progress) return;
  reported_bytes_ = loaded_bytes_;
  control_.progress(loaded_bytes_, std::max(total_bytes_, loaded_bytes_), file);
}

void WeightStream::read(std::vector<StreamItem>& items, Ops& ops) {
  std::vector<Task> tasks;
  std::vector<ElementKeys> keys(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    const Lines lines(items[i].place);
    if (checked_mul(lines.span(1), items[i].place.element_bytes) > kLineBytesMax) {
      fail(Code::kStorageMismatch,
           "tensor " + quoted(items[i].place.tensor->name) +
               " has strides that no checkpoint writer uses",
           "", place_fields(items[i].place));
    }
    for (int64_t j = 0; j < lines.length; ++j) {
      const Key key = lines.along_n ? key_k(j) : key_n(j);
      keys[i].a.push_back(key.a);
      keys[i].b.push_back(key.b);
    }
    if (items[i].parameter->k == 0) {
      items[i].parameter->values.resize(static_cast<size_t>(items[i].place.n));
    }
    const int64_t step = lines.per(kTaskBytes, items[i].place.element_bytes);
    for (int64_t at = 0; at < lines.count; at += step) {
      tasks.push_back({.item = i, .line0 = at, .lines = std::min(step, lines.count - at)});
    }
  }
  run_tasks(control_.threads, tasks.size(), [&](size_t index, Staging* s) {
    Task& task = tasks[index];
    const StreamItem& item = items[task.item];
    const Placement& p = item.place;
    const Lines lines(p);
    const int64_t step = lines.per(kPieceBytes, p.element_bytes);
    for (int64_t done = 0; done < task.lines; done += step) {
      const int64_t count = std::min(step, task.lines - done);
      const int64_t line0 = task.line0 + done;
      read_piece(p, lines, line0, count, s);
      if (item.has_crc) task.crc = crc32_update(task.crc, s->raw.data(), s->raw.size());
      to_bf16(lines, count, p, s);
      task.hash.add(scan_piece(s->values, line0, count, lines, keys[task.item], p));
      const bool wide = item.parameter->k == 0 || item.parameter->format == WeightFormat::kFp32;
      if (wide) to_float(lines, count, p, s);
      deliver(lines, line0, count, item.parameter, ops, *s);
      task.bytes += static_cast<int64_t>(s->raw.size());
    }
    advance(task.bytes, p.file->path());
  });
  std::vector<Hash> hashes(items.size());
  std::vector<uint32_t> crcs(items.size(), 0);
  for (const Task& task : tasks) {
    hashes[task.item].add(task.hash);
    crcs[task.item] = crc32_combine(crcs[task.item], task.crc, task.bytes);
  }
  hashes_.clear();
  for (const Hash& hash : hashes) hashes_.push_back(hash.whole());
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].has_crc || crcs[i] == items[i].crc32) continue;
    fail(Code::kZipCrc,
         "the bytes of tensor " + quoted(items[i].place.tensor->name) + " in " +
             quoted_path(items[i].place.file->path()) + " do not match their checksum",
         "the file is damaged; download it again", place_fields(items[i].place));
  }
}

void WeightStream::verify(const std::vector<StorageInfo>& storages,
                          const std::vector<const File*>& files) {
  run_tasks(control_.threads, storages.size(), [&](size_t i, Staging* s) {
    const StorageInfo& storage = storages[i];
    const File& file = *files[static_cast<size_t>(storage.file)];
    uint32_t crc = 0;
    for (int64_t at = 0; at < storage.size_bytes; at += kPieceBytes) {
      const auto bytes = static_cast<size_t>(std::min(kPieceBytes, storage.size_bytes - at));
      s->raw.resize(bytes);
      file.read(storage.offset_bytes + at, bytes, s->raw.data());
      crc = crc32_update(crc, s->raw.data(), bytes);
      advance(static_cast<int64_t>(bytes), file.path());
    }
    if (crc != storage.crc32) {
      fail(Code::kZipCrc, "a tensor storage at byte " + std::to_string(storage.offset_bytes) +
                              " of " + quoted_path(file.path()) + " does not match its checksum",
           "the file is damaged; download it again",
           {{"file", file.path()}, {"offset", storage.offset_bytes}});
    }
  });
}

bool WeightStream::equal(const Placement& a, const Placement& b) {
  std::atomic<bool> same{true};
  const Lines shape(a);
  const int64_t step = shape.per(kTaskBytes, a.element_bytes);
  const auto count = static_cast<size_t>(ceil_div(shape.count, step));
  run_tasks(control_.threads, count, [&](size_t index, Staging* s) {
    if (!same) return;
    const int64_t line0 = static_cast<int64_t>(index) * step;
    const int64_t lines = std::min(step, shape.count - line0);
    const Lines other(b);
    if (other.along_n != shape.along_n) {
      fail(Code::kStorageMismatch, "tied tensors are stored in different layouts");
    }
    read_piece(a, shape, line0, lines, s);
    to_float(shape, lines, a, s);
    const std::vector<float> first = s->wide;
    read_piece(b, other, line0, lines, s);
    to_float(other, lines, b, s);
    if (first != s->wide) same = false;
    advance(0, a.file->path());
  });
  return same;
}

}  // namespace polylm
