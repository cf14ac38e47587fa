// Products of activations as integers, int8 or int16, by int8 or int4 weights with integer sums,
// over a vector class S and its integers I (below). Included once by each ISA source.
//
// Rows of W are packed into panels of kNr rows, turned so that a dword holds one row's next kQuad
// columns: four bytes where the CPU multiplies unsigned by signed bytes (W is the unsigned one,
// plus 128 or a nibble's 8, which the sums of x make up for), two 16-bit integers elsewhere. The
// f32 sums of a block stay in cache beside its panels, and a group of x adds to them once.
#pragma once

#include "kernels/int4_panel-inl.hpp"

namespace pali {
namespace {

// I: the integers that go with S.
//   V, kQuad, kOffset       a vector; columns in a dword; what is added to W (128 or 0)
//   kMost                   the largest integer of x
//   zero, load, broadcast(p): the dword at p in all lanes
//   dot(sums, x, w)         sums += products of the dwords, kQuad at a time
//   to_float, round(F)      to nearest even
//   magnitude(F), max, highest, sum    |x| as bits, and over lanes
//   store_packed(p, V)      lanes as elements of packed x: 4 / kQuad bytes each
//   load_weights(p, n)      n <= kLanes * kQuad columns of a row of W, ready to be turned; rest
//                           whatever: x is zero there
// Of int4 weights, kOffset has no part. Beside x in int8 V may hold pairs of 16-bit sums, which
// to_float adds: no sum of a group of W is larger than 16 * 8 * 127, and what dot() goes through on
// the way may wrap around.
//   store, negate           of such sums
constexpr int64_t integer_groups(int64_t k) { return (k + kIntegerGroup - 1) / kIntegerGroup; }

constexpr int64_t kLineBytes = 64;
inline int64_t whole_lines(int64_t bytes) {
  return (bytes + kLineBytes - 1) / kLineBytes * kLineBytes;
}

// count <= kIntegerGroup values as integers, zeros behind them; the group's scale and sum of
// integers.
template <class S, class I>
void quantise_group(const float* x, int64_t count, float* scale, int32_t* sum, std::byte* out) {
  constexpr int64_t kLanes = S::kLanes, kBytes = 4 / I::kQuad;
  auto most = I::zero();
  for (int64_t i = 0; i < count; i += kLanes) {
    most = I::max(most, I::magnitude(load_lanes<S>(x + i, smaller(count - i, kLanes))));
  }
  const int32_t bits = I::highest(most);  // in the order of the floats
  float highest;
  __builtin_memcpy(&highest, &bits, sizeof(highest));
  const bool finite = bits < 0x7f800000;
  *sum = 0;
  if (!finite || highest < 0x1p-100f) {
    *scale = finite ? 0.0f : __builtin_nanf("");
    for (int64_t i = 0; i < kIntegerGroup * kBytes; ++i) out[i] = std::byte{0};
    return;
  }
  constexpr float kMost = I::kMost;
  *scale = highest / kMost;
  const auto inverse = S::set(kMost / highest);
  auto total = I::zero();
  for (int64_t i = 0; i < kIntegerGroup; i += kLanes) {
    const auto q = i < count
                       ? I::round(S::mul(load_lanes<S>(x + i, smaller(count - i, kLanes)), inverse))
                       : I::zero();
    total = I::add(total, q);
    I::store_packed(out + i * kBytes, q);
  }
  *sum = I::sum(total);
}

// What the sums of int4 weights with a group of x start at: at 8 times x too few.
template <class I>
void int4_starts(const std::byte* x, std::byte* starts) {
  constexpr int kElement = 4 / I::kQuad;
  alignas(64) std::byte dword[4] = {}, lanes[kLineBytes];
  for (int i = 0; i < 4; i += kElement) dword[i] = std::byte{8};
  const auto eights = I::broadcast(dword);
  for (int64_t g = 0; g < kIntegerGroup / kInt4Group; ++g) {
    auto eightfold = I::zero();
    for (int64_t step = 0; step < kInt4Group / I::kQuad; ++step, x += 4) {
      eightfold = I::dot(eightfold, I::broadcast(x), eights);
    }
    I::store(lanes, I::negate(eightfold));
    __builtin_memcpy(starts + g * 4, lanes, 4);
  }
}

// A packed row: integers, then the groups' scales, then what each integer sum starts at.
template <class I, KernelType kType>
struct IntegerRow {
  static constexpr int64_t kGroupBytes = kIntegerGroup * 4 / I::kQuad;
  // Integer sums of a group with a row of W.
  static constexpr int64_t kSums = kType == KernelType::int4 ? kIntegerGroup / kInt4Group : 1;
  static constexpr int64_t kStartBytes = kSums * 4;
  static int64_t scales(int64_t k) { return integer_groups(k) * kGroupBytes; }
  static int64_t starts(int64_t k) { return scales(k) + integer_groups(k) * 4; }
  // An odd number of lines: rows a power of two apart would share the same few of L1.
  static int64_t bytes(int64_t k) {
    const int64_t bytes = whole_lines(starts(k) + integer_groups(k) * kStartBytes);
    return bytes / kLineBytes % 2 == 0 ? bytes + kLineBytes : bytes;
  }
};

template <class S, class I, KernelType kType, int kRows, int kVectors>
struct IntegerProduct {
  using F = typename S::F;
  using V = typename I::V;
  using Row = IntegerRow<I, kType>;
  using Int4 = Int4Panel<S, I, kVectors>;
  static constexpr bool kInt4 = kType == KernelType::int4;
  static constexpr int64_t kNr = kVectors * S::kLanes;
  static constexpr int64_t kDepth = S::kLanes * I::kQuad;  // columns of W turned at once
  static constexpr int64_t kColumns = 128;                 // of y in a block
  static_assert(kIntegerGroup % kDepth == 0 && kColumns % kNr == 0);

  static int64_t panel_bytes(int64_t k) { return kRows * Row::bytes(k); }

  static int64_t panel_step(int64_t kc) {  // bytes of a panel of W
    const int64_t group = kInt4 ? Row::kSums * Int4::kGroupStep : Row::kGroupBytes * kNr;
    return integer_groups(kc) * group;
  }
  static int64_t sums_stride() { return kColumns + 16; }

  static int64_t scratch_bytes(int64_t m, int64_t, int64_t k, int64_t k_block) {
    return kColumns / kNr * panel_step(smaller(k, k_block)) + whole_lines(m * sums_stride() * 4);
  }

  static void pack_activations(const float* x, int64_t x_stride, int64_t m, int64_t first,
                               int64_t columns, int64_t k, std::byte* panel) {
    for (int64_t i = 0; i < m; ++i) {
      std::byte* row = panel + i * Row::bytes(k);
      float* scales = reinterpret_cast<float*>(row + Row::scales(k));
      std::byte* starts = row + Row::starts(k);
      const float* from = x + i * x_stride - first;
      for (int64_t g = first / kIntegerGroup; g < integer_groups(first + columns); ++g) {
        const int64_t begin = g * kIntegerGroup;
        std::byte* integers = row + g * Row::kGroupBytes;
        int32_t sum;
        quantise_group<S, I>(from + begin, smaller(first + columns - begin, kIntegerGroup),
                             scales + g, &sum, integers);
        if constexpr (kInt4) {
          int4_starts<I>(integers, starts + g * Row::kStartBytes);
        } else {
          const int32_t start = -I::kOffset * sum;
          __builtin_memcpy(starts + g * Row::kStartBytes, &start, sizeof(start));
        }
      }
    }
  }

  // Columns [0, kc) of n <= kNr rows of W.
  static void pack_weights(const std::byte* w, int64_t stride, int64_t n, int64_t kc,
                           std::byte* panel) {
    for (int64_t k = 0; k < kc; k += kDepth) {
      const int64_t count = smaller(kc - k, kDepth);
      for (int64_t v = 0; v < kVectors; ++v) {
        const std::byte* from = w + v * S::kLanes * stride + k;
        const int64_t rows = n - v * S::kLanes;
        F r[S::kLanes];
        unroll<S::kLanes>([&](auto i) __attribute__((always_inline)) {
          if (i < rows) {
            __builtin_prefetch(from + i * stride + 512, 0, 2);
            r[i] = I::as_floats(I::load_weights(from + i * stride, count));
          } else {
            r[i] = S::zero();
          }
        });
        S::transpose(r);
        float* to = reinterpret_cast<float*>(panel) + k / I::kQuad * kNr + v * S::kLanes;
        unroll<S::kLanes>([&](auto i)
                              __attribute__((always_inline)) { S::store(to + i * kNr, r[i]); });
      }
    }
  }

  // products [kM, kNr] = start + `steps` dwords of kM rows times a panel.
  template <int kM>
  [[gnu::always_inline]] static void multiply_steps(const std::byte* x, int64_t row_bytes,
                                                    const std::byte* starts, int64_t steps,
                                                    const std::byte* panel,
                                                    V (&products)[kM][kVectors]) {
    unroll<kM>([&](auto i) __attribute__((always_inline)) {
      const bool zero = !kInt4 && I::kOffset == 0;
      const V start = zero ? I::zero() : I::broadcast(starts + i * row_bytes);
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) { products[i][v] = start; });
    });
    constexpr int kPointers = (kM + 2) / 3;  // see gemm-inl.hpp
    const std::byte* rows[kPointers];
    unroll<kPointers>([&](auto p)
                          __attribute__((always_inline)) { rows[p] = x + 3 * p * row_bytes; });
    const auto step = [&](int64_t s) __attribute__((always_inline)) {
      V w[kVectors];
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        w[v] = I::load(panel + s * kNr * 4 + v * S::kLanes * 4);
      });
      unroll<kM>([&](auto i) __attribute__((always_inline)) {
        const V a = I::broadcast(rows[i / 3] + (i % 3) * row_bytes + s * 4);
        unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
          products[i][v] = I::dot(products[i][v], a, w[v]);
          if constexpr (kInt4) __asm__("" : "+v"(products[i][v]));  // see gemv_int8-inl.hpp
        });
      });
    };
    if constexpr (kInt4 && I::kQuad == 4) {
      unroll<Int4::kSteps>(step);
    } else if constexpr (S::kLanes == 16) {  // else gcc 12 keeps 20 of the 24 sums on the stack
#pragma GCC unroll 1
      for (int64_t s = 0; s < steps; ++s) {
        step(s);
        unroll<kM * kVectors>([&](auto t) __attribute__((always_inline)) {
          __asm__("" : "+v"(products[t / kVectors][t % kVectors]));
        });
      }
    } else {
#pragma GCC unroll 2
      for (int64_t s = 0; s < steps; ++s) step(s);
    }
  }

  // sums [kM, kNr] (+)= the groups from `group` on of kM packed rows times a panel.
  template <int kM>
  static void multiply_rows(const std::byte* x, int64_t k, int64_t group, int64_t kc,
                            const std::byte* panel, float* sums, bool accumulate) {
    const int64_t row_bytes = Row::bytes(k);
    const std::byte* integers = x + group * Row::kGroupBytes;
    const std::byte* scales = x + Row::scales(k) + group * 4;
    const std::byte* starts = x + Row::starts(k) + group * Row::kStartBytes;
    for (int64_t first = 0; first < kc; first += kIntegerGroup) {
      const int64_t columns = smaller(kc - first, kIntegerGroup);
      const auto add = [&](auto part) __attribute__((always_inline)) {
        unroll<kM>([&](auto i) __attribute__((always_inline)) {
          float scale;
          __builtin_memcpy(&scale, scales + i * row_bytes, sizeof(scale));
          const F factor = S::set(scale);
          unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
            float* sum = sums + i * sums_stride() + v * S::kLanes;
            const F before = accumulate ? S::load(sum) : S::zero();
            S::store(sum, S::fma(part(i, v), factor, before));
          });
        });
      };
      V products[kM][kVectors];
      if constexpr (kInt4) {
        alignas(64) float parts[kM * kNr];
        multiply_int4_group<kM>(integers, row_bytes, starts, columns, panel, parts);
        add([&](auto i, auto v) __attribute__((always_inline)) {
          return S::load(parts + i * kNr + v * S::kLanes);
        });
        panel += Row::kSums * Int4::kGroupStep;
      } else {
        multiply_steps<kM>(integers, row_bytes, starts, (columns + I::kQuad - 1) / I::kQuad, panel,
                           products);
        add([&](auto i, auto v)
                __attribute__((always_inline)) { return I::to_float(products[i][v]); });
        panel += Row::kGroupBytes * kNr;
      }
      integers += Row::kGroupBytes;
      scales += 4;
      starts += Row::kStartBytes;
      accumulate = true;
    }
  }

  // parts [kM, kNr] = the sums of a group of x, each of a group of W times its scale.
  template <int kM>
  [[gnu::always_inline]] static void multiply_int4_group(const std::byte* x, int64_t row_bytes,
                                                         const std::byte* starts, int64_t columns,
                                                         const std::byte* panel, float* parts) {
    for (int64_t first = 0; first < columns; first += kInt4Group) {
      V products[kM][kVectors];
      multiply_steps<kM>(x, row_bytes, starts, Int4::kSteps, panel, products);
      // Parts stay in memory: gcc 12 would keep some in registers, and products on the stack.
      __asm__ volatile("" : : "r"(parts) : "memory");
      const float* scales = reinterpret_cast<const float*>(panel + Int4::kScales);
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        const F scale = S::load(scales + v * S::kLanes);
        unroll<kM>([&](auto i) __attribute__((always_inline)) {
          float* part = parts + i * kNr + v * S::kLanes;
          const F before = first == 0 ? S::zero() : S::load(part);
          S::store(part, S::fma(I::to_float(products[i][v]), scale, before));
        });
      });
      x += Int4::kSteps * 4;
      starts += 4;
      panel += Int4::kGroupStep;
    }
  }

  template <int kM>
  static void multiply_some(int64_t m, const std::byte* x, int64_t k, int64_t group, int64_t kc,
                            const std::byte* panel, float* sums, bool accumulate) {
    if constexpr (kM > 1) {
      if (m < kM) {
        return multiply_some<kM - 1>(m, x, k, group, kc, panel, sums, accumulate);
      }
    }
    multiply_rows<kM>(x, k, group, kc, panel, sums, accumulate);
  }

  // Rows [first, end) of the columns from j on, whose sums are still in L1.
  static void finish(const FusedGemmArgs& args, int64_t first, int64_t end, int64_t j, int64_t n,
                     float* sums) {
    const KernelEpilogue& e = args.epilogue;
    for (int64_t i = first; i < end; ++i) {
      float* row = sums + i * sums_stride();
      for (int64_t c = 0; !kInt4 && c < n; c += S::kLanes) {
        const int64_t lanes = smaller(n - c, S::kLanes);
        const float* scales = reinterpret_cast<const float*>(args.scales + (j + c) * 4);
        S::store(row + c, S::mul(S::load(row + c), load_lanes<S>(scales, lanes)));
      }
      const auto part = [&](const float* p, int64_t stride) {
        return p == nullptr ? nullptr : p + i * stride + j;
      };
      epilogue<S>(row, e.bias == nullptr ? nullptr : e.bias + j, e.activation,
                  part(e.gate, e.gate_stride), part(e.residual, e.residual_stride), n,
                  args.y + i * args.y_stride + j);
    }
  }

  static void multiply(const FusedGemmArgs& args) {
    const int64_t k_block = smaller(args.k, args.k_block);
    std::byte* panels = args.scratch;
    float* sums = reinterpret_cast<float*>(panels + kColumns / kNr * panel_step(k_block));
    for (int64_t j = 0; j < args.n; j += kColumns) {
      const int64_t n = smaller(args.n - j, kColumns);
      for (int64_t k0 = 0; k0 < args.k; k0 += k_block) {
        const int64_t kc = smaller(args.k - k0, k_block), step = panel_step(kc);
        for (int64_t c = 0; c < n; c += kNr) {
          const int64_t rows = smaller(n - c, kNr);
          const std::byte* w = args.w + (j + c) * args.w_stride;
          std::byte* panel = panels + c / kNr * step;
          if constexpr (kInt4) {
            const int64_t scale_bytes = int4_groups(args.k) * 2;
            const std::byte* scales = args.scales + (j + c) * scale_bytes + int4_groups(k0) * 2;
            Int4::pack(w + k0 / 2, args.w_stride, scales, scale_bytes, rows, kc, panel);
          } else {
            pack_weights(w + k0, args.w_stride, rows, kc, panel);
          }
        }
        for (int64_t i = 0; i < args.m; i += kRows) {
          const std::byte* x = args.x + i * Row::bytes(args.k);
          for (int64_t c = 0; c < n; c += kNr) {
            multiply_some<kRows>(args.m - i, x, args.k, k0 / kIntegerGroup, kc,
                                 panels + c / kNr * step, sums + i * sums_stride() + c, k0 != 0);
          }
          if (k0 + kc == args.k) finish(args, i, smaller(i + kRows, args.m), j, n, sums);
        }
      }
    }
  }
};

template <class S, class I, KernelType kType, int kRows, int kVectors>
FusedGemm fused_integers() {
  using Product = IntegerProduct<S, I, kType, kRows, kVectors>;
  return {.rows = kRows,
          .w_rows = Product::kNr,
          .least_rows = Product::kColumns / 2,
          .k_step = kIntegerGroup,
          .element_bytes = 4 / I::kQuad,
          .panel_bytes = Product::panel_bytes,
          .scratch_bytes = Product::scratch_bytes,
          .pack_activations = Product::pack_activations,
          .multiply = Product::multiply};
}

}  // namespace
}  // namespace pali
