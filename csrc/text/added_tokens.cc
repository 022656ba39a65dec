// added_tokens.cc: see added_tokens.h.
#include "text/added_tokens.h"

#include <algorithm>
#include <utility>

#include "platform/checked.h"
#include "text/utf8.h"

namespace polylm {
namespace {

void check_token(const AddedToken& token, const Vocabulary& vocabulary) {
  const std::string name = "added token " + quoted(token.content);
  if (token.content.empty()) fail(Code::kTokenizerFormat, "an added token is empty");
  if (token.content.size() > kMaxPieceBytes) {
    fail(Code::kLimit, "an added token is longer than 4096 bytes");
  }
  if (!is_valid_utf8(token.content)) fail(Code::kTokenizerFormat, name + " is not UTF-8");
  if (token.id < 0 || token.id >= 2 * kMaxPieces) {
    fail(Code::kTokenizerRange, name + " has id " + std::to_string(token.id) +
                                    ", expected 0 to 2,097,151");
  }
  const int32_t known = vocabulary.find(token.content);
  if (known != PieceTrie::kNone && known != token.id) {
    fail(Code::kTokenizerDuplicate, name + " has id " + std::to_string(token.id) +
                                        ", but is piece " + std::to_string(known));
  }
  if (vocabulary.contains(token.id) && vocabulary.piece(token.id) != token.content) {
    fail(Code::kTokenizerConflict, name + " has id " + std::to_string(token.id) +
                                       ", which is the piece " +
                                       quoted(vocabulary.piece(token.id)));
  }
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Vocabulary& vocabulary)
    : tokens_(std::move(tokens)) {
  if (tokens_.size() > static_cast<size_t>(kMaxPieces)) {
    fail(Code::kLimit, "there are more than 1,048,576 added tokens");
  }
  std::vector<PieceTrie::Entry> entries;
  for (const AddedToken& token : tokens_) {
    check_token(token, vocabulary);
    const auto index = static_cast<int32_t>(entries.size());
    entries.push_back({token.content, index});
    if (!by_id_.emplace(token.id, static_cast<size_t>(index)).second) {
      fail(Code::kTokenizerDuplicate, "two added tokens have the id " + std::to_string(token.id));
    }
    id_end_ = std::max(id_end_, token.id + 1);
  }
  const int64_t twice = trie_.build(entries);
  if (twice != PieceTrie::kNone) {
    fail(Code::kTokenizerDuplicate, "added token " +
                                        quoted(entries[static_cast<size_t>(twice)].key) +
                                        " has two ids");
  }
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const int32_t index = trie_.find(content);
  return index == PieceTrie::kNone ? nullptr : &tokens_[static_cast<size_t>(index)];
}

const AddedToken* AddedTokens::find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

// Trie.split of transformers, character by character: every possible start is followed at once; the
// first token that ends decides, unless an earlier or longer one can be completed from there.
class AddedTokens::Splitter {
 public:
  Splitter(const PieceTrie& trie, std::string_view text) : trie_(trie), text_(text) {}

  // Where the text is cut.
  std::vector<size_t> run() {
    size_t skip = 0;
    for (size_t at = 0; at < text_.size(); at += char_bytes(at)) {
      if (at < skip) continue;
      skip = std::max(skip, advance(at));
      if (at < skip) continue;
      const int32_t node = step(trie_.root(), at);
      if (node != PieceTrie::kNone) states_.push_back({at, node});
    }
    for (const State& state : states_) {
      if (!is_end(state.node)) continue;
      cuts_.push_back(state.begin);
      cuts_.push_back(text_.size());
      break;
    }
    return std::move(cuts_);
  }

 private:
  struct State {
    size_t begin;
    int32_t node;
  };

  size_t char_bytes(size_t at) const { return char_length_bytes(text_.substr(at)); }
  bool is_end(int32_t node) const { return trie_.value(node) != PieceTrie::kNone; }
  int32_t step(int32_t node, size_t at) const {
    return trie_.walk(node, text_.substr(at, char_bytes(at)));
  }

  // Feeds one character to every state. Returns where to go on after a match, else 0.
  size_t advance(size_t at) {
    if (states_.empty()) return 0;
    std::vector<State> alive;
    for (size_t i = 0; i < states_.size(); ++i) {
      if (is_end(states_[i].node)) {
        const size_t skip = match(i, at);
        states_.clear();
        return skip;
      }
      const int32_t node = step(states_[i].node, at);
      if (node == PieceTrie::kNone) continue;
      states_[i].node = node;
      alive.push_back(states_[i]);
    }
    states_.swap(alive);
    return 0;
  }

  // State `i` has ended at `at`. Earlier states may still be completed, itself may be prolonged. An
  // earlier one looks on from the next character, even if this one just stopped it (as theirs).
  size_t match(size_t i, size_t at) {
    size_t begin = states_[i].begin;
    size_t end = at;
    size_t skip = 0;
    for (size_t k = 0; k <= i && states_[k].begin <= begin; ++k) {
      size_t ahead = states_[k].begin < begin ? at + char_bytes(at) : at;
      end = ahead;
      int32_t node = states_[k].node;
      const size_t from = states_[k].begin;
      while (true) {
        if (is_end(node)) {
          begin = from;
          end = skip = ahead;
        }
        if (ahead >= text_.size()) break;
        node = step(node, ahead);
        if (node == PieceTrie::kNone) break;
        ahead += char_bytes(ahead);
      }
    }
    cuts_.push_back(begin);
    cuts_.push_back(end);
    return skip;
  }

  const PieceTrie& trie_;
  std::string_view text_;
  std::vector<State> states_;  // in order of begin
  std::vector<size_t> cuts_;
};

namespace {

void strip_begin(std::string_view text, AddedTokens::Segment* segment) {
  while (segment->begin < segment->end) {
    const Utf8Char c = decode_utf8(text.substr(segment->begin, segment->end - segment->begin));
    if (!is_python_space(c.code_point)) return;
    segment->begin += c.length_bytes;
  }
}

void strip_end(std::string_view text, AddedTokens::Segment* segment) {
  while (segment->begin < segment->end) {
    size_t last = segment->end - 1;
    while (last > segment->begin && (static_cast<uint8_t>(text[last]) & 0xC0) == 0x80) --last;
    if (!is_python_space(decode_utf8(text.substr(last)).code_point)) return;
    segment->end = last;
  }
}

}  // namespace

std::vector<AddedTokens::Segment> AddedTokens::split(std::string_view text) const {
  std::vector<size_t> cuts = Splitter(trie_, text).run();
  cuts.push_back(text.size());
  std::vector<Segment> segments;
  size_t begin = 0;
  for (const size_t end : cuts) {
    if (end <= begin) continue;
    segments.push_back({begin, end, nullptr});
    begin = end;
  }
  const auto content = [&](const Segment& s) { return text.substr(s.begin, s.end - s.begin); };
  for (size_t i = 0; i < segments.size(); ++i) {
    const AddedToken* token = find(content(segments[i]));
    if (token == nullptr) continue;
    if (token->rstrip && i + 1 < segments.size()) strip_begin(text, &segments[i + 1]);
    if (token->lstrip && i > 0) strip_end(text, &segments[i - 1]);
  }
  for (Segment& segment : segments) segment.token = find(content(segment));
  segments.erase(std::remove_if(segments.begin(), segments.end(),
                                [](const Segment& s) { return s.begin == s.end; }),
                 segments.end());
  return segments;
}

}  // namespace polylm
