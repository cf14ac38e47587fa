// How much work is worth handing to another thread.
#pragma once

#include <algorithm>
#include <cstdint>

namespace pali {

// Rows of light work (a pass or two over `cols` values): about 10 us, against 0.1 to 1 us for a
// fork and join of spinning threads.
inline int64_t rows_per_grain(int64_t cols) {
  return std::max<int64_t>(1, 32768 / std::max<int64_t>(cols, 1));
}

// Rows of a matrix cut into parts of at most `most` rows (a multiple of kStep), where buffers hold
// no more. Parts begin at multiples of kStep, so that products of them fill their tiles; none is
// much shorter than the others, since few rows are multiplied another way.
class RowParts {
 public:
  static constexpr int64_t kStep = 32;

  RowParts(int64_t rows, int64_t most)
      : rows_(rows), steps_((rows + kStep - 1) / kStep), count_((rows + most - 1) / most) {}
  int64_t count() const { return count_; }
  // Part i is rows [begin(i), begin(i + 1)).
  int64_t begin(int64_t i) const { return std::min(rows_, steps_ * i / count_ * kStep); }
  int64_t most() const {
    return std::min(rows_, (steps_ + count_ - 1) / std::max<int64_t>(count_, 1) * kStep);
  }

 private:
  int64_t rows_, steps_, count_;
};

}  // namespace pali
