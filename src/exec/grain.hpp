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

}  // namespace pali
