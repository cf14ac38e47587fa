// Random numbers of sampling: the same on every platform and standard library.
#pragma once

#include <array>
#include <cstdint>

namespace pali {

// xoshiro256** (Blackman and Vigna 2018), its state filled by splitmix64 of the seed, as its
// authors advise: near seeds give unrelated streams.
class Random {
 public:
  explicit Random(uint64_t seed);
  uint64_t next();
  // In [0, 1), a multiple of 2^-53.
  double uniform();

 private:
  std::array<uint64_t, 4> state_{};
};

}  // namespace pali
