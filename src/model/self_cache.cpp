#include "model/self_cache.hpp"

#include <algorithm>

namespace pali {

SelfCache::SelfCache(const SelfCacheShape& shape)
    : shape_(shape), all_(shape.capacity, shape.longest_prefix + shape.steps, 0) {
  // A window that nothing can leave is none.
  if (shape.window >= shape.longest_prefix + shape.steps) shape_.window = 0;
  if (shape_.window > 0) {
    near_ = RowLists(shape.capacity, shape.longest_prefix + shape.window, shape.window);
  }
  for (int64_t i = 0; i < shape.layers; ++i) {
    const int64_t rows = shape.prefix_rows + shape.capacity * shape.steps;
    keys_.emplace_back(rows, shape.kv_width);
    values_.emplace_back(rows, shape.kv_width);
  }
}

void SelfCache::begin(int64_t b, int64_t first, int64_t count, Prefix kind) {
  PALI_ASSERT(position_ == 0 && count <= shape_.longest_prefix);
  PALI_ASSERT(first >= 0 && first + count <= shape_.prefix_rows);
  beginnings_.push_back({b, first, count, kind});
  list_prefix(beginnings_.back());
}

void SelfCache::list_prefix(const Beginning& beginning) {
  const auto& [b, first, count, kind] = beginning;
  for (RowLists* list : {&all_, &near_}) {
    if (list == &near_ && shape_.window == 0) continue;
    for (int64_t i = first; i < first + count; ++i) {
      const auto row = static_cast<int32_t>(i);
      kind == Prefix::pinned ? list->pin(b, row) : list->append(b, row);
    }
  }
}

void SelfCache::restart() {
  position_ = 0;
  all_.clear();
  near_.clear();
  for (const Beginning& beginning : beginnings_) list_prefix(beginning);
}

void SelfCache::advance(int64_t batch) {
  PALI_ASSERT(position_ < shape_.steps && batch <= shape_.capacity);
  for (int64_t b = 0; b < batch; ++b) {
    const auto row = static_cast<int32_t>(shape_.prefix_rows + position_ * shape_.capacity + b);
    all_.append(b, row);
    if (shape_.window > 0) near_.append(b, row);
  }
  ++position_;
}

void SelfCache::reorder(std::span<const int32_t> source) {
  all_.reorder(source);
  if (shape_.window > 0) near_.reorder(source);
}

SelfCache::RowLists::RowLists(int64_t capacity, int64_t longest, int64_t window)
    : stride_(longest),
      window_(window),
      rows_(static_cast<size_t>(capacity * longest)),
      rows_swapped_(rows_.size()),
      counts_(static_cast<size_t>(capacity)),
      counts_swapped_(counts_.size()) {}

int64_t SelfCache::RowLists::length(const Count& count) const {
  return count.pinned + (window_ == 0 ? count.others : std::min(count.others, window_));
}

void SelfCache::RowLists::clear() { std::fill(counts_.begin(), counts_.end(), Count{}); }

void SelfCache::RowLists::pin(int64_t b, int32_t row) {
  Count& count = counts_[static_cast<size_t>(b)];
  PALI_ASSERT(count.others == 0 && count.pinned < stride_);
  rows_[static_cast<size_t>(b * stride_ + count.pinned++)] = row;
}

void SelfCache::RowLists::append(int64_t b, int32_t row) {
  Count& count = counts_[static_cast<size_t>(b)];
  const int64_t place = window_ == 0 ? count.others : count.others % window_;
  PALI_ASSERT(count.pinned + place < stride_);
  rows_[static_cast<size_t>(b * stride_ + count.pinned + place)] = row;
  ++count.others;
}

void SelfCache::RowLists::reorder(std::span<const int32_t> source) {
  for (size_t i = 0; i < source.size(); ++i) {
    const Count& count = counts_[static_cast<size_t>(source[i])];
    std::copy_n(rows_.data() + source[i] * stride_, length(count),
                rows_swapped_.data() + static_cast<int64_t>(i) * stride_);
    counts_swapped_[i] = count;
  }
  rows_.swap(rows_swapped_);
  counts_.swap(counts_swapped_);
}

std::span<const int32_t> SelfCache::RowLists::rows(int64_t b) const {
  return {rows_.data() + b * stride_, static_cast<size_t>(length(counts_[static_cast<size_t>(b)]))};
}

}  // namespace pali
