// step_tables.cu: see step_tables.h.
#include "cuda/step_tables.h"

#include <algorithm>

#include "cuda/kernels.h"
#include "cuda/tiles.h"
#include "platform/checked.h"

namespace polylm {
namespace {

constexpr int64_t kSegmentBlocks = kSegmentKeys / kCudaBlockTokens;

template <class T>
T* at(char* upload, int64_t place) {
  return reinterpret_cast<T*>(upload + place);
}

template <class T>
int64_t after(int64_t place, int64_t count) {
  return round_up(place + count * static_cast<int64_t>(sizeof(T)), 256);
}

int64_t blocks_of(const SequenceRows& s) {
  return ceil_div(s.first_position + s.row_count, kCudaBlockTokens);
}

// Fills up to buckets whatever may grow from step to step.
void round_up_to_buckets(const StepLimits& limits, int64_t most_rows, StepShape* shape) {
  const int64_t rows = std::min(row_bucket(shape->rows), most_rows);
  const int64_t segments = std::min(next_power(shape->segments), segments_of(limits.context));
  shape->rows = static_cast<int32_t>(rows);
  shape->generated = shape->rows;
  shape->segments = static_cast<int32_t>(segments);
  shape->tables =
      static_cast<int32_t>(std::min(rows, limits.sequences) * segments * kSegmentBlocks);
  shape->selects = static_cast<int32_t>(std::min(row_bucket(shape->selects), limits.select_rows));
  shape->listed = static_cast<int32_t>(std::min(listed_bucket(shape->listed), limits.listed));
  shape->repeats = true;
}

void fill_rows(const StepInputs& in, const StepShape& shape, const TablePlaces& places,
               char* upload) {
  auto* rows = at<RowInfo>(upload, 0);
  auto* tiles = at<QueryTile>(upload, places.tiles);
  auto* tables = at<int32_t>(upload, places.tables);
  int32_t used = 0;
  for (int64_t i = 0; i < in.sequence_count; ++i) {
    const SequenceRows& s = in.sequences[i];
    if (s.row_count == 0) continue;
    const int32_t table = used;
    const auto first_row = static_cast<int32_t>(s.first_row);
    const auto count = static_cast<int32_t>(s.row_count);
    const auto position = static_cast<int32_t>(s.first_position);
    for (int64_t b = 0; b < blocks_of(s); ++b) tables[used++] = s.blocks[b];
    for (int32_t t = 0; t < count; ++t) {
      const int32_t row = first_row + t;
      rows[row] = {in.sources == nullptr ? in.tokens[row] : 0, position + t, table,
                   in.sources == nullptr ? -1 : in.sources[row]};
    }
    if (s.first_row < in.generated_rows) continue;
    for (int32_t t = 0; t < count; t += kPrefillQueries) {
      *tiles++ = {first_row + t, std::min(kPrefillQueries, count - t), position + t, table};
    }
  }
  std::fill(rows + in.rows, rows + shape.rows, RowInfo{});
  std::fill(tables + used, tables + shape.tables, 0);
}

void fill_selects(const SelectRow* selects, int64_t count, const StepShape& shape,
                  const TablePlaces& places, char* upload) {
  auto* wanted = at<HeadRow>(upload, places.wanted);
  auto* gather = at<int32_t>(upload, places.gather);
  auto* kept = at<int32_t>(upload, places.kept);
  auto* listed = at<ListedToken>(upload, places.listed);
  int32_t full = 0;
  int64_t used = 0;
  for (int64_t i = 0; i < count; ++i) {
    const SelectRow& row = selects[i];
    wanted[i] = {row.temperature};
    gather[i] = static_cast<int32_t>(row.row);
    kept[i] = row.keep_full ? full++ : -1;
    for (int64_t j = 0; j < row.listed_count; ++j) {
      listed[used++] = {static_cast<int32_t>(i), row.listed[j]};
    }
  }
  std::fill(wanted + count, wanted + shape.selects, HeadRow{});
  std::fill(gather + count, gather + shape.selects, 0);
  std::fill(kept + count, kept + shape.selects, -1);
  std::fill(listed + used, listed + shape.listed, ListedToken{});
  std::fill_n(at<int32_t>(upload, places.broken), shape.selects, 0);
}

}  // namespace

TablePlaces places_of(const StepShape& shape) {
  TablePlaces p;
  p.tiles = after<RowInfo>(0, shape.rows);
  p.tables = after<QueryTile>(p.tiles, shape.tiles);
  p.wanted = after<int32_t>(p.tables, shape.tables);
  p.gather = after<HeadRow>(p.wanted, shape.selects);
  p.kept = after<int32_t>(p.gather, shape.selects);
  p.broken = after<int32_t>(p.kept, shape.selects);
  p.listed = after<int32_t>(p.broken, shape.selects);
  p.end = after<ListedToken>(p.listed, shape.listed);
  return p;
}

StepShape shape_of(const StepInputs& in, const SelectRow* selects, int64_t select_count,
                   const StepLimits& limits, int64_t most_rows) {
  StepShape shape;
  shape.rows = static_cast<int32_t>(in.rows);
  shape.generated = static_cast<int32_t>(in.generated_rows);
  shape.selects = static_cast<int32_t>(select_count);
  int64_t listed = 0;
  int64_t longest = 0;
  for (int64_t i = 0; i < in.sequence_count; ++i) {
    const SequenceRows& s = in.sequences[i];
    if (s.row_count == 0) continue;
    shape.tables += static_cast<int32_t>(blocks_of(s));
    const bool generated = s.first_row < in.generated_rows;
    if (generated) longest = std::max(longest, s.first_position + s.row_count);
    if (!generated) shape.tiles += static_cast<int32_t>(ceil_div(s.row_count, kPrefillQueries));
  }
  for (int64_t i = 0; i < select_count; ++i) {
    listed += selects[i].listed_count;
    shape.keeps = shape.keeps || selects[i].keep_full;
  }
  shape.listed = static_cast<int32_t>(listed);
  shape.segments = static_cast<int32_t>(segments_of(longest));
  if (in.rows > 0 && in.generated_rows == in.rows) round_up_to_buckets(limits, most_rows, &shape);
  return shape;
}

int64_t most_upload_bytes(const StepLimits& limits) {
  StepShape most;
  most.rows = narrow<int32_t>(limits.rows);
  most.tiles = narrow<int32_t>(limits.rows / kPrefillQueries + limits.sequences);
  most.tables = narrow<int32_t>(
      checked_mul(limits.sequences, segments_of(limits.context) * kSegmentBlocks));
  most.selects = narrow<int32_t>(limits.select_rows);
  most.listed = narrow<int32_t>(limits.listed);
  return places_of(most).end;
}

void fill_tables(const StepInputs& in, const SelectRow* selects, int64_t select_count,
                 const StepShape& shape, char* upload) {
  const TablePlaces places = places_of(shape);
  fill_rows(in, shape, places, upload);
  fill_selects(selects, select_count, shape, places, upload);
}

}  // namespace polylm
