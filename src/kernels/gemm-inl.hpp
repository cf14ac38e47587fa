// The f32 product's packed panels and register-tiled micro-kernel. Included once by each ISA
// source. A tile of kRows x (kVectors * lanes) sums stays in registers while k runs.
#pragma once

#include "kernels/simd_common.hpp"

namespace pali {
namespace {

// Rows of W with k contiguous: blocks of lanes x lanes are widened and turned.
template <class S, int kNr, KernelType kType>
void pack_rows(const std::byte* w, int64_t out_stride, int64_t n, int64_t kc, float* panel) {
  using F = typename S::F;
  constexpr int64_t kBytes = bytes_of(kType);
  for (int64_t j = 0; j < kNr; j += S::kLanes) {
    const int64_t rows = n - j;
    const std::byte* block = w + j * out_stride * kBytes;
    for (int64_t k = 0; k < kc; k += S::kLanes) {
      const int64_t depth = smaller(kc - k, S::kLanes);
      F r[S::kLanes];
      if (rows >= S::kLanes && depth == S::kLanes) {
        unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
          r[i] = S::template load_as<kType>(block + (i * out_stride + k) * kBytes);
        });
      } else {
        unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
          r[i] = i < rows
                     ? S::template load_as_n<kType>(block + (i * out_stride + k) * kBytes, depth)
                     : S::zero();
        });
      }
      S::transpose(r);
      float* out = panel + k * kNr + j;
      unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
        if (i < depth) S::store(out + i * kNr, r[i]);
      });
    }
  }
}

// The same from bf16, where two neighbours along k are turned as one: half the shuffles.
template <class S, int kNr>
void pack_rows_bf16_wide(const std::byte* w, int64_t out_stride, int64_t n, int64_t kc,
                         float* panel) {
  for (int64_t j = 0; j < kNr; j += S::kLanes) {
    const int64_t rows = n - j;
    const std::byte* block = w + j * out_stride * 2;
    for (int64_t k = 0; k < kc; k += 2 * S::kLanes) {
      const int64_t depth = smaller(kc - k, 2 * S::kLanes);
      typename S::F r[S::kLanes];
      unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
        r[i] = i < rows ? S::load_pairs(block + (i * out_stride + k) * 2, depth) : S::zero();
      });
      S::transpose(r);
      float* out = panel + k * kNr + j;
      unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
        if (2 * i < depth) S::store(out + 2 * i * kNr, S::widen_low(r[i]));
        if (2 * i + 1 < depth) S::store(out + (2 * i + 1) * kNr, S::widen_high(r[i]));
      });
    }
  }
}

// Columns of W contiguous ([in, out] files), or neither.
template <class S, int kNr, KernelType kType>
void pack_columns(const std::byte* w, int64_t out_stride, int64_t in_stride, int64_t n, int64_t kc,
                  float* panel) {
  constexpr int64_t kBytes = bytes_of(kType);
  for (int64_t k = 0; k < kc; ++k) {
    const std::byte* column = w + k * in_stride * kBytes;
    float* out = panel + k * kNr;
    for (int64_t j = 0; j < kNr; j += S::kLanes) {
      auto values = S::zero();
      if (out_stride == 1 && n - j >= S::kLanes) {
        values = S::template load_as<kType>(column + j * kBytes);
      } else if (out_stride == 1 && n > j) {
        values = S::template load_as_n<kType>(column + j * kBytes, n - j);
      }
      S::store(out + j, values);
    }
    if (out_stride == 1) continue;
    for (int64_t j = 0; j < n; ++j) {
      S::store_n(out + j, S::template load_as_n<kType>(column + j * out_stride * kBytes, 1), 1);
    }
  }
}

template <class S, int kNr, KernelType kType>
void pack_as(const std::byte* w, int64_t out_stride, int64_t in_stride, int64_t n, int64_t kc,
             float* panel) {
  if (in_stride == 1) {
    if constexpr (kType == KernelType::bf16) {
      return pack_rows_bf16_wide<S, kNr>(w, out_stride, n, kc, panel);
    } else {
      return pack_rows<S, kNr, kType>(w, out_stride, n, kc, panel);
    }
  }
  pack_columns<S, kNr, kType>(w, out_stride, in_stride, n, kc, panel);
}

template <class S, int kNr>
void pack_weights(const std::byte* w, KernelType type, int64_t out_stride, int64_t in_stride,
                  int64_t n, int64_t kc, void* panel) {
  float* out = static_cast<float*>(panel);
  using T = KernelType;
  if (type == T::f32) return pack_as<S, kNr, T::f32>(w, out_stride, in_stride, n, kc, out);
  if (type == T::bf16) return pack_as<S, kNr, T::bf16>(w, out_stride, in_stride, n, kc, out);
  pack_as<S, kNr, T::f16>(w, out_stride, in_stride, n, kc, out);
}

// Writes or adds kRows x (kVectors * lanes) sums; only the first n columns.
template <class S, int kRows, int kVectors>
[[gnu::always_inline]] inline void store_tile(typename S::F (&sums)[kRows][kVectors],
                                              const GemmArgs& args) {
  const int64_t n = args.n;
  const bool accumulate = args.accumulate;
  const bool whole = n == kVectors * S::kLanes;
  unroll<kRows * kVectors>([&](auto t) __attribute__((always_inline)) {
    constexpr int i = t.value / kVectors;
    constexpr int v = t.value % kVectors;
    float* out = args.c + i * args.c_stride + v * S::kLanes;
    if (whole) {
      S::store(out, accumulate ? S::add(S::load(out), sums[i][v]) : sums[i][v]);
    } else if (n > v * S::kLanes) {
      const int64_t lanes = smaller(n - v * S::kLanes, S::kLanes);
      S::store_n(out, accumulate ? S::add(S::load_n(out, lanes), sums[i][v]) : sums[i][v], lanes);
    }
  });
}

// Columns between two rounds of prefetches: a line of f32.
constexpr int64_t kAskEvery = 16;

[[gnu::always_inline]] inline void ask_ahead(const GemmArgs::Ahead& ahead, int64_t k) {
  const int64_t byte = k * ahead.value_bytes;
  if (byte % 64 != 0 || byte >= ahead.bytes) return;
  for (int64_t row = 0; row < ahead.rows; ++row) {
    __builtin_prefetch(ahead.first + row * ahead.stride + byte, 0, 2);  // into L2
  }
}

template <class S, int kRows, int kVectors>
void multiply_rows(const GemmArgs& args) {
  using F = typename S::F;
  F sums[kRows][kVectors];
  unroll<kRows * kVectors>([&](auto t) __attribute__((always_inline)) {
    sums[t / kVectors][t % kVectors] = S::zero();
  });
  // One pointer for three rows: their addresses are p, p + s and p + 2 s, one register each less.
  constexpr int kPointers = (kRows + 2) / 3;
  const float* a = static_cast<const float*>(args.a);
  const float* panel = static_cast<const float*>(args.panel);
  const int64_t a_stride = args.a_stride;
  const float* rows[kPointers];
  unroll<kPointers>([&](auto p) __attribute__((always_inline)) { rows[p] = a + 3 * p * a_stride; });
  const auto step = [&](int64_t k) __attribute__((always_inline)) {
    F b[kVectors];
    unroll<kVectors>([&](auto v)
                         __attribute__((always_inline)) { b[v] = S::load(panel + v * S::kLanes); });
    unroll<kRows>([&](auto i) __attribute__((always_inline)) {
      const F x = S::broadcast(rows[i / 3] + (i % 3) * a_stride + k);
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        sums[i][v] = S::fma(x, b[v], sums[i][v]);
      });
    });
    panel += kVectors * S::kLanes;
  };
  for (int64_t k = 0; k < args.kc;) {
    ask_ahead(args.ahead, k);
    for (const int64_t end = smaller(k + kAskEvery, args.kc); k < end; ++k) step(k);
  }
  store_tile<S, kRows, kVectors>(sums, args);
}

template <class S, int kRows, int kVectors>
void multiply(const GemmArgs& args) {
  if constexpr (kRows > 1) {
    if (args.m < kRows) return multiply<S, kRows - 1, kVectors>(args);
  }
  multiply_rows<S, kRows, kVectors>(args);
}

// L2 is 512 KB on Zen 2 and 3, 1 MB and more on CPUs with AVX-512.
template <class S, int kRows, int kVectors>
GemmKernels gemm_f32() {
  GemmKernels kernels = {};
  kernels.mr = kRows;
  kernels.nr = kVectors * S::kLanes;
  kernels.k_step = 1;
  kernels.element_bytes = 4;
  kernels.k_most = S::kLanes == 8 ? 2048 : 1024;
  kernels.pack_weights = pack_weights<S, kVectors * S::kLanes>;
  kernels.multiply = multiply<S, kRows, kVectors>;
  return kernels;
}

}  // namespace
}  // namespace pali
