// token_stops.cc: see token_stops.h.
#include "text/token_stops.h"

#include <algorithm>
#include <utility>

#include "text/stream_decoder.h"
#include "text/tokenizer.h"

namespace polylm {
namespace {

int64_t characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<uint8_t>(c) & 0xC0U) != 0x80U; });
}

}  // namespace

struct TokenStops::Rules {
  std::vector<std::string> stops;
  std::shared_ptr<const Tokenizer> tokenizer;
  StreamDecoder before;  // has seen a few ordinary tokens: a text's first token may lose its space
  int64_t reach = 1;

  Rules(std::vector<std::string> all, std::shared_ptr<const Tokenizer> of)
      : stops(std::move(all)), tokenizer(std::move(of)), before(tokenizer, false) {
    EncodeOptions options;
    options.add_special_tokens = false;
    const std::vector<int32_t> ids = tokenizer->encode("abcdef", options);  // as in transformers
    before.seed(ids.data(), static_cast<int64_t>(ids.size()));
    for (const std::string& stop : stops) reach = std::max(reach, characters(stop));
  }
};

TokenStops::TokenStops(std::vector<std::string> stops, std::shared_ptr<const Tokenizer> tokenizer)
    : rules_(std::make_shared<const Rules>(std::move(stops), std::move(tokenizer))) {}

int64_t TokenStops::reach() const { return rules_->reach; }

void TokenStops::add(int32_t id) {
  if (rules_->tokenizer->piece(id).empty()) {  // no token has this id, so no text goes through it
    window_.clear();
    lengths_.clear();
  }
  const std::string text = rules_->before.text_of_next(id);
  window_ += text;
  lengths_.push_back(static_cast<uint32_t>(text.size()));
  if (static_cast<int64_t>(lengths_.size()) <= rules_->reach) return;
  window_.erase(0, lengths_.front());
  lengths_.erase(lengths_.begin());
}

int32_t TokenStops::push(int32_t id) {
  add(id);
  const size_t before = window_.size() - lengths_.back();  // a match ends behind this
  size_t best_end = std::string::npos;
  int32_t best = -1;
  for (size_t i = 0; i < rules_->stops.size(); ++i) {
    const std::string& stop = rules_->stops[i];
    const size_t from = before + 1 > stop.size() ? before + 1 - stop.size() : 0;
    const size_t at = window_.find(stop, from);
    if (at == std::string::npos) continue;
    const size_t end = at + stop.size();
    const bool longer = best >= 0 && stop.size() > rules_->stops[static_cast<size_t>(best)].size();
    if (end < best_end || (end == best_end && longer)) {
      best_end = end;
      best = static_cast<int32_t>(i);
    }
  }
  return best;
}

}  // namespace polylm
