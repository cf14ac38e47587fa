// y = x W^T for few rows of x: W is streamed once from where it lies, whatever its type, at the
// speed of memory. Included once by each ISA source.
//
// What it takes to get there (two cores of a Xeon with AMX, K 2048, share of a plain read loop):
// four rows of W at once and asking for the next four ahead of their turn, 73 % without both in
// bf16; as few instructions a line as can be, so that more lines are under way: hence activations
// in the order in which weights come out of their line; the four rows some pages apart, since two
// streams of one page confuse the hardware's own prefetching (87 to 95 % in int8).
// On Zen 3 (the avx2 tier) asking ahead costs 3 to 12 % of the speed at one row of x, and pays in
// int4 alone, whose rows are the shortest.
#pragma once

#include "kernels/simd_common.hpp"

namespace pali {
namespace {

// Weights of one line of 64 bytes, and the vectors of floats that they become.
constexpr int64_t line_weights(KernelType type) {
  switch (type) {
    case KernelType::f32:
      return 16;
    case KernelType::bf16:
    case KernelType::f16:
      return 32;
    case KernelType::int8:
      return 64;
    case KernelType::int4:
      break;
  }
  return 128;
}

// Where vector c, lane l of a line's floats comes from: see S::weights.
template <class S, KernelType kType>
int64_t weight_of(int64_t c, int64_t l) {
  constexpr int64_t kLanes = S::kLanes;
  if constexpr (kType == KernelType::bf16) {
    return c / 2 * (2 * kLanes) + 2 * l + c % 2;  // low and high halves of dwords
  } else if constexpr (kType == KernelType::int4) {
    // nibble c % 8 of dword l: byte 4 l + c / 2 % 4, 16 of them a group
    const int64_t dword = c / 8 * kLanes + l;
    return dword / 4 * 32 + dword % 4 * 4 + c % 8 / 2 + c % 2 * 16;
  } else {
    return c * kLanes + l;
  }
}

// Activations in the order of weight_of, line by line, zero behind the last.
template <class S, KernelType kType>
void gemv_pack_as(const float* x, int64_t k, float* out) {
  constexpr int64_t kDepth = line_weights(kType);
  constexpr int64_t kVectors = kDepth / S::kLanes;
  int64_t first = 0;
  for (; first + kDepth <= k; first += kDepth) {
    if constexpr (kType == KernelType::bf16) {
      for (int64_t c = 0; c < kVectors; c += 2) {
        const auto a = S::load(x + first + c * S::kLanes);
        const auto b = S::load(x + first + (c + 1) * S::kLanes);
        S::store(out + first + c * S::kLanes, S::evens(a, b));
        S::store(out + first + (c + 1) * S::kLanes, S::odds(a, b));
      }
    } else {
      for (int64_t c = 0; c < kVectors; ++c) {
        for (int64_t l = 0; l < S::kLanes; ++l) {
          out[first + c * S::kLanes + l] = x[first + weight_of<S, kType>(c, l)];
        }
      }
    }
  }
  if (first == k) return;
  for (int64_t c = 0; c < kVectors; ++c) {
    for (int64_t l = 0; l < S::kLanes; ++l) {
      int64_t from = first + weight_of<S, kType>(c, l);
      if constexpr (kType == KernelType::int4) {
        // A short group of g weights has the second half of them in its high nibbles.
        const int64_t group = from / 32 * 32, left = smaller(k - group, 32);
        const int64_t half = (left + 1) / 2, byte = from % 16;
        if (left < 32) {
          const bool high = from % 32 >= 16;
          from = byte < half ? group + (high ? half : 0) + byte : k;
        }
      }
      out[first + c * S::kLanes + l] = from < k ? x[from] : 0.0f;
    }
  }
}

template <class S>
void gemv_pack(const float* x, KernelType type, int64_t k, float* out) {
  using T = KernelType;
  if (type == T::bf16) return gemv_pack_as<S, T::bf16>(x, k, out);
  if (type == T::int4) return gemv_pack_as<S, T::int4>(x, k, out);
  // The others keep their order, and int8 pads the furthest.
  gemv_pack_as<S, T::int8>(x, k, out);
}

// Vector c of the line at p. int4: without its scale.
template <class S, KernelType kType, int kC>
[[gnu::always_inline]] inline typename S::F line_vector(const std::byte* p) {
  if constexpr (kType == KernelType::bf16) {
    const auto pairs = S::load(reinterpret_cast<const float*>(p) + kC / 2 * S::kLanes);
    return kC % 2 == 0 ? S::widen_low(pairs) : S::widen_high(pairs);
  } else if constexpr (kType == KernelType::int4) {
    return S::template nibble<kC % 8>(p + kC / 8 * S::kLanes * 4);
  } else {
    constexpr int64_t kBytes = kType == KernelType::int8 ? 1 : bytes_of(kType);
    return S::template load_as<kType>(p + kC * S::kLanes * kBytes);
  }
}

// sums += the products of one line of each of kRows rows of W with kM rows of x.
template <class S, KernelType kType, int kM, int kRows, class Line, class Scales>
[[gnu::always_inline]] inline void gemv_line(const float* const (&x)[kM], const Line& line,
                                             const Scales& scales,
                                             typename S::F (&sums)[kRows][kM]) {
  using F = typename S::F;
  constexpr int kVectors = static_cast<int>(line_weights(kType) / S::kLanes);
  if constexpr (kType == KernelType::int4) {
    // Eight vectors have their scales in common, lane by lane: summed first, scaled then.
    unroll<kVectors / 8>([&](auto part) __attribute__((always_inline)) {
      F products[kRows][kM];
      unroll<8>([&](auto nibble) __attribute__((always_inline)) {
        constexpr int kC = part.value * 8 + nibble.value;
        unroll<kRows>([&](auto j) __attribute__((always_inline)) {
          const F weights = line_vector<S, kType, kC>(line(j));
          unroll<kM>([&](auto i) __attribute__((always_inline)) {
            const F inputs = S::load(x[i] + kC * S::kLanes);
            products[j][i] =
                nibble == 0 ? S::mul(weights, inputs) : S::fma(weights, inputs, products[j][i]);
          });
        });
      });
      unroll<kRows>([&](auto j) __attribute__((always_inline)) {
        const F scale = S::group_scales(scales(j) + part * S::kLanes / 4 * 2);
        unroll<kM>([&](auto i) __attribute__((always_inline)) {
          sums[j][i] = S::fma(products[j][i], scale, sums[j][i]);
        });
      });
    });
  } else {
    unroll<kVectors>([&](auto c) __attribute__((always_inline)) {
      F weights[kRows];
      unroll<kRows>([&](auto j) __attribute__((always_inline)) {
        weights[j] = line_vector<S, kType, c.value>(line(j));
      });
      unroll<kM>([&](auto i) __attribute__((always_inline)) {
        const F inputs = S::load(x[i] + c * S::kLanes);
        unroll<kRows>([&](auto j) __attribute__((always_inline)) {
          sums[j][i] = S::fma(weights[j], inputs, sums[j][i]);
        });
      });
    });
  }
}

// Rows of W that one pass takes: j, j + spacing, ...
struct GemvRows {
  int64_t first;
  int64_t spacing;
  int64_t ahead;  // rows on from each that are asked for meanwhile; 0: none
};

// kM rows of x from `i` on times kRows rows of W. Every product sums over k in the same order
// whatever kM and kRows are: a row of y does not depend on its company.
template <class S, KernelType kType, int kM, int kRows>
void gemv_block(const GemvArgs& args, int64_t i, const GemvRows& rows) {
  using F = typename S::F;
  constexpr int64_t kDepth = line_weights(kType);
  constexpr bool kInt4 = kType == KernelType::int4;
  const int64_t row_step = rows.spacing * args.w_stride;
  const int64_t ahead = rows.ahead * args.w_stride;
  const int64_t scale_bytes = kInt4 ? (args.k + 31) / 32 * 2 : 4;
  const float* x[kM];
  unroll<kM>([&](auto m)
                 __attribute__((always_inline)) { x[m] = args.x + (i + m) * args.x_stride; });
  const std::byte* w = args.w + rows.first * args.w_stride;
  const auto row_scales = [&](int64_t j) __attribute__((always_inline)) {
    return args.scales + (rows.first + j * rows.spacing) * scale_bytes;
  };
  F sums[kRows][kM];
  unroll<kRows * kM>([&](auto t)
                         __attribute__((always_inline)) { sums[t / kM][t % kM] = S::zero(); });
  const std::byte* scales[kRows] = {};
  if constexpr (kInt4) {
    unroll<kRows>([&](auto j) __attribute__((always_inline)) { scales[j] = row_scales(j); });
  }
  int64_t k = 0;
  for (; k + kDepth <= args.k; k += kDepth) {
    if constexpr (S::asks_ahead(kType)) {
      unroll<kRows>([&](auto j) __attribute__((always_inline)) {
        __builtin_prefetch(w + j * row_step + ahead, 0, 2);  // into L2
      });
    }
    gemv_line<S, kType, kM, kRows>(
        x, [&](int64_t j) __attribute__((always_inline)) { return w + j * row_step; },
        [&](int64_t j) __attribute__((always_inline)) { return scales[j] + k / 16; }, sums);
    w += 64;
    unroll<kM>([&](auto m) __attribute__((always_inline)) { x[m] += kDepth; });
  }
  if (k < args.k) {  // the rest of a row, zeros behind it
    const int64_t left = args.k - k;
    const int64_t bytes = kInt4                       ? (left + 1) / 2
                          : kType == KernelType::int8 ? left
                                                      : left * bytes_of(kType);
    alignas(64) std::byte line[kRows][64] = {};
    std::byte rest[kRows][8] = {};
    for (int j = 0; j < kRows; ++j) {
      for (int64_t b = 0; b < bytes; ++b) line[j][b] = w[j * row_step + b];
      if constexpr (kInt4) {
        for (int64_t b = 0; b < (left + 31) / 32 * 2; ++b) rest[j][b] = scales[j][k / 16 + b];
      }
    }
    gemv_line<S, kType, kM, kRows>(
        x, [&](int64_t j) __attribute__((always_inline)) { return &line[j][0]; },
        [&](int64_t j) __attribute__((always_inline)) { return &rest[j][0]; }, sums);
  }
  unroll<kRows * kM>([&](auto t) __attribute__((always_inline)) {
    constexpr int j = t.value / kM;
    constexpr int m = t.value % kM;
    float sum = S::sum(sums[j][m]);
    if constexpr (kType == KernelType::int8) {
      float scale;
      __builtin_memcpy(&scale, row_scales(j), sizeof(scale));
      sum *= scale;
    }
    args.y[(i + m) * args.y_stride + rows.first + j * rows.spacing] = sum;
  });
}

template <class S, KernelType kType, int kRows>
void gemv_rows(const GemvArgs& args, const GemvRows& rows) {
  // Sums and weights of four rows of both kinds need 32 registers, of three and four 16.
  constexpr int kWide = S::kLanes == 16 || kRows <= 3 ? kRows : kRows / 2;
  for (int64_t i = 0; i < args.m; i += 4) {
    const int64_t left = args.m - i;
    GemvRows now = rows;
    if (i > 0) now.ahead = 0;
    if (left == 1) {
      gemv_block<S, kType, 1, kRows>(args, i, now);
    } else if (left == 2) {
      gemv_block<S, kType, 2, kRows>(args, i, now);
    } else {
      for (int part = 0; part < kRows; part += kWide) {
        if (left == 3) {
          gemv_block<S, kType, 3, kWide>(args, i, now);
        } else {
          gemv_block<S, kType, 4, kWide>(args, i, now);
        }
        now.first += kWide * now.spacing;
      }
    }
  }
}

// take(Index<rows>, GemvRows) until all rows of W are taken, kRows of them at once.
template <int kRows, class Take>
[[gnu::always_inline]] inline void gemv_streams(const GemvArgs& args, Take&& take) {
  // As many streams over a part of the rows each; what is asked for ahead of a stream's end lies
  // where the next call's streams begin, if that goes on from here.
  const int64_t spacing = args.n / kRows;
  const int64_t ahead = args.w_stride >= 2048 ? 1 : (2048 + args.w_stride - 1) / args.w_stride;
  for (int64_t j = 0; j < spacing; ++j) {
    const int64_t beyond = j + ahead < spacing ? 0 : args.n - spacing;
    take(Index<kRows>{}, GemvRows{j, spacing, ahead + beyond});
  }
  for (int64_t j = kRows * spacing; j < args.n; ++j) take(Index<1>{}, GemvRows{j, 0, 0});
}

template <class S, KernelType kType>
void gemv_as(const GemvArgs& args) {
  const auto take = [&](auto count, const GemvRows& rows) {
    gemv_rows<S, kType, count.value>(args, rows);
  };
  if constexpr (kType == KernelType::int4) {
    // int4's scales are streams of their own, and one row of x shares little among rows of W.
    if (args.m == 1) return gemv_streams<2>(args, take);
  }
  if constexpr (S::kLanes < 16) {
    if (args.m >= 3) return gemv_streams<3>(args, take);
  }
  gemv_streams<4>(args, take);
}

template <class S>
void gemv(const GemvArgs& args) {
  using T = KernelType;
  if (args.type == T::f32) return gemv_as<S, T::f32>(args);
  if (args.type == T::bf16) return gemv_as<S, T::bf16>(args);
  if (args.type == T::f16) return gemv_as<S, T::f16>(args);
  if (args.type == T::int8) return gemv_as<S, T::int8>(args);
  gemv_as<S, T::int4>(args);
}

}  // namespace
}  // namespace pali
