// y = x W^T for few rows of x as integers: W, int8 or int4, is streamed once from where it lies, as
// in gemv-inl.hpp, and multiplied as it is. Included once by each ISA source.
//
// int8: a group of x has one integer sum with a row of W. Four such sums are added up over their
// lanes together, and go on as four floats. int4: a group of W is 16 bytes, within one part of a
// vector, so sums of groups stay in lanes of their own, each with its scale, to the end of the row.
//
// The ways to multiply signed bytes where no instruction does were as fast as each other on Zen 3;
// widening both sides to 16 bits costs a fifth at one row of x, and pays from four on: then x may
// as well be int16.
//
// I: the integers that go with S, as in int8-inl.hpp; of int8 weights
//   kBytes, weights(p)     of W that meet a vector of x; a vector of them, ready for dot()
//   dot(sums, x, weights)  exact for every x of [-kMost, kMost]
//   four_sums(a, b, c, d)  the sum over each one's lanes
//   first_lane(p)          the dword at p, zeros behind it
// and of int4 weights
//   kUnit, nibbles(p)      bytes of W taken at once; these
//   nibble_at(e)           where element e of a packed unit of x belongs: a byte of W, and which
//                          half of it
//   dot_nibbles(start, nibbles, x)  start + their products
//   nibble_scales(p)       of the groups, where dot_nibbles has their sums
//   kSignedNibbles         else they stay unsigned: what the 8 too many make of x is in the sums
//                          from the start
//   negate, store
#pragma once

#include "kernels/gemv-inl.hpp"
#include "kernels/int8-inl.hpp"

namespace pali {
namespace {

// A packed row: integers, then what the groups' sums start at (one integer for int8, a vector's
// lanes for unsigned int4), then the groups' scales.
template <class I, KernelType kType>
struct GemvIntegerRow {
  static constexpr bool kInt4 = kType == KernelType::int4;
  static constexpr int64_t kWeightBytes =
      kInt4 ? kIntegerGroup / 2 : kIntegerGroup;  // of W, a group
  static constexpr int64_t kUnits = kInt4 ? kWeightBytes / I::kUnit : 1;
  static constexpr int64_t kElement = 4 / I::kQuad;  // bytes of an integer
  static constexpr int64_t kXBytes = kIntegerGroup * kElement;
  static constexpr int64_t kUnitStart = kInt4 && I::kSignedNibbles ? 0 : sizeof(typename I::V);
  static constexpr int64_t kStartBytes = kInt4 ? kUnits * kUnitStart : 4;

  explicit GemvIntegerRow(int64_t k)
      : starts(integer_groups(k) * kXBytes), scales(starts + integer_groups(k) * kStartBytes) {}
  int64_t starts;
  int64_t scales;

  static float scale(const std::byte* scales, int64_t group) {
    float value;
    __builtin_memcpy(&value, scales + group * 4, sizeof(value));
    return value;
  }
};

// Columns of a group of x in the order in which the nibbles of whole groups of W meet them.
template <class I>
struct NibbleOrder {
  constexpr NibbleOrder() : column() {
    for (int e = 0; e < kIntegerGroup; ++e) {
      const int in_unit = e % static_cast<int>(2 * I::kUnit);
      const auto at = I::nibble_at(in_unit);
      const int byte = (e - in_unit) / 2 + at.byte;
      column[e] = static_cast<uint8_t>(byte / 16 * 32 + byte % 16 + (at.high ? 16 : 0));
    }
  }
  uint8_t column[kIntegerGroup];
};

// A group's integers in that order, and where the sums of unsigned nibbles start: at 8 times x too
// few. q: zeros behind the `count` columns.
template <class I>
void arrange_for_int4(const std::byte* q, int64_t count, std::byte* out, std::byte* starts) {
  using Row = GemvIntegerRow<I, KernelType::int4>;
  constexpr NibbleOrder<I> kOrder;
  constexpr int64_t kGroup = 32, kHalf = 16;
  const int64_t whole = count / kGroup * kGroup;
  for (int64_t e = 0; e < kIntegerGroup; ++e) {
    int64_t column = kOrder.column[e];
    const int64_t first = column / kGroup * kGroup, left = count - first;
    if (first >= whole && left > 0) {
      // A short group has the second half of its weights in its high nibbles; and q holds zeros
      // where a byte has none.
      const int64_t half = (left + 1) / 2, byte = column % kHalf;
      const bool high = column % kGroup >= kHalf;
      column = byte < half ? first + byte + (high ? half : 0) : kIntegerGroup;
    }
    __builtin_memcpy(out + e * Row::kElement, q + column * Row::kElement, Row::kElement);
  }
  if constexpr (!I::kSignedNibbles) {
    alignas(64) std::byte eights[I::kUnit];
    for (std::byte& pair : eights) pair = std::byte{0x88};
    const auto weights = I::nibbles(eights);
    for (int64_t u = 0; u < Row::kUnits; ++u) {
      const auto eightfold =
          I::dot_nibbles(I::zero(), weights, out + 2 * u * I::kUnit * Row::kElement);
      I::store(starts + u * Row::kUnitStart, I::negate(eightfold));
    }
  }
}

template <class S, class I, KernelType kType>
void gemv_integer_pack_as(const float* x, int64_t k, std::byte* out) {
  const GemvIntegerRow<I, kType> row(k);
  for (int64_t g = 0; g < integer_groups(k); ++g) {
    const int64_t first = g * kIntegerGroup, count = smaller(k - first, kIntegerGroup);
    std::byte* scale = out + row.scales + g * 4;
    int32_t sum;
    float value;
    if constexpr (kType == KernelType::int4) {
      alignas(64) std::byte q[row.kXBytes + 64] = {};
      quantise_group<S, I>(x + first, count, &value, &sum, q);
      arrange_for_int4<I>(q, count, out + g * row.kXBytes, out + row.starts + g * row.kStartBytes);
    } else {
      quantise_group<S, I>(x + first, count, &value, &sum, out + g * row.kXBytes);
      const int32_t start = -I::kOffset * sum;
      __builtin_memcpy(out + row.starts + g * 4, &start, sizeof(start));
    }
    __builtin_memcpy(scale, &value, sizeof(value));
  }
}

template <class S, class I>
void gemv_integer_pack(const float* x, KernelType type, int64_t k, float* out) {
  std::byte* bytes = reinterpret_cast<std::byte*>(out);
  if (type == KernelType::int4) return gemv_integer_pack_as<S, I, KernelType::int4>(x, k, bytes);
  gemv_integer_pack_as<S, I, KernelType::int8>(x, k, bytes);
}

// What a block of products reads.
template <class I, KernelType kType>
struct GemvIntegerBlock {
  using Row = GemvIntegerRow<I, kType>;
  GemvIntegerBlock(const GemvArgs& a, int64_t i, const GemvRows& r)
      : args(a),
        rows(r),
        row(a.k),
        x(reinterpret_cast<const std::byte*>(a.x + i * a.x_stride)),
        x_bytes(a.x_stride * 4),
        row_step(r.spacing * a.w_stride),
        ahead(r.ahead * a.w_stride) {}
  const GemvArgs& args;
  const GemvRows& rows;
  const Row row;
  const std::byte* x;
  int64_t x_bytes, row_step, ahead;

  static constexpr int64_t kScaleBytes = kIntegerGroup / 32 * 2;  // of int4, a group of x
  const std::byte* w(int64_t j) const { return args.w + rows.first * args.w_stride + j * row_step; }
  const std::byte* scales(int64_t j) const {
    const int64_t bytes = Row::kInt4 ? (args.k + 31) / 32 * 2 : 4;
    return args.scales + (rows.first + j * rows.spacing) * bytes;
  }
  float* y(int64_t i, int64_t j) const {
    return args.y + i * args.y_stride + rows.first + j * rows.spacing;
  }
};

// The last group of a row where it is short: a copy with zeros behind.
template <int64_t kBytes>
inline void copy_rest(const std::byte* from, int64_t bytes, std::byte (&to)[kBytes]) {
  for (int64_t b = 0; b < kBytes; ++b) to[b] = b < bytes ? from[b] : std::byte{0};
}

// group(w(j), scales(j), g) for all groups of a row, w and scales of that group.
template <int kRows, class Block, class Group>
[[gnu::always_inline]] inline void for_each_group(const Block& block, Group&& group) {
  using Row = typename Block::Row;
  const int64_t whole = block.args.k / kIntegerGroup;
  for (int64_t g = 0; g < whole; ++g) {
    const std::byte* w[kRows];
    const std::byte* scales[kRows];
    unroll<kRows>([&](auto j) __attribute__((always_inline)) {
      w[j] = block.w(j) + g * Row::kWeightBytes;
      scales[j] = block.scales(j) + g * Block::kScaleBytes;
    });
    group(w, scales, g);
  }
  const int64_t left = block.args.k - whole * kIntegerGroup;
  if (left == 0) return;
  alignas(64) std::byte rest[kRows][Row::kWeightBytes], rest_scales[kRows][Block::kScaleBytes];
  const std::byte* w[kRows];
  const std::byte* scales[kRows];
  for (int j = 0; j < kRows; ++j) {
    copy_rest(block.w(j) + whole * Row::kWeightBytes, Row::kInt4 ? (left + 1) / 2 : left, rest[j]);
    if (Row::kInt4) {
      copy_rest(block.scales(j) + whole * Block::kScaleBytes, (left + 31) / 32 * 2, rest_scales[j]);
    }
    w[j] = rest[j];
    scales[j] = rest_scales[j];
  }
  group(w, scales, whole);
}

constexpr int kLine = 64;  // bytes of a cache line

// Asks for the lines that lie ahead of these rows' line at `byte`.
template <int kRows, class Block>
[[gnu::always_inline]] inline void ask_ahead(const Block& block, const std::byte* const (&w)[kRows],
                                             int64_t byte) {
  unroll<kRows>([&](auto j) __attribute__((always_inline)) {
    __builtin_prefetch(w[j] + block.ahead + byte, 0, 2);  // into L2
  });
}

template <class S, class I, int kM, int kRows>
void gemv_int8_block(const GemvArgs& args, int64_t i, const GemvRows& rows) {
  using V = typename I::V;
  constexpr KernelType kType = KernelType::int8;
  using Row = GemvIntegerRow<I, kType>;
  constexpr int kProducts = kM * kRows, kFours = (kProducts + 3) / 4;
  const GemvIntegerBlock<I, kType> block(args, i, rows);
  __m128 totals[kFours];
  unroll<kFours>([&](auto f) __attribute__((always_inline)) { totals[f] = _mm_setzero_ps(); });
  for_each_group<kRows>(
      block, [&](const auto& w, const auto&, int64_t g) __attribute__((always_inline)) {
        const std::byte* x = block.x + g * Row::kXBytes;
        V sums[kFours * 4];  // of row j of W and row m of x at j * kM + m
        unroll<kFours * 4>([&](auto t) __attribute__((always_inline)) {
          const std::byte* start = block.x + t % kM * block.x_bytes + block.row.starts + g * 4;
          sums[t] = I::kOffset == 0 || t >= kProducts ? I::zero() : I::first_lane(start);
        });
    // Not unrolled: gcc 12 would keep the sums of a longer body on the stack.
#pragma GCC unroll 1
        for (int64_t byte = 0; byte < Row::kWeightBytes; byte += kLine) {
          if constexpr (S::asks_ahead(kType)) ask_ahead<kRows>(block, w, byte);
          unroll<kLine / I::kBytes>([&](auto v) __attribute__((always_inline)) {
            const int64_t at = byte + v * I::kBytes;
            unroll<kRows>([&](auto j) __attribute__((always_inline)) {
              const typename I::Weights weights = I::weights(w[j] + at);
              unroll<kM>([&](auto m) __attribute__((always_inline)) {
                V& sum = sums[j * kM + m];
                sum = I::dot(sum, I::load(x + m * block.x_bytes + at * Row::kElement), weights);
                __asm__("" : "+v"(sum));  // a register's: gcc 12 adds pairs first, and spills
              });
            });
          });
        }
        const auto scale = [&](int t) __attribute__((always_inline)) {
          return Row::scale(block.x + t % kM * block.x_bytes + block.row.scales, g);
        };
        unroll<kFours>([&](auto f) __attribute__((always_inline)) {
          const __m128i four =
              I::four_sums(sums[4 * f], sums[4 * f + 1], sums[4 * f + 2], sums[4 * f + 3]);
          const __m128 factors =
              _mm_setr_ps(scale(4 * f), scale(4 * f + 1), scale(4 * f + 2), scale(4 * f + 3));
          totals[f] = _mm_fmadd_ps(_mm_cvtepi32_ps(four), factors, totals[f]);
        });
      });
  alignas(16) float results[kFours * 4];
  for (int f = 0; f < kFours; ++f) _mm_store_ps(results + 4 * f, totals[f]);
  for (int t = 0; t < kProducts; ++t) {
    float scale;
    __builtin_memcpy(&scale, block.scales(t / kM), sizeof(scale));
    *block.y(i + t % kM, t / kM) = results[t] * scale;
  }
}

template <class S, class I, int kM, int kRows>
void gemv_int4_block(const GemvArgs& args, int64_t i, const GemvRows& rows) {
  using F = typename S::F;
  using V = typename I::V;
  constexpr KernelType kType = KernelType::int4;
  using Row = GemvIntegerRow<I, kType>;
  const GemvIntegerBlock<I, kType> block(args, i, rows);
  F totals[kRows][kM];
  unroll<kRows * kM>([&](auto t)
                         __attribute__((always_inline)) { totals[t / kM][t % kM] = S::zero(); });
  for_each_group<kRows>(
      block, [&](const auto& w, const auto& scales, int64_t g) __attribute__((always_inline)) {
        const std::byte* x = block.x + g * Row::kXBytes;
        [[maybe_unused]] const std::byte* starts =
            block.x + block.row.starts + g * Row::kStartBytes;
        F sums[kRows][kM];
        if constexpr (S::asks_ahead(kType)) {
          ask_ahead<kRows>(block, w, 0);
          ask_ahead<kRows>(block, w, kLine);
        }
        unroll<kRows>([&](auto j) __attribute__((always_inline)) {
          unroll<static_cast<int>(Row::kUnits)>([&](auto u) __attribute__((always_inline)) {
            const auto nibbles = I::nibbles(w[j] + u * I::kUnit);
            const F scale = I::nibble_scales(scales[j] + u * I::kUnit / 8);
            unroll<kM>([&](auto m) __attribute__((always_inline)) {
              V start = I::zero();
              if constexpr (!I::kSignedNibbles) {
                start = I::load(starts + m * block.x_bytes + u * Row::kUnitStart);
              }
              const F products = I::to_float(I::dot_nibbles(
                  start, nibbles, x + m * block.x_bytes + 2 * u * I::kUnit * Row::kElement));
              sums[j][m] = u == 0 ? S::mul(products, scale) : S::fma(products, scale, sums[j][m]);
            });
          });
        });
        unroll<kM>([&](auto m) __attribute__((always_inline)) {
          const F factor = S::set(Row::scale(block.x + m * block.x_bytes + block.row.scales, g));
          unroll<kRows>([&](auto j) __attribute__((always_inline)) {
            totals[j][m] = S::fma(sums[j][m], factor, totals[j][m]);
          });
        });
      });
  unroll<kRows * kM>([&](auto t) __attribute__((always_inline)) {
    *block.y(i + t % kM, t / kM) = S::sum(totals[t / kM][t % kM]);
  });
}

template <class S, class I, KernelType kType, int kM, int kRows>
void gemv_integer_some(const GemvArgs& args, int64_t i, const GemvRows& rows) {
  if constexpr (kM > 1) {
    if (args.m - i < kM) {
      return gemv_integer_some<S, I, kType, kM - 1, kRows>(args, i, rows);
    }
  }
  if constexpr (kType == KernelType::int4) {
    gemv_int4_block<S, I, kM, kRows>(args, i, rows);
  } else {
    gemv_int8_block<S, I, kM, kRows>(args, i, rows);
  }
}

template <class S, class I, KernelType kType>
void gemv_integer_as(const GemvArgs& args) {
  constexpr bool kFewRegisters = S::kLanes < 16;
  const auto take = [&](auto count, GemvRows rows) {
    // Of x. Four rows of W come with more only where there are 32 registers (below).
    constexpr int kMost = kFewRegisters && decltype(count)::value == 4 ? 2 : 4;
    for (int64_t i = 0; i < args.m; i += kMost) {
      gemv_integer_some<S, I, kType, kMost, count.value>(args, i, rows);
      rows.ahead = 0;
    }
  };
  // Nibbles as words fill 16 registers with one row of W.
  if (kType == KernelType::int4 && kFewRegisters && I::kQuad == 2 && args.m > 1) {
    return gemv_streams<1>(args, take);
  }
  // Sums of four rows of both kinds need 32 registers; int4 shares little among rows of W.
  if (kType == KernelType::int4 || (kFewRegisters && args.m > 2)) {
    return gemv_streams<2>(args, take);
  }
  gemv_streams<4>(args, take);
}

template <class S, class I>
void gemv_integer_multiply(const GemvArgs& args) {
  if (args.type == KernelType::int4) return gemv_integer_as<S, I, KernelType::int4>(args);
  gemv_integer_as<S, I, KernelType::int8>(args);
}

template <class S, class I>
GemvKernels gemv_integers() {
  return {gemv_integer_pack<S, I>, gemv_integer_multiply<S, I>};
}

// A tier's products by the integers that it has for int8 weights, int4 ones, and few rows; a tile
// of kRows x kVectors vectors of sums.
template <class S, class ByInt8, class ByInt4, class Few, int kRows, int kVectors>
IntegerKernels integer_kernels() {
  return {.by_int8 = fused_integers<S, ByInt8, KernelType::int8, kRows, kVectors>(),
          .by_int4 = fused_integers<S, ByInt4, KernelType::int4, kRows, kVectors>(),
          .gemv = gemv_integers<S, Few>()};
}

}  // namespace
}  // namespace pali
