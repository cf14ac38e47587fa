// Which backend serves which product where the user leaves it to us. A table to be kept true by
// `pali bench matmul`; nothing here depends on the number of threads.
#include "matmul/backends.hpp"

namespace pali {

MatmulBackend backend_for(int64_t m, DType weight, ComputeType compute) {
  struct Row {
    DType weight;
    ComputeType compute;
    int64_t from_rows;  // products of at least so many rows
  };
  // oneDNN where it has an instruction that our tiers lack (AMX tiles for bf16); native elsewhere:
  // it reads rows in place for few rows, widens bf16 and f16 on the way, and fuses the epilogue.
  // In f32 both run at the same peak, and native needs no plain product in between.
  constexpr Row kOneDnn[] = {{DType::bf16, ComputeType::bf16, 33}};
  for (const Row& row : kOneDnn) {
    if (row.weight == weight && row.compute == compute && m >= row.from_rows) {
      return MatmulBackend::onednn;
    }
  }
  return MatmulBackend::native;
}

}  // namespace pali
