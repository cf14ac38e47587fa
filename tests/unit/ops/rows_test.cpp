// Norms over the pool and the embedding look-up.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "kernels/isa.hpp"
#include "ops/embedding.hpp"
#include "ops/norm.hpp"

namespace pali {
namespace {

Tensor random_tensor(int64_t rows, int64_t cols, uint32_t seed) {
  Tensor tensor(rows, cols);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.5f, 2.0f);
  for (int64_t i = 0; i < rows; ++i) {
    for (float& value : tensor.view().row_span(i)) value = normal(random);
  }
  return tensor;
}

TEST(Norm, MeetsDoubleOnEveryTierAtAnyThreadCount) {
  for (const IsaTier& tier : isa_tiers()) {
    if (!tier.available) continue;
    const KernelTable kernels = kernel_table(tier.isa);
    for (const int64_t cols : {1, 7, 16, 33, 416, 1152, 2048}) {
      const int64_t rows = cols == 2048 ? 60 : 5;  // the larger one is cut into several ranges
      const Tensor x = random_tensor(rows, cols, 1), w = random_tensor(1, cols, 2),
                   b = random_tensor(1, cols, 3);
      Tensor layer(rows, cols), rms(rows, cols);
      ThreadPool one(1);
      layer_norm({one, kernels}, x.view(), w.row(0), b.row(0), 1e-6f, layer.view());
      rms_norm({one, kernels}, x.view(), w.row(0), 1e-6f, rms.view());
      for (int64_t i = 0; i < rows; ++i) {
        double mean = 0, square = 0, var = 0;
        for (int64_t j = 0; j < cols; ++j) mean += x.row(i)[j] / static_cast<double>(cols);
        for (int64_t j = 0; j < cols; ++j) {
          square += double{x.row(i)[j]} * x.row(i)[j] / static_cast<double>(cols);
          var += (x.row(i)[j] - mean) * (x.row(i)[j] - mean) / static_cast<double>(cols);
        }
        for (int64_t j = 0; j < cols; ++j) {
          // One column: x - mean is 0 in exact arithmetic and stays 0 in f32.
          const double normed = (x.row(i)[j] - mean) / std::sqrt(var + 1e-6) * w.row(0)[j];
          const double spread = std::abs(mean) / std::sqrt(var + 1e-6) + 4;
          ASSERT_NEAR(layer.row(i)[j], normed + b.row(0)[j],
                      0x1p-22 * (spread * std::abs(w.row(0)[j]) + std::abs(b.row(0)[j])))
              << tier.name << " " << cols;
          const double scaled = x.row(i)[j] / std::sqrt(square + 1e-6) * w.row(0)[j];
          ASSERT_NEAR(rms.row(i)[j], scaled, 0x1p-21 * std::abs(scaled))
              << tier.name << " " << cols;
        }
      }
      for (const int threads : {2, 3}) {
        ThreadPool pool(threads);
        Tensor y(rows, cols);
        for (int64_t i = 0; i < rows; ++i) std::memcpy(y.row(i), x.row(i), size_t(cols) * 4);
        layer_norm({pool, kernels}, y.view(), w.row(0), b.row(0), 1e-6f, y.view());  // in place
        for (int64_t i = 0; i < rows; ++i) {
          ASSERT_EQ(std::memcmp(y.row(i), layer.row(i), size_t(cols) * 4), 0);
        }
      }
    }
  }
}

TEST(Norm, ZeroRowGivesBiasAndZeros) {
  ThreadPool pool(1);
  const KernelTable kernels = kernel_table(Isa::scalar);
  Tensor x(1, 9), w = random_tensor(1, 9, 1), b = random_tensor(1, 9, 2), y(1, 9);
  std::memset(x.row(0), 0, 36);
  layer_norm({pool, kernels}, x.view(), w.row(0), b.row(0), 1e-6f, y.view());
  for (int j = 0; j < 9; ++j) EXPECT_EQ(y.row(0)[j], b.row(0)[j]);
  rms_norm({pool, kernels}, x.view(), w.row(0), 1e-6f, y.view());
  for (int j = 0; j < 9; ++j) EXPECT_EQ(y.row(0)[j], 0.0f);
}

TEST(Embedding, WidensRowsOfEveryTypeAndLayout) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    for (const bool turned : {false, true}) {
      constexpr int64_t kV = 11, kD = 6;
      const int64_t size = dtype_bytes(type);
      std::vector<std::byte> bytes(kV * kD * 4 + 1);
      std::byte* data = bytes.data() + 1;  // unaligned
      WeightRef table{.name = "shared",
                      .dtype = type,
                      .out = kV,
                      .in = kD,
                      .out_stride = turned ? 1 : kD,
                      .in_stride = turned ? kV : 1,
                      .data = data};
      const auto value = [](int64_t v, int64_t d) { return static_cast<float>(v * 8 + d); };
      for (int64_t v = 0; v < kV; ++v) {
        for (int64_t d = 0; d < kD; ++d) {
          std::byte* at = data + (v * table.out_stride + d * table.in_stride) * size;
          const float number = value(v, d);
          // Small whole numbers: exact in every type. f16: exponent rebased by 112.
          const uint32_t bits = std::bit_cast<uint32_t>(number);
          const uint16_t half =
              number == 0
                  ? uint16_t{0}
                  : static_cast<uint16_t>((((bits >> 23) - 112) << 10) | ((bits >> 13) & 0x3ff));
          const uint16_t narrow = type == DType::bf16 ? f32_to_bf16(number) : half;
          if (type == DType::f32) {
            std::memcpy(at, &number, 4);
          } else {
            std::memcpy(at, &narrow, 2);
          }
        }
      }
      const std::vector<int32_t> ids = {10, 0, 3, 3};
      Tensor out(4, kD);
      embed_tokens(table, ids, out.view());
      for (size_t t = 0; t < ids.size(); ++t) {
        for (int64_t d = 0; d < kD; ++d) {
          EXPECT_EQ(out.row(static_cast<int64_t>(t))[d], value(ids[t], d)) << dtype_name(type);
        }
      }
      EXPECT_THROW(embed_tokens(table, std::vector<int32_t>{11, 0, 0, 0}, out.view()), Error);
      EXPECT_THROW(embed_tokens(table, std::vector<int32_t>{-1, 0, 0, 0}, out.view()), Error);
    }
  }
}

}  // namespace
}  // namespace pali
