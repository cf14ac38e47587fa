// Which backend serves which product where the user leaves it to us. A table to be kept true by
// `pali bench matmul`; nothing here depends on the number of threads. And what is multiplied where
// the user leaves that to us.
#include "matmul/backends.hpp"
#include "matmul/blocking.hpp"

namespace pali {

MatmulBackend backend_for(int64_t m, DType weight, ComputeType compute, Isa isa) {
  struct Row {
    DType weight;
    ComputeType compute;
    Isa isa;
    int64_t from_rows;  // products of at least so many rows
  };
  // AVX512-BF16 without AMX: not measured against each other; both multiply at the same peak (Zen
  // 5), and oneDNN was tuned for longer. Up to kGemvRows native reads rows in place at the speed of
  // memory, where oneDNN was seen at a third of it on plain rows. amx stays native, which is ahead
  // at every size. Xeon with AMX, one thread, medians, GFLOP/s native | oneDNN 2.6.3, W 5120x2048:
  //   M 12: 130 | 82   24: 261 | 128   64: 721 | 316   272: 914 | 657
  // and M 256, W 8192x1664: 992 | 581, 1664x8192: 749 | 564; M 3364, W 8192x1664: 1211 | 651.
  // int8 stays native too: oneDNN's, group after group, is there for who asks, and not measured.
  // f32 stays native: both run at the same peak (143 | 142 at M 256), and native widens bf16 and
  // f16 on the way.
  constexpr Row kOneDnn[] = {{DType::bf16, ComputeType::bf16, Isa::avx512_bf16, kGemvRows + 1}};
  for (const Row& row : kOneDnn) {
    if (row.weight == weight && row.compute == compute && row.isa == isa && m >= row.from_rows) {
      return MatmulBackend::onednn;
    }
  }
  return MatmulBackend::native;
}

// GFLOP/s, bf16 in tiles | bf16 by AVX512-BF16 | f32. Xeon with AMX (one thread, M 256): 992 | 102
// | 148. Zen 5 (peaks of two cores): none | 975 | 485. Of int8 weights, in int16 | f32, Zen 3 (two
// cores): M 272, W 5120x2048: 227 | 171; int4: 202 | 169; few rows of int4 1.4 to 1.9 times as
// fast. VNNI's tiers, not measured, need half the instructions for it that f32 needs; AVX-512
// without VNNI as many.
ComputeType automatic_compute(DType weights, MatmulBackend backend, Isa isa, bool intel) {
  const bool integers = is_quantised(weights);
  if (backend == MatmulBackend::reference || !(integers || weights == DType::bf16)) {
    return ComputeType::f32;
  }
  if (isa == Isa::amx) return ComputeType::bf16;
  if (integers) {
    return isa == Isa::scalar || isa == Isa::avx512 ? ComputeType::f32 : ComputeType::int16;
  }
  return isa == Isa::avx512_bf16 && !intel ? ComputeType::bf16 : ComputeType::f32;
}

ComputeType compute_beside(DType weights, ComputeType wanted, Isa isa) {
  const bool integers = wanted == ComputeType::int8 || wanted == ComputeType::int16;
  if (!integers || is_quantised(weights)) return wanted;
  // Who asks for int16 would lose less than bf16 does.
  return isa == Isa::amx && wanted == ComputeType::int8 ? ComputeType::bf16 : ComputeType::f32;
}

}  // namespace pali
