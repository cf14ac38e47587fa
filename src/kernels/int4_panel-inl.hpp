// Rows of int4 weights as panels for products by integers (int8-inl.hpp), over a vector class S and
// its integers I. Included once by each ISA source.
//
// A panel holds kVectors * S::kLanes rows, group of W after group: steps of a dword a row, I::kQuad
// columns, 8 too many each; then the group's scales in f32, one a row. What lies behind the last
// column is whatever: x is zero there.
//
// I: of the integers in int8-inl.hpp
//   columns<kPart>(F)   of dwords of nibbles, as dwords of the panel: the low ones, then the high
//   store(p, V)
#pragma once

#include "kernels/rows-inl.hpp"

namespace pali {
namespace {

constexpr int64_t kInt4Group = 32;              // columns with one scale
constexpr int64_t kInt4Bytes = kInt4Group / 2;  // of a whole group of a row in its file

constexpr int64_t int4_groups(int64_t k) { return (k + kInt4Group - 1) / kInt4Group; }

// `columns` of a row of W as whole groups: of a short one with h bytes, what was h apart comes to
// lie 16 apart. out: zeros.
inline void copy_groups(const std::byte* w, int64_t columns, std::byte* out) {
  for (int64_t first = 0; first < columns; first += kInt4Group) {
    const int64_t count = smaller(columns - first, kInt4Group), half = (count + 1) / 2;
    for (int64_t i = 0; i < count; ++i) {
      const std::byte pair = w[first / 2 + i % half];
      const std::byte value = i < half ? pair & std::byte{15} : pair >> 4;
      out[first / 2 + i % kInt4Bytes] |= i < kInt4Bytes ? value : value << 4;
    }
  }
}

template <class S, class I, int kVectors>
struct Int4Panel {
  using F = typename S::F;
  static constexpr int64_t kNr = kVectors * S::kLanes;
  static constexpr int kSteps = kInt4Group / I::kQuad;  // of a group
  static constexpr int64_t kScales = kNr * kSteps * 4;  // where a group's scales lie
  static constexpr int64_t kGroupStep = kScales + kNr * 4;
  static constexpr int64_t kDepth = S::kLanes * 4 * 2;  // columns turned at once

  // Columns [0, kc) of n <= kNr rows of W, and the scales of their groups; scale_stride in bytes.
  static void pack(const std::byte* w, int64_t stride, const std::byte* scales,
                   int64_t scale_stride, int64_t n, int64_t kc, std::byte* panel) {
    for (int64_t v = 0; v < kVectors; ++v) {
      const int64_t first = v * S::kLanes, rows = n - first;
      std::byte* to = panel + first * 4;
      pack_nibbles(w + first * stride, stride, rows, kc, to);
      pack_scales(scales + first * scale_stride, scale_stride, rows, int4_groups(kc), to + kScales);
    }
  }

 private:
  // A dword of a row is some of the panel: of its low nibbles, and half a group later of its high
  // ones.
  static void pack_nibbles(const std::byte* w, int64_t stride, int64_t rows, int64_t kc,
                           std::byte* to) {
    for (int64_t k = 0; k < kc; k += kDepth, to += kDepth / kInt4Group * kGroupStep) {
      F r[S::kLanes];
      unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
        if (i < rows) {
          const std::byte* from = w + i * stride + k / 2;
          __builtin_prefetch(from + 512, 0, 2);
          r[i] = kc - k < kDepth ? load_rest(from, kc - k)
                                 : S::load(reinterpret_cast<const float*>(from));
        } else {
          r[i] = S::zero();
        }
      });
      S::transpose(r);
      unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
        constexpr int kDwords = static_cast<int>(kInt4Bytes / 4), kParts = kSteps / kDwords;
        std::byte* group = to + i / kDwords * kGroupStep;
        unroll<kParts>([&](auto part) __attribute__((always_inline)) {
          constexpr int kHalf = kParts / 2;
          constexpr int kFirst = part / kHalf * kSteps / 2 + part % kHalf;
          I::store(group + (kFirst + i % kDwords * kHalf) * kNr * 4,
                   I::template columns<part.value>(r[i]));
        });
      });
    }
  }

  static F load_rest(const std::byte* w, int64_t columns) {
    alignas(64) std::byte groups[kDepth / 2] = {};
    copy_groups(w, columns, groups);
    return S::load(reinterpret_cast<const float*>(groups));
  }

  static void pack_scales(const std::byte* scales, int64_t stride, int64_t rows, int64_t groups,
                          std::byte* to) {
    constexpr KernelType kHalf = KernelType::f16;
    for (int64_t g = 0; g < groups; g += S::kLanes) {
      const int64_t count = smaller(groups - g, S::kLanes);
      F r[S::kLanes];
      unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
        const std::byte* from = scales + i * stride + g * 2;
        r[i] = i >= rows            ? S::zero()
               : count == S::kLanes ? S::template load_as<kHalf>(from)
                                    : S::template load_as_n<kHalf>(from, count);
      });
      S::transpose(r);
      unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
        if (i < count) S::store(reinterpret_cast<float*>(to + (g + i) * kGroupStep), r[i]);
      });
    }
  }
};

}  // namespace
}  // namespace pali
