#include "matmul/quantise.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/quote.hpp"
#include "matmul/rounding.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

void read_row(const WeightRef& weight, int64_t o, std::vector<float>& row) {
  for (int64_t i = 0; i < weight.in; ++i) row[static_cast<size_t>(i)] = weight.at(o, i);
}

}  // namespace

AlignedBuffer<std::byte> quantisation_scales(const WeightRef& weight, DType type,
                                             QuantisationError* error) {
  PALI_ASSERT(is_quantised(type));
  const bool int8 = type == DType::i8;
  const int64_t group = int8 ? weight.in : kInt4Group;
  const int64_t groups = int8 ? 1 : int4_groups(weight.in);
  AlignedBuffer<std::byte> scales(weight.out * groups * (int8 ? 4 : 2));
  std::vector<float> row(static_cast<size_t>(weight.in));
  double squares = 0, missed = 0;
  float widest = 0.0f, widest_miss = 0.0f;
  for (int64_t o = 0; o < weight.out; ++o) {
    read_row(weight, o, row);
    for (int64_t g = 0; g < groups; ++g) {
      const float* w = row.data() + g * group;
      const int64_t n = std::min(group, weight.in - g * group);
      float most = 0.0f;
      bool finite = true;
      for (int64_t i = 0; i < n; ++i) {
        most = std::max(most, std::abs(w[i]));
        finite &= std::abs(w[i]) <= 3.402823466e38f;
      }
      if (!finite) {
        throw Error(ErrorCode::corrupt_file, "tensor " + quote(weight.name) +
                                                 ": expected finite weights, found others in row " +
                                                 std::to_string(o) + "; fetch the model again");
      }
      if (!int8 && most > 7.0f * 65504.0f) {
        throw Error(ErrorCode::unsupported, "tensor " + quote(weight.name) + ": weights of row " +
                                                std::to_string(o) +
                                                " are too large for int4; use int8");
      }
      const float scale = int8 ? most / 127.0f : int4_scale(w, n);
      const uint16_t half = f32_to_f16(scale);
      std::byte* to = scales.data() + (o * groups + g) * (int8 ? 4 : 2);
      int8 ? std::memcpy(to, &scale, 4) : std::memcpy(to, &half, 2);
      for (int64_t i = 0; error != nullptr && i < n; ++i) {
        const float value = rounded(w[i], scale, least_integer(type), most_integer(type));
        const float miss = std::abs(value * scale - w[i]);
        squares += double{w[i]} * w[i];
        missed += double{miss} * miss;
        widest_miss = std::max(widest_miss, miss);
      }
      widest = std::max(widest, most);
    }
  }
  if (error != nullptr) {
    *error = {};
    if (squares > 0) *error = {std::sqrt(missed / squares), double{widest_miss} / widest};
  }
  return scales;
}

void quantise(const WeightRef& weight, DType type, const std::byte* scales, std::byte* out) {
  PALI_ASSERT(is_quantised(type));
  const bool int8 = type == DType::i8;
  const int64_t group = int8 ? weight.in : kInt4Group;
  const int64_t groups = int8 ? 1 : int4_groups(weight.in);
  std::vector<float> row(static_cast<size_t>(weight.in));
  for (int64_t o = 0; o < weight.out; ++o, out += row_bytes(type, weight.in)) {
    read_row(weight, o, row);
    for (int64_t g = 0; g < groups; ++g) {
      const float scale = load_weight(scales, int8 ? DType::f32 : DType::f16, o * groups + g);
      const int64_t end = std::min((g + 1) * group, weight.in);
      for (int64_t i = g * group; i < end; ++i) {
        float& value = row[static_cast<size_t>(i)];
        value = rounded(value, scale, least_integer(type), most_integer(type));
      }
    }
    store_integers(row.data(), weight.in, type, out);
  }
}

}  // namespace pali
