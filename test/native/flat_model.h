// flat_model.h: fixtures for native tests: reads the files that scripts/flatten-fixture.mjs writes
// and offers their tensors as a TensorSource, so that whole models run where Node is absent.
// The directory is POLYLM_FLAT; a test of a missing file is skipped, and counted as such.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/model.h"
#include "model/weights.h"

namespace polylm::test {

struct FlatArray {
  std::vector<int64_t> dims;
  std::vector<double> numbers;  // kind 0
  std::vector<uint16_t> bf16;   // kind 1
};

class FlatModel {
 public:
  // Skips the calling test when the flat file is not there.
  static FlatModel open(const std::string& name);

  bool has(const std::string& name) const { return arrays_.count(name) != 0; }
  const std::vector<double>& numbers(const std::string& name) const;
  double number(const std::string& name) const { return numbers(name).at(0); }
  std::vector<int32_t> ids(const std::string& name) const;
  int64_t length(const std::string& name) const;  // of an array of objects or arrays
  std::string text(const std::string& name) const;

  ModelConfig config() const;
  std::unique_ptr<TensorSource> source() const;
  // The model on the given device ("ref", "cpu"), ready but without reserve().
  std::unique_ptr<Model> load(std::unique_ptr<Ops> ops) const;

 private:
  std::map<std::string, FlatArray> arrays_;
};

}  // namespace polylm::test
