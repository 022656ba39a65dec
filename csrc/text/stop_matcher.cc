// stop_matcher.cc: an Aho-Corasick automaton: one state per prefix of a stop string.
#include "text/stop_matcher.h"

#include "platform/checked.h"

namespace polylm {
namespace {

constexpr int32_t kNone = -1;

// Children form a list: a full table would take 1 KiB for each byte of a stop string.
struct State {
  int32_t child = kNone;      // first one
  int32_t sibling = kNone;    // next child of the same parent
  int32_t fallback = 0;       // state of the longest proper suffix that begins some stop
  int32_t stop = kNone;       // longest stop string that ends here
  uint32_t depth = 0;         // bytes
  uint8_t byte = 0;           // the last one
};

}  // namespace

struct StopMatcher::Automaton {
  std::vector<State> states;
  std::vector<size_t> stop_bytes;

  explicit Automaton(const std::vector<std::string>& stops) {
    states.emplace_back();
    for (size_t i = 0; i < stops.size(); ++i) insert(stops[i], static_cast<int32_t>(i));
    link();
  }

  State& at(int32_t state) { return states[static_cast<size_t>(state)]; }
  const State& at(int32_t state) const { return states[static_cast<size_t>(state)]; }

  // Amortised constant: each fallback undoes an earlier step down.
  int32_t next(int32_t state, uint8_t byte) const {
    for (;;) {
      const int32_t child = child_of(state, byte);
      if (child != kNone) return child;
      if (state == 0) return 0;
      state = at(state).fallback;
    }
  }

 private:
  int32_t child_of(int32_t state, uint8_t byte) const {
    int32_t child = at(state).child;
    while (child != kNone && at(child).byte != byte) child = at(child).sibling;
    return child;
  }

  int32_t add_child(int32_t parent, uint8_t byte) {
    State state;
    state.depth = at(parent).depth + 1;
    state.byte = byte;
    state.sibling = at(parent).child;
    states.push_back(state);
    return at(parent).child = narrow<int32_t>(states.size() - 1);
  }

  void insert(const std::string& stop, int32_t index) {
    int32_t state = 0;
    for (const char c : stop) {
      const auto byte = static_cast<uint8_t>(c);
      const int32_t child = child_of(state, byte);
      state = child == kNone ? add_child(state, byte) : child;
    }
    if (at(state).stop == kNone) at(state).stop = index;  // of equal strings the first
    stop_bytes.push_back(stop.size());
  }

  // Breadth first: a state's fallback is less deep, so it is complete already.
  void link() {
    std::vector<int32_t> order = {0};
    for (size_t i = 0; i < order.size(); ++i) {
      const int32_t state = order[i];
      for (int32_t child = at(state).child; child != kNone; child = at(child).sibling) {
        if (state != 0) at(child).fallback = next(at(state).fallback, at(child).byte);
        if (at(child).stop == kNone) at(child).stop = at(at(child).fallback).stop;
        order.push_back(child);
      }
    }
  }
};

StopMatcher::StopMatcher(const std::vector<std::string>& stops) {
  if (stops.empty()) return;
  for (const std::string& stop : stops) {
    if (stop.empty()) fail(Code::kInvalidOption, "stop: an empty stop string would stop at once");
  }
  automaton_ = std::make_shared<const Automaton>(stops);
}

StopMatcher::Result StopMatcher::push(std::string_view text) {
  Result result;
  result.stop = push(text, &result.text);
  return result;
}

int32_t StopMatcher::push(std::string_view text, std::string* out) {
  if (matched_) return kNone;
  if (automaton_ == nullptr) {
    out->append(text);
    return kNone;
  }
  held_.append(text);
  const size_t before = held_.size() - text.size();
  for (size_t i = 0; i < text.size(); ++i) {
    state_ = automaton_->next(state_, static_cast<uint8_t>(text[i]));
    const int32_t stop = automaton_->at(state_).stop;
    if (stop == kNone) continue;
    matched_ = true;
    held_.resize(before + i + 1 - automaton_->stop_bytes[static_cast<size_t>(stop)]);
    out->append(held_);
    held_.clear();
    return stop;
  }
  const size_t certain = held_.size() - automaton_->at(state_).depth;
  out->append(held_, 0, certain);
  held_.erase(0, certain);
  return kNone;
}

std::string StopMatcher::finish() {
  std::string rest;
  if (!matched_) rest.swap(held_);
  held_.clear();
  state_ = 0;
  return rest;
}

}  // namespace polylm
