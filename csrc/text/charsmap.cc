// charsmap.cc: see charsmap.h. Units are nodes; those with the same parent lie around one base: the
// child of base b under byte c is unit b ^ c, and carries the label c. So a unit has one base, and
// the check is a depth-first walk over bases, in time linear in the number of units.
#include "text/charsmap.h"

#include <algorithm>
#include <string>

#include "platform/checked.h"

namespace polylm {
namespace {

class Walk {
 public:
  Walk(const std::vector<uint32_t>& units, std::string_view replacements)
      : units_(units), replacements_(replacements) {
    group_children();
    longest_.assign(first_.size() - 1, kNew);
  }

  void run() {
    enter(unit_offset(units_[0]));
    while (!open_.empty()) {
      Place& place = open_.back();
      if (place.next == first_[place.base + 1]) {
        leave();
        continue;
      }
      const uint32_t at = children_[place.next++];
      check_rule(at);
      enter(at ^ unit_offset(units_[at]));
    }
  }

 private:
  static constexpr int32_t kNew = -1;
  static constexpr int32_t kOpen = -2;
  struct Place {
    uint32_t base;
    size_t next;        // in children_
    int32_t below = 0;  // bytes of the longest path below, as far as it was walked
  };

  bool is_child(uint32_t at) const { return unit_label(units_[at]) < 256; }
  uint32_t base_of(uint32_t at) const { return at ^ unit_label(units_[at]); }

  // children_[first_[b]..first_[b + 1]): the units whose base is b.
  void group_children() {
    const auto size = static_cast<uint32_t>(units_.size());
    first_.assign((units_.size() | 255U) + 2, 0);
    for (uint32_t at = 0; at < size; ++at) {
      if (is_child(at)) ++first_[base_of(at) + 1];
    }
    for (size_t b = 1; b < first_.size(); ++b) first_[b] += first_[b - 1];
    std::vector<size_t> end(first_.begin(), first_.end() - 1);
    children_.resize(first_.back());
    for (uint32_t at = 0; at < size; ++at) {
      if (is_child(at)) children_[end[base_of(at)]++] = at;
    }
  }

  void enter(uint32_t base) {
    if (base >= longest_.size()) return extend(0);  // no unit lies there
    if (longest_[base] == kOpen) damaged_charsmap("a rule leads back to its own beginning");
    if (longest_[base] != kNew) return extend(longest_[base]);
    longest_[base] = kOpen;
    open_.push_back({base, first_[base]});
  }

  void leave() {
    const Place place = open_.back();
    open_.pop_back();
    longest_[place.base] = place.below;
    extend(place.below);
  }

  // A child of the innermost place was walked: the longest path below it has `bytes`.
  void extend(int32_t bytes) {
    if (open_.empty()) return;
    open_.back().below = std::max(open_.back().below, bytes + 1);
    if (open_.back().below <= static_cast<int32_t>(kMaxRuleBytes)) return;
    fail(Code::kLimit, "the normaliser has a rule for more than " + std::to_string(kMaxRuleBytes) +
                          " bytes of text");
  }

  void check_rule(uint32_t at) const {
    if (!unit_has_leaf(units_[at])) return;
    const uint32_t leaf = at ^ unit_offset(units_[at]);
    if (leaf >= units_.size()) damaged_charsmap("a rule points outside the trie");
    const uint32_t value = unit_value(units_[leaf]);
    if (value >= replacements_.size()) damaged_charsmap("a rule points outside the replacements");
    const std::string_view rest =
        replacements_.substr(value).substr(0, kMaxReplacementBytes + 1);
    if (rest.find('\0') != std::string_view::npos) return;
    fail(Code::kLimit, "a replacement of the normaliser is longer than " +
                          std::to_string(kMaxReplacementBytes) + " bytes");
  }

  const std::vector<uint32_t>& units_;
  std::string_view replacements_;
  std::vector<size_t> first_;
  std::vector<uint32_t> children_;
  std::vector<int32_t> longest_;  // bytes of the longest path below a base, once it was left
  std::vector<Place> open_;
};

}  // namespace

void damaged_charsmap(const char* what) {
  fail(Code::kTokenizerFormat, std::string("the normaliser's character map is damaged: ") + what,
       "download tokenizer.model again");
}

void check_charsmap(const std::vector<uint32_t>& units, std::string_view replacements) {
  if (replacements.empty() || replacements.back() != '\0') {
    damaged_charsmap("its last replacement does not end");
  }
  Walk(units, replacements).run();
}

}  // namespace polylm
