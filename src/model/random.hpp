// Random bits that are the same on every machine and compiler, and weights made of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/dtype.hpp"

namespace pali {

// SplitMix64 (Steele, Lea and Flood, 2014): one addition and three xor-shift-multiplies a draw.
class RandomBits {
 public:
  explicit RandomBits(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // Uniform in [-1, 1).
  float symmetric() { return static_cast<float>(next() >> 40) * 0x1p-23f - 1.0f; }

 private:
  uint64_t state_;
};

// Weights of one storage type (f32, bf16, i8, i4), uniform about zero with the deviation of a layer
// as wide as those in use. Values are drawn once, then copied from varying places: ten gigabytes at
// the speed of memory.
class RandomWeights {
 public:
  RandomWeights(DType dtype, uint64_t seed);
  // Whole rows, as they are stored.
  void fill(std::span<std::byte> out);
  // The scales of i8 (f32) and i4 (f16), all alike.
  void fill_scales(std::span<std::byte> out) const;
  // Floats of one value.
  void fill_ones(std::span<std::byte> out) const;

 private:
  DType dtype_;
  RandomBits random_;
  std::vector<std::byte> bytes_;
};

}  // namespace pali
