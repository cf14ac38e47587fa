// y = x W^T for few rows of x: W is streamed once from where it lies, whatever its type.
// Included once by each ISA source.
#pragma once

#include "kernels/simd_common.hpp"

namespace pali {
namespace {

// kM rows of x times kRows rows of W. Every product sums over k in the same two chains and order,
// whatever kM and kRows are: a row of y does not depend on its company.
template <class S, KernelType kType, int kM, int kRows>
[[gnu::always_inline]] inline void gemv_block(const float* x, int64_t x_stride, const std::byte* w,
                                              int64_t w_stride_bytes, int64_t depth, float* y,
                                              int64_t y_stride) {
  using F = typename S::F;
  constexpr int64_t kBytes = bytes_of(kType);
  F sums[kRows][kM][2];
  unroll<kRows * kM>([&](auto t) __attribute__((always_inline)) {
    sums[t / kM][t % kM][0] = S::zero();
    sums[t / kM][t % kM][1] = S::zero();
  });
  const auto step = [&](auto chain, int64_t k) __attribute__((always_inline)) {
    F inputs[kM];
    unroll<kM>([&](auto i)
                   __attribute__((always_inline)) { inputs[i] = S::load(x + i * x_stride + k); });
    unroll<kRows>([&](auto j) __attribute__((always_inline)) {
      const F weights = S::template load_as<kType>(w + j * w_stride_bytes + k * kBytes);
      unroll<kM>([&](auto i) __attribute__((always_inline)) {
        sums[j][i][chain] = S::fma(weights, inputs[i], sums[j][i][chain]);
      });
    });
  };
  int64_t k = 0;
  for (; k + 2 * S::kLanes <= depth; k += 2 * S::kLanes) {
    step(Index<0>{}, k);
    step(Index<1>{}, k + S::kLanes);
  }
  if (k + S::kLanes <= depth) {
    step(Index<0>{}, k);
    k += S::kLanes;
  }
  if (k < depth) {
    const int64_t rest = depth - k;
    unroll<kRows>([&](auto j) __attribute__((always_inline)) {
      const F weights = S::template load_as_n<kType>(w + j * w_stride_bytes + k * kBytes, rest);
      unroll<kM>([&](auto i) __attribute__((always_inline)) {
        const F input = S::load_n(x + i * x_stride + k, rest);
        sums[j][i][1] = S::fma(weights, input, sums[j][i][1]);
      });
    });
  }
  unroll<kRows * kM>([&](auto t) __attribute__((always_inline)) {
    constexpr int j = t.value / kM;
    constexpr int i = t.value % kM;
    y[i * y_stride + j] = S::sum(S::add(sums[j][i][0], sums[j][i][1]));
  });
}

template <class S, KernelType kType, int kM, int kRows>
void gemv_rows(const GemvArgs& args, int64_t first_row, int64_t j, int64_t end) {
  const int64_t w_stride_bytes = args.w_stride * bytes_of(kType);
  const float* x = args.x + first_row * args.x_stride;
  float* y = args.y + first_row * args.y_stride;
  for (; j + kRows <= end; j += kRows) {
    gemv_block<S, kType, kM, kRows>(x, args.x_stride, args.w + j * w_stride_bytes, w_stride_bytes,
                                    args.k, y + j, args.y_stride);
  }
  for (; j < end; ++j) {
    gemv_block<S, kType, kM, 1>(x, args.x_stride, args.w + j * w_stride_bytes, w_stride_bytes,
                                args.k, y + j, args.y_stride);
  }
}

// Rows of W are taken in groups that stay in the first-level cache while up to two passes of four
// rows of x run over them.
template <class S, KernelType kType>
void gemv_as(const GemvArgs& args) {
  constexpr int64_t kGroup = 4;
  constexpr int kWide = S::kLanes == 16 ? 2 : 1;  // 32 registers, or 16
  for (int64_t j = 0; j < args.n; j += kGroup) {
    const int64_t end = smaller(j + kGroup, args.n);
    for (int64_t i = 0; i < args.m; i += 4) {
      const int64_t rows = args.m - i;
      if (rows == 1) {
        gemv_rows<S, kType, 1, 2>(args, i, j, end);
      } else if (rows == 2) {
        gemv_rows<S, kType, 2, 2>(args, i, j, end);
      } else if (rows == 3) {
        gemv_rows<S, kType, 3, kWide>(args, i, j, end);
      } else {
        gemv_rows<S, kType, 4, kWide>(args, i, j, end);
      }
    }
  }
}

template <class S>
void gemv(const GemvArgs& args) {
  if (args.type == KernelType::f32) return gemv_as<S, KernelType::f32>(args);
  if (args.type == KernelType::bf16) return gemv_as<S, KernelType::bf16>(args);
  return gemv_as<S, KernelType::f16>(args);
}

}  // namespace
}  // namespace pali
