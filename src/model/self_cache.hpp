// Keys and values that a decoder's sequences look back on.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/tensor.hpp"

namespace pali {

struct SelfCacheShape {
  int64_t layers = 0, kv_width = 0;
  int64_t capacity = 1;  // sequences, at most
  int64_t steps = 1;     // positions that a sequence grows by, at most
  // Rows that are there before the first step, of all prefixes together and of the longest.
  int64_t prefix_rows = 0, longest_prefix = 0;
  int64_t window = 0;  // positions that windowed layers see; 0: no layer is windowed
};

// The self-attention keys and values of up to `capacity` sequences in every layer. Rows of
// prefixes lie first, then position t of sequence b in row prefix_rows + t * capacity + b; nothing
// ever moves: an index table says which rows a sequence's past lies in, sequences of one prefix
// share its rows, and reordering sequences permutes that table alone.
class SelfCache {
 public:
  explicit SelfCache(const SelfCacheShape& shape);
  int64_t steps() const { return shape_.steps; }
  int64_t capacity() const { return shape_.capacity; }
  int64_t position() const { return position_; }  // steps taken

  // Sequence b begins with prefix rows [first, first + count). Pinned: they stay in sight of
  // windowed layers, whatever else comes.
  enum class Prefix { slides, pinned };
  void begin(int64_t b, int64_t first, int64_t count, Prefix kind);
  // Back to where begin() left the sequences; prefix rows stay.
  void restart();
  // Prefix rows of layer `layer`: [count, Hkv*Hd].
  Mat prefix_keys(size_t layer, int64_t first, int64_t count) {
    return keys_[layer].view().rows_from(first, count);
  }
  Mat prefix_values(size_t layer, int64_t first, int64_t count) {
    return values_[layer].view().rows_from(first, count);
  }

  // Opens position t = position() for sequences 0..batch-1.
  void advance(int64_t batch);
  // The rows of the newest position of layer `layer`: [batch, Hkv*Hd].
  Mat new_keys(size_t layer, int64_t batch) { return newest(keys_[layer], batch); }
  Mat new_values(size_t layer, int64_t batch) { return newest(values_[layer], batch); }
  ConstMat keys(size_t layer) const { return keys_[layer].view(); }
  ConstMat values(size_t layer) const { return values_[layer].view(); }
  // Rows of sequence b's keys, oldest first.
  std::span<const int32_t> rows(int64_t b) const { return all_.rows(b); }
  // Those within the window, and pinned ones, in any order.
  std::span<const int32_t> rows_in_window(int64_t b) const {
    return shape_.window == 0 ? all_.rows(b) : near_.rows(b);
  }
  // Sequence i becomes what sequence source[i] was.
  void reorder(std::span<const int32_t> source);

 private:
  // A list of rows for each sequence; what is not pinned is a ring of `window` places.
  class RowLists {
   public:
    RowLists() = default;
    RowLists(int64_t capacity, int64_t longest, int64_t window);
    void clear();
    void pin(int64_t b, int32_t row);
    void append(int64_t b, int32_t row);
    void reorder(std::span<const int32_t> source);
    std::span<const int32_t> rows(int64_t b) const;

   private:
    struct Count {
      int64_t pinned = 0, others = 0;
    };
    int64_t length(const Count& count) const;
    int64_t stride_ = 0, window_ = 0;  // window_ 0: everything stays
    std::vector<int32_t> rows_, rows_swapped_;
    std::vector<Count> counts_, counts_swapped_;
  };
  Mat newest(Tensor& cache, int64_t batch) {
    return cache.view().rows_from(shape_.prefix_rows + (position_ - 1) * shape_.capacity, batch);
  }
  struct Beginning {
    int64_t b, first, count;
    Prefix kind;
  };
  void list_prefix(const Beginning& beginning);
  SelfCacheShape shape_;
  int64_t position_ = 0;
  std::vector<Beginning> beginnings_;
  std::vector<Tensor> keys_, values_;  // a layer: [prefix_rows + steps * capacity, Hkv*Hd]
  RowLists all_, near_;
};

}  // namespace pali
