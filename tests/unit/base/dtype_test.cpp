// The 16-bit floats, every bit pattern against arithmetic in double.
#include "base/dtype.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace pali {
namespace {

uint32_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
float of_bits(uint32_t bits) { return std::bit_cast<float>(bits); }

TEST(DType, SizesAndNames) {
  EXPECT_EQ(dtype_bytes(DType::f64), 8);
  EXPECT_EQ(dtype_bytes(DType::f32), 4);
  EXPECT_EQ(dtype_bytes(DType::bf16), 2);
  EXPECT_EQ(dtype_bytes(DType::boolean), 1);
  EXPECT_STREQ(dtype_name(DType::bf16), "bf16");
  EXPECT_TRUE(is_float_weight(DType::f16));
  EXPECT_FALSE(is_float_weight(DType::f64));
  EXPECT_FALSE(is_float_weight(DType::u8));
}

TEST(DType, EveryF16IsWidenedExactly) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float found = f16_to_f32(static_cast<uint16_t>(half));
    const int exponent = static_cast<int>(half >> 10 & 31);
    const int mantissa = static_cast<int>(half & 1023);
    const double sign = half >> 15 ? -1.0 : 1.0;
    if (exponent == 31 && mantissa != 0) {
      ASSERT_TRUE(std::isnan(found)) << half;
      continue;
    }
    double expected =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
    if (exponent == 31) expected = std::numeric_limits<double>::infinity();
    ASSERT_EQ(static_cast<double>(found), sign * expected) << half;
    ASSERT_EQ(std::signbit(found), sign < 0) << half;
  }
}

TEST(DType, EveryBf16SurvivesTheRoundTrip) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const float wide = bf16_to_f32(static_cast<uint16_t>(half));
    ASSERT_EQ(bits_of(wide), half << 16);
    if (std::isnan(wide)) {
      ASSERT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(wide)))) << half;
    } else {
      ASSERT_EQ(f32_to_bf16(wide), half);
    }
  }
}

// Around every pair of neighbours: below, at and above the middle, where even wins.
TEST(DType, Bf16RoundsToNearestEven) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    if ((half & 0x7fff) >= 0x7f80) continue;  // infinities and NaN
    for (const uint32_t rest : {1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float value = of_bits(half << 16 | rest);
      const bool up = rest > 0x8000 || (rest == 0x8000 && (half & 1) != 0);
      ASSERT_EQ(f32_to_bf16(value), half + (up ? 1 : 0)) << half << " " << rest;
    }
  }
}

TEST(DType, Bf16KeepsNan) {
  for (const uint32_t bits : {0x7f800001u, 0x7fc00000u, 0xff800001u, 0x7fffffffu, 0xffffffffu}) {
    const uint16_t half = f32_to_bf16(of_bits(bits));
    EXPECT_TRUE(std::isnan(bf16_to_f32(half))) << bits;
    EXPECT_EQ(half >> 15, bits >> 31) << bits;
  }
}

TEST(DType, LoadsUnalignedWeights) {
  std::byte memory[32] = {};
  const float value = -1.5f;
  std::memcpy(memory + 1 + 4, &value, 4);
  EXPECT_EQ(load_weight(memory + 1, DType::f32, 1), -1.5f);
  const uint16_t half = f32_to_bf16(value), small = 0xbe00;
  std::memcpy(memory + 17 + 2, &half, 2);
  EXPECT_EQ(load_weight(memory + 17, DType::bf16, 1), -1.5f);
  std::memcpy(memory + 17 + 2, &small, 2);
  EXPECT_EQ(load_weight(memory + 17, DType::f16, 1), -1.5f);
}

// Every half survives, and what lies between two goes to the nearer, or to the even one.
TEST(DType, NarrowsToF16) {
  for (uint32_t bits = 0; bits < 0x7c00; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = f16_to_f32(half), next = f16_to_f32(static_cast<uint16_t>(half + 1));
    ASSERT_EQ(f32_to_f16(value), half);
    ASSERT_EQ(f32_to_f16(-value), half | 0x8000u);
    if (bits == 0x7bff) break;  // the next one is infinite
    const float middle = (value + next) / 2;
    ASSERT_EQ(f32_to_f16(middle), bits % 2 == 0 ? half : half + 1) << bits;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, 0.0f)), half) << bits;
    ASSERT_EQ(f32_to_f16(std::nextafter(middle, next)), half + 1) << bits;
  }
  EXPECT_EQ(f32_to_f16(65519.0f), 0x7bff);
  EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(f32_to_f16(1e30f), 0x7c00);
  EXPECT_EQ(f32_to_f16(-std::numeric_limits<float>::infinity()), 0xfc00);
  EXPECT_EQ(f32_to_f16(std::numeric_limits<float>::quiet_NaN()) & 0x7e00, 0x7e00);
}

}  // namespace
}  // namespace pali
