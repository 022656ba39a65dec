// engine_journal.cc: the checks of engine_journal.h.
#include "engine_journal.h"

#include <chrono>
#include <thread>

#include "harness.h"

namespace polylm::test {

int64_t kv_tokens_left(const Engine& engine) {
  for (int i = 0; i < 10000 && engine.stats().kv_tokens_used > 0; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return engine.stats().kv_tokens_used;
}

void Journal::add(const Event& event) {
  Entry& entry = entries_[event.request];
  EXPECT(!entry.ended);  // nothing comes after the end
  switch (event.kind) {
    case EventKind::kAdmitted:
      EXPECT(!entry.admitted && entry.prefill_events == 0 && entry.deltas == 0);
      entry.admitted = true;
      return;
    case EventKind::kPrefill:
      EXPECT(entry.admitted || !admits_);
      EXPECT(event.done > entry.prefill_done && event.done <= event.total);
      EXPECT_EQ(entry.deltas, int64_t{0});
      entry.prefill_done = event.done;
      ++entry.prefill_events;
      return;
    case EventKind::kDelta:
      EXPECT(entry.admitted || !admits_);
      EXPECT(!event.text.empty() || !event.tokens.empty());
      ++entry.deltas;
      entry.text[event.output] += event.text;
      entry.tokens[event.output].insert(entry.tokens[event.output].end(), event.tokens.begin(),
                                        event.tokens.end());
      return;
    case EventKind::kFinished:
      EXPECT(entry.admitted || !admits_);
      EXPECT(event.result != nullptr && !event.error.has_value());
      break;
    case EventKind::kFailed:
      EXPECT(event.result == nullptr && event.error.has_value());
      break;
  }
  entry.ended = true;
  entry.last = event;
  ++ends_;
}

void Journal::add_all(std::vector<Event>* events) {
  for (const Event& event : *events) add(event);
  events->clear();
}

std::string Journal::delta_difference(const Entry& entry, const Request& request) {
  if (entry.last.result == nullptr) return "";
  if (!request.stream) return entry.deltas + entry.prefill_events > 0 ? "unwanted events" : "";
  const std::vector<OutputResult>& outputs = entry.last.result->outputs;
  const size_t streamed = request.params.num_beams > 1 ? 1 : outputs.size();
  if (entry.text.size() > streamed) return "deltas of an output that is not streamed";
  for (size_t i = 0; i < std::min(streamed, outputs.size()); ++i) {
    const auto output = static_cast<int32_t>(i);
    const auto text = entry.text.find(output);
    const std::string joined = text == entry.text.end() ? "" : text->second;
    if (joined != outputs[i].text) {
      return "deltas " + quoted(joined) + " are not the text " + quoted(outputs[i].text);
    }
    const auto tokens = entry.tokens.find(output);
    const size_t count = tokens == entry.tokens.end() ? 0 : tokens->second.size();
    if (count != outputs[i].tokens.size()) return "number of tokens in deltas";
    for (size_t t = 0; t < count; ++t) {
      if (tokens->second[t].id != outputs[i].tokens[t]) return "tokens in deltas";
    }
  }
  return "";
}

}  // namespace polylm::test
