// file_source.cc: TensorSource over a validated tensor table: names, prefixes, layouts, range
// checks. The bytes are moved by weight_stream.cc.
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <utility>

#include "model/weight_stream.h"
#include "model/weights.h"
#include "platform/checked.h"

namespace polylm {
namespace {

constexpr const char* kPrefixes[] = {"transformer.", "", "module.transformer.", "module."};

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text.append(i == 0 ? "" : ",").append(std::to_string(shape[i]));
  }
  return text + "]";
}

int64_t type_bytes(TensorType type) { return type == TensorType::kF32 ? 4 : 2; }

bool ends_with(const std::string& text, const char* tail) {
  const std::string t = tail;
  return text.size() >= t.size() && text.compare(text.size() - t.size(), t.size(), t) == 0;
}

// Buffers that PyTorch saves with GPT-2 and that the forward pass does not need.
bool is_known_buffer(const std::string& name) {
  return ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias");
}

class FileSource final : public TensorSource {
 public:
  FileSource(TensorTable table, LoadControl control)
      : table_(std::move(table)), stream_(std::move(control)) {
    for (const FileIdentity& identity : table_.files) {
      files_.push_back(std::make_unique<File>(identity));
    }
    for (const TensorInfo& tensor : table_.tensors) by_name_.emplace(tensor.name, &tensor);
    choose_prefix();
  }

  bool has(const std::string& name) const override { return find(name) != nullptr; }
  void resolve(std::vector<Parameter>& parameters, Precision precision) override;
  void read(std::vector<Parameter>& parameters, Ops& ops) override;
  bool equal(const Parameter& a, const Parameter& b) override;
  std::vector<std::string> unused() const override;
  std::string fingerprint() const override { return fingerprint_; }
  const std::vector<std::string>& warnings() const override { return warnings_; }

 private:
  void choose_prefix();
  const TensorInfo* find(const std::string& name) const;
  const TensorInfo& get(const std::string& name) const;
  Placement place(const Parameter& p) const;
  std::vector<ErrorField> fields_of(const TensorInfo& tensor) const;
  void check_layouts(const std::vector<Parameter>& parameters);
  void check_range(const Placement& p) const;
  const StorageInfo* storage_of(const Placement& p, int64_t bytes) const;
  std::vector<StreamItem> make_items(std::vector<Parameter>& parameters,
                                     std::vector<StorageInfo>* rest, int64_t* total_bytes) const;
  void make_fingerprint(const std::vector<StreamItem>& items);

  TensorTable table_;
  WeightStream stream_;
  std::vector<std::unique_ptr<File>> files_;
  std::map<std::string, const TensorInfo*> by_name_;
  std::string prefix_;
  bool linear_layout_ = false;  // every Conv1D matrix is stored [out, in]
  std::set<std::string> used_;
  std::vector<std::string> warnings_;
  std::string fingerprint_;
};

void FileSource::choose_prefix() {
  for (const char* prefix : kPrefixes) {
    if (by_name_.count(std::string(prefix) + "wte.weight") != 0) {
      prefix_ = prefix;
      return;
    }
  }
}

// The head lies beside the transformer, not inside it.
const TensorInfo* FileSource::find(const std::string& name) const {
  const bool head = name.rfind("lm_head.", 0) == 0;
  const std::string outer = prefix_.rfind("module.", 0) == 0 ? "module." : "";
  const auto it = by_name_.find((head ? outer : prefix_) + name);
  return it == by_name_.end() ? nullptr : it->second;
}

const TensorInfo& FileSource::get(const std::string& name) const {
  const TensorInfo* tensor = find(name);
  if (tensor == nullptr) {
    fail(Code::kWeightsMissing,
         "tensor " + quoted(prefix_ + name) + " is missing among " +
             std::to_string(table_.tensors.size()) + " tensors",
         "is config.json of the same model, and are all shards here?",
         {{"tensor", prefix_ + name}});
  }
  return *tensor;
}

std::vector<ErrorField> FileSource::fields_of(const TensorInfo& tensor) const {
  return {{"file", files_[static_cast<size_t>(tensor.file)]->path()}, {"tensor", tensor.name}};
}

// PolyLM's files hold Conv1D matrices as [in, out]. A checkpoint whose matrices are all stored as
// torch.nn.Linear does ([out, in]) can be told by its shapes and is read too; a mixture is refused.
void FileSource::check_layouts(const std::vector<Parameter>& parameters) {
  bool all_linear = true;
  int64_t rectangular = 0;
  for (const Parameter& p : parameters) {
    if (!p.conv1d || p.n == p.k) continue;
    ++rectangular;
    all_linear &= get(p.name).shape == std::vector<int64_t>{p.n, p.k};
  }
  if (rectangular == 0 || !all_linear) return;
  linear_layout_ = true;
  warnings_.emplace_back("matrices are stored [out, in] (Linear) instead of [in, out] (Conv1D)");
}

void FileSource::resolve(std::vector<Parameter>& parameters, Precision precision) {
  check_layouts(parameters);
  for (Parameter& p : parameters) {
    const TensorInfo& tensor = get(p.name);
    const bool transposed = p.conv1d && !linear_layout_;
    const std::vector<int64_t> expected =
        p.k == 0 ? std::vector<int64_t>{p.n}
                 : (transposed ? std::vector<int64_t>{p.k, p.n} : std::vector<int64_t>{p.n, p.k});
    if (tensor.shape != expected) {
      const bool swapped = p.conv1d && tensor.shape.size() == 2 &&
                           tensor.shape[0] == expected[1] && tensor.shape[1] == expected[0];
      fail(Code::kWeightsShape,
           "tensor " + quoted(tensor.name) + " is " + shape_text(tensor.shape) + ", expected " +
               shape_text(expected),
           swapped ? "this matrix is transposed: GPT-2 stores Conv1D layout [in, out]"
                   : "config.json and the weights are of different models",
           fields_of(tensor));
    }
    if (tensor.type == TensorType::kOther) {
      fail(Code::kTensorDtype,
           "tensor " + quoted(tensor.name) + " is " + quoted(tensor.type_name) +
               ", expected F32, F16 or BF16",
           "", fields_of(tensor));
    }
    const bool exact = tensor.type == TensorType::kBf16;
    p.format = precision == Precision::kFp32 && !exact ? WeightFormat::kFp32 : WeightFormat::kBf16;
    check_range(place(p));
    used_.insert(tensor.name);
  }
}

Placement FileSource::place(const Parameter& p) const {
  const TensorInfo& tensor = get(p.name);
  Placement out;
  out.tensor = &tensor;
  out.file = files_[static_cast<size_t>(tensor.file)].get();
  out.element_bytes = type_bytes(tensor.type);
  out.n = p.n;
  out.k = p.k == 0 ? 1 : p.k;
  if (p.k == 0) {
    out.stride_n = tensor.strides.at(0);
    out.stride_k = 1;
    return out;
  }
  const bool transposed = p.conv1d && !linear_layout_;
  out.stride_n = tensor.strides.at(transposed ? 1 : 0);
  out.stride_k = tensor.strides.at(transposed ? 0 : 1);
  return out;
}

void FileSource::check_range(const Placement& p) const {
  const auto bad = [&](const char* what) {
    fail(Code::kStorageMismatch,
         "tensor " + quoted(p.tensor->name) + " " + what + " in " + quoted_path(p.file->path()), "",
         place_fields(p));
  };
  if (p.stride_n < 0 || p.stride_k < 0 || p.tensor->offset_bytes < 0) bad("has negative strides");
  const int64_t last = checked_add(checked_mul(p.n - 1, p.stride_n),
                                   checked_mul(p.k - 1, p.stride_k));
  const int64_t end = checked_add(p.tensor->offset_bytes,
                                  checked_mul(checked_add(last, 1), p.element_bytes));
  if (end > p.file->size_bytes()) bad("ends after its file");
}

const StorageInfo* FileSource::storage_of(const Placement& p, int64_t bytes) const {
  for (const StorageInfo& s : table_.storages) {
    if (s.file != p.tensor->file) continue;
    const int64_t begin = p.tensor->offset_bytes;
    if (begin >= s.offset_bytes && begin + bytes <= s.offset_bytes + s.size_bytes) return &s;
  }
  return nullptr;
}

std::vector<StreamItem> FileSource::make_items(std::vector<Parameter>& parameters,
                                               std::vector<StorageInfo>* rest,
                                               int64_t* total_bytes) const {
  std::vector<StreamItem> items;
  std::set<std::pair<int32_t, int64_t>> covered;
  for (Parameter& p : parameters) {
    StreamItem item;
    item.place = place(p);
    item.parameter = &p;
    const Placement& at = item.place;
    const bool dense = (at.stride_k == 1 && (at.stride_n == at.k || at.n == 1)) ||
                       (at.stride_n == 1 && (at.stride_k == at.n || at.k == 1));
    const int64_t bytes = at.n * at.k * at.element_bytes;
    *total_bytes += bytes;
    const StorageInfo* storage = storage_of(at, dense ? bytes : at.element_bytes);
    if (storage != nullptr) {
      const bool exact = dense && storage->size_bytes == bytes;
      item.has_crc = exact;
      item.crc32 = storage->crc32;
      if (!exact && covered.emplace(storage->file, storage->offset_bytes).second) {
        rest->push_back(*storage);
        *total_bytes += storage->size_bytes;
      }
    }
    items.push_back(item);
  }
  return items;
}

void FileSource::read(std::vector<Parameter>& parameters, Ops& ops) {
  std::vector<StorageInfo> rest;
  int64_t total_bytes = 0;
  std::vector<StreamItem> items = make_items(parameters, &rest, &total_bytes);
  stream_.set_total(total_bytes);
  stream_.read(items, ops);
  std::vector<const File*> files;
  for (const auto& file : files_) files.push_back(file.get());
  stream_.verify(rest, files);
  make_fingerprint(items);
  for (const std::string& name : unused()) {
    constexpr size_t kWarningsMax = 20;
    if (warnings_.size() < kWarningsMax) warnings_.push_back("unused tensor " + quoted(name));
  }
}

void FileSource::make_fingerprint(const std::vector<StreamItem>& items) {
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a over names and shapes, folded with the values
  const auto fold = [&hash](uint64_t value) {
    hash = (hash ^ value) * 0x100000001b3u;
    hash ^= hash >> 29;
  };
  for (size_t i = 0; i < items.size(); ++i) {
    for (const char c : items[i].parameter->name) fold(static_cast<unsigned char>(c));
    fold(static_cast<uint64_t>(items[i].parameter->n));
    fold(static_cast<uint64_t>(items[i].parameter->k));
    fold(stream_.hashes()[i]);
  }
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  fingerprint_ = text;
}

bool FileSource::equal(const Parameter& a, const Parameter& b) {
  const Placement pa = place(a);
  const Placement pb = place(b);
  const bool same_bytes = pa.file == pb.file && pa.stride_n == pb.stride_n &&
                          pa.stride_k == pb.stride_k && pa.tensor->type == pb.tensor->type &&
                          pa.tensor->offset_bytes == pb.tensor->offset_bytes;
  return same_bytes || stream_.equal(pa, pb);
}

std::vector<std::string> FileSource::unused() const {
  std::vector<std::string> names;
  for (const TensorInfo& tensor : table_.tensors) {
    if (used_.count(tensor.name) == 0 && !is_known_buffer(tensor.name)) {
      names.push_back(tensor.name);
    }
  }
  return names;
}

}  // namespace

std::unique_ptr<TensorSource> make_file_source(TensorTable table, LoadControl control) {
  return std::make_unique<FileSource>(std::move(table), std::move(control));
}

}  // namespace polylm
