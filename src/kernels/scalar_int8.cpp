// Few rows of activations as integers, Q, times weights in int8 or int4: the oracle of the other
// tiers'.
#include "kernels/scalar_values.hpp"

namespace pali {
namespace scalar {
namespace {

// A packed row: the groups' scales, then the integers.
template <class Q>
void pack(const float* x, KernelType, int64_t k, float* out) {
  Q* q = reinterpret_cast<Q*>(out + groups_of(k));
  for (int64_t g = 0; g < groups_of(k); ++g) {
    const int64_t first = g * kIntegerGroup;
    const int64_t count = k - first < kIntegerGroup ? k - first : kIntegerGroup;
    quantise_group(x + first, count, out + g, q + first);
  }
}

template <class Q>
void multiply(const GemvArgs& args) {
  for (int64_t i = 0; i < args.m; ++i) {
    const std::byte* x = reinterpret_cast<const std::byte*>(args.x + i * args.x_stride);
    for (int64_t j = 0; j < args.n; ++j) {
      args.y[i * args.y_stride + j] =
          product<Q>(x, args.w + j * args.w_stride, args.scales, args.type, j, args.k);
    }
  }
}

}  // namespace
}  // namespace scalar

void fill_scalar_int8(KernelTable& table) {
  table.int8.gemv = {scalar::pack<int8_t>, scalar::multiply<int8_t>};
  table.int16.gemv = {scalar::pack<int16_t>, scalar::multiply<int16_t>};
}

}  // namespace pali
