// Few rows of activations in int8 times weights in int8 or int4: the oracle of the other tiers'.
#include "kernels/scalar_values.hpp"

namespace pali {
namespace scalar {
namespace {

// A packed row: the groups' scales, then the integers.
void pack(const float* x, KernelType, int64_t k, float* out) {
  int8_t* q = reinterpret_cast<int8_t*>(out + groups_of(k));
  for (int64_t g = 0; g < groups_of(k); ++g) {
    const int64_t first = g * kInt8Group;
    const int64_t count = k - first < kInt8Group ? k - first : kInt8Group;
    quantise_group(x + first, count, out + g, q + first);
  }
}

void multiply(const GemvArgs& args) {
  for (int64_t i = 0; i < args.m; ++i) {
    const std::byte* x = reinterpret_cast<const std::byte*>(args.x + i * args.x_stride);
    for (int64_t j = 0; j < args.n; ++j) {
      args.y[i * args.y_stride + j] =
          product(x, args.w + j * args.w_stride, args.scales, args.type, j, args.k);
    }
  }
}

}  // namespace
}  // namespace scalar

void fill_scalar_int8(KernelTable& table) { table.gemv_int8 = {scalar::pack, scalar::multiply}; }

}  // namespace pali
