// Few rows of activations in int8 times weights in int8 or int4: the oracle of the other tiers'.
#include "kernels/scalar_values.hpp"

namespace pali {
namespace scalar {
namespace {

constexpr int64_t kInt4Group = 32;

// A packed row: the groups' scales, then the integers.
void pack(const float* x, KernelType, int64_t k, float* out) {
  int8_t* q = reinterpret_cast<int8_t*>(out + groups_of(k));
  for (int64_t g = 0; g < groups_of(k); ++g) {
    const int64_t first = g * kInt8Group;
    const int64_t count = k - first < kInt8Group ? k - first : kInt8Group;
    quantise_group(x + first, count, out + g, q + first);
  }
}

// Of one group of a row of int4 weights, `count` of them.
int32_t sum_of_group(const int8_t* q, const std::byte* w, int64_t count) {
  const int64_t half = (count + 1) / 2;
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int byte = static_cast<int>(w[i < half ? i : i - half]);
    sum += q[i] * ((i < half ? byte & 15 : byte >> 4) - 8);
  }
  return sum;
}

float product_int4(const std::byte* packed, const std::byte* w, const std::byte* scales,
                   int64_t k) {
  const float* x_scales = reinterpret_cast<const float*>(packed);
  const int8_t* q = reinterpret_cast<const int8_t*>(packed + groups_of(k) * 4);
  float total = 0.0f;
  for (int64_t g = 0; g < groups_of(k); ++g) {
    const int64_t end = (g + 1) * kInt8Group < k ? (g + 1) * kInt8Group : k;
    float part = 0.0f;
    for (int64_t i = g * kInt8Group; i < end; i += kInt4Group) {
      const int64_t count = end - i < kInt4Group ? end - i : kInt4Group;
      part = fmaf(static_cast<float>(sum_of_group(q + i, w + i / 2, count)),
                  load(scales, KernelType::f16, i / kInt4Group), part);
    }
    total = fmaf(part, x_scales[g], total);
  }
  return total;
}

void multiply(const GemvArgs& args) {
  const int64_t scale_bytes = (args.k + kInt4Group - 1) / kInt4Group * 2;
  for (int64_t i = 0; i < args.m; ++i) {
    const std::byte* x = reinterpret_cast<const std::byte*>(args.x + i * args.x_stride);
    for (int64_t j = 0; j < args.n; ++j) {
      const std::byte* w = args.w + j * args.w_stride;
      args.y[i * args.y_stride + j] =
          args.type == KernelType::int4
              ? product_int4(x, w, args.scales + j * scale_bytes, args.k)
              : product_int8(x, w, args.k) * load(args.scales, KernelType::f32, j);
    }
  }
}

}  // namespace
}  // namespace scalar

void fill_scalar_int8(KernelTable& table) { table.gemv_int8 = {scalar::pack, scalar::multiply}; }

}  // namespace pali
