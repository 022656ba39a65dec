// graph_cache.cu: see graph_cache.h.
#include "cuda/graph_cache.h"

namespace polylm {

void GraphCache::reserve(size_t operations) {
  clear();
  for (Entry& e : entries_) e.operations.reserve(operations);
}

GraphCache::Entry* GraphCache::find(const StepShape& shape,
                                    const std::vector<Recorded>& operations) {
  Entry* oldest = entries_.data();
  for (Entry& e : entries_) {
    if (e.state != State::kEmpty && e.shape == shape && e.operations == operations) {
      e.last_use = ++uses_;
      return &e;
    }
    if (e.last_use < oldest->last_use) oldest = &e;
  }
  if (operations.size() > oldest->operations.capacity()) return nullptr;
  if (oldest->graph != nullptr) cudaGraphExecDestroy(oldest->graph);
  oldest->graph = nullptr;
  oldest->state = State::kEmpty;
  oldest->shape = shape;
  oldest->operations.assign(operations.begin(), operations.end());
  oldest->last_use = ++uses_;
  return oldest;
}

void GraphCache::clear() {
  for (Entry& e : entries_) {
    if (e.graph != nullptr) cudaGraphExecDestroy(e.graph);
    e.graph = nullptr;
    e.state = State::kEmpty;
    e.last_use = 0;
  }
}

}  // namespace polylm
