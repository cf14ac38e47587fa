// Keys and values of an encoder's output, as a decoder's steps read them.
#pragma once

#include <cstdint>
#include <vector>

#include "exec/context.hpp"
#include "ops/attention.hpp"

namespace pali {

// Keys, or values, head after head: a step reads one head's rows in one run. (Heads side by side in
// a row, each row of a head lies on a page of its own: PaLI-3 at 812 px, 3380 rows of 32 x 64, f32:
// 16 GB/s where this gives 25.)
class HeadRows {
 public:
  // [heads][rows][head_dim] of `type`, f32 or bf16; not initialised.
  HeadRows(int64_t rows, int64_t heads, int64_t head_dim, KernelType type);
  // mat [n, heads * head_dim] -> rows [first, first + n) of every head, rounded to the type.
  void write(const Context& context, int64_t first, ConstMat mat);
  StoredRows view() const;

 private:
  int64_t rows_, heads_, head_dim_;
  int64_t apart_;  // values from one head to the next
  KernelType type_;
  AlignedBuffer<std::byte> bytes_;
};

// Of one request, for every layer.
struct CrossCache {
  std::vector<HeadRows> keys, values;
};

}  // namespace pali
