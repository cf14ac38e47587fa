// Rows of integers with scales to f32: one rounding, so the same bits on every tier.
#include "test_weights.hpp"

namespace pali {
namespace {

class Dequantise : public EveryTier {
 protected:
  void check(const TestWeights& w, int64_t rows) const {
    for (int64_t j = 0; j < rows; ++j) {
      Poisoned y(1, w.depth);
      table.dequantise(w.data + j * w.stride, w.row_scales(j), w.type, w.depth, y.data());
      for (int64_t t = 0; t < w.depth; ++t) {
        const auto expected = static_cast<float>(w.at(j, t));
        ASSERT_EQ(kind_of(y.at(0, t)), kind_of(expected)) << j << "," << t;
        if (std::isnan(expected)) continue;
        ASSERT_EQ(std::bit_cast<uint32_t>(y.at(0, t)), std::bit_cast<uint32_t>(expected))
            << "type " << static_cast<int>(w.type) << " k " << w.depth << " at " << j << "," << t;
      }
      ASSERT_TRUE(y.untouched());
    }
  }
};
PALI_EVERY_TIER(Dequantise);

TEST_P(Dequantise, IsOneRounding) {
  for (const KernelType type : kIntegerWeights) {
    std::vector<int64_t> depths = lengths();
    depths.insert(depths.end(), std::begin(kLongLengths), std::end(kLongLengths));
    for (const int64_t k : depths) {
      std::mt19937 random(static_cast<unsigned>(k));
      check(TestWeights(type, 3, k, 5, random), 3);
    }
  }
}

TEST_P(Dequantise, EveryInteger) {
  std::mt19937 random(1);
  TestWeights bytes(KernelType::int8, 1, 256, 0, random),
      nibbles(KernelType::int4, 1, 32, 0, random);
  for (int t = 0; t < 256; ++t) bytes.put(0, t, static_cast<float>(t - 128));
  for (int t = 0; t < 32; ++t) nibbles.put(0, t, static_cast<float>(t % 16 - 8));
  check(bytes, 1), check(nibbles, 1);
}

TEST_P(Dequantise, ExtremeScales) {
  for (const KernelType type : kIntegerWeights) {
    std::mt19937 random(2);
    TestWeights w(type, 6, 301, 0, random);
    put_extreme_scales(w);
    check(w, 6);
  }
}

}  // namespace
}  // namespace pali
