// The header of a .npy array. Ref: numpy/lib/format.py, versions 1.0 to 3.0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.hpp"

namespace pali {

// As many bytes as a header of ours can have; numpy itself reads none beyond 10,000.
inline constexpr int64_t kLongestNpyHeader = 10'000 + 12;

struct NpyHeader {
  DType dtype = DType::f32;
  std::vector<int64_t> shape;  // row-major
  int64_t data_offset = 0;     // where the header ends
  int64_t bytes = 0;           // shape times dtype
};

// `head` holds the first bytes of the array, kLongestNpyHeader of them or all; `where` names file
// and array. A two-byte void type is bf16: numpy has no name for it and big_vision writes it so.
// Throws Error: corrupt_file; unsupported (Fortran order, pickled objects, structures, big-endian
// numbers, types that nothing here computes with).
NpyHeader parse_npy(std::span<const std::byte> head, const std::string& where);

}  // namespace pali
