// The avx512_bf16 tier: products of bf16 operands with f32 sums (VDPBF16PS: two neighbours of K at
// a time, subnormals as zero, no other rounding mode than nearest even).
#include <immintrin.h>

#include "kernels/gemm-inl.hpp"
#include "kernels/simd_avx512_bf16.hpp"

namespace pali {
namespace {

using F = __m512;
constexpr int kMr = 12;
constexpr int kNr = 32;
constexpr int kVectors = kNr / 16;
// Panel: for each pair of neighbours along K, kNr dwords, one a row of W.
template <KernelType kType>
void pack_rows_bf16(const std::byte* w, int64_t out_stride, int64_t n, int64_t kc, float* panel) {
  constexpr int64_t kBytes = bytes_of(kType);
  const int64_t pairs = (kc + 1) / 2;
  for (int64_t j = 0; j < kNr; j += 16) {
    const int64_t rows = n - j;
    const std::byte* block = w + j * out_stride * kBytes;
    for (int64_t pair = 0; pair < pairs; pair += 16) {
      const int64_t depth = smaller(kc - 2 * pair, 32);
      F r[16];
      unroll<16>([&](auto i) __attribute__((always_inline)) {
        r[i] = i < rows ? _mm512_castsi512_ps(
                              load_bf16<kType>(block + (i * out_stride + 2 * pair) * kBytes, depth))
                        : Avx512::zero();
      });
      Avx512::transpose(r);
      float* out = panel + pair * kNr + j;
      unroll<16>([&](auto i) __attribute__((always_inline)) {
        if (2 * i < depth) Avx512::store(out + i * kNr, r[i]);
      });
    }
  }
}

// One value of W as bf16 bits.
template <KernelType kType>
uint16_t bf16_at(const std::byte* p) {
  const __m512i bits = load_bf16<kType>(p, 1);
  return static_cast<uint16_t>(_mm_cvtsi128_si32(_mm512_maskz_extracti32x4_epi32(0xf, bits, 0)));
}

// [in, out] files, where neighbours along N are contiguous, and any other layout.
template <KernelType kType>
void pack_columns_bf16(const std::byte* w, int64_t out_stride, int64_t in_stride, int64_t n,
                       int64_t kc, float* panel) {
  constexpr int64_t kBytes = bytes_of(kType);
  uint32_t* out = reinterpret_cast<uint32_t*>(panel);
  for (int64_t k = 0; k < kc; k += 2, out += kNr) {
    const std::byte* even = w + k * in_stride * kBytes;
    const std::byte* odd = even + in_stride * kBytes;
    const bool has_odd = k + 1 < kc;
    if (out_stride == 1) {
      const __m512i a = load_bf16<kType>(even, n);
      const __m512i b = has_odd ? load_bf16<kType>(odd, n) : _mm512_setzero_si512();
      unroll<2>([&](auto half) __attribute__((always_inline)) {
        const __m256i a16 = _mm512_maskz_extracti64x4_epi64(0xff, a, half.value);
        const __m256i b16 = _mm512_maskz_extracti64x4_epi64(0xff, b, half.value);
        const __m512i low = _mm512_maskz_cvtepu16_epi32(0xffff, a16);
        const __m512i high =
            _mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, b16), 16);
        _mm512_storeu_si512(out + 16 * half, _mm512_or_si512(low, high));
      });
      continue;
    }
    for (int64_t j = 0; j < kNr; ++j) {
      const int64_t offset = j * out_stride * kBytes;
      const uint32_t low = j < n ? bf16_at<kType>(even + offset) : 0u;
      const uint32_t high = j < n && has_odd ? bf16_at<kType>(odd + offset) : 0u;
      out[j] = low | high << 16;
    }
  }
}

template <KernelType kType>
void pack_bf16_as(const std::byte* w, int64_t out_stride, int64_t in_stride, int64_t n, int64_t kc,
                  float* panel) {
  if (in_stride == 1) return pack_rows_bf16<kType>(w, out_stride, n, kc, panel);
  pack_columns_bf16<kType>(w, out_stride, in_stride, n, kc, panel);
}

void pack_weights_bf16(const std::byte* w, KernelType type, int64_t out_stride, int64_t in_stride,
                       int64_t n, int64_t kc, void* panel) {
  float* out = static_cast<float*>(panel);
  using T = KernelType;
  if (type == T::f32) return pack_bf16_as<T::f32>(w, out_stride, in_stride, n, kc, out);
  if (type == T::bf16) return pack_bf16_as<T::bf16>(w, out_stride, in_stride, n, kc, out);
  pack_bf16_as<T::f16>(w, out_stride, in_stride, n, kc, out);
}

void pack_activations_bf16(const float* x, int64_t kc, void* out) {
  uint16_t* y = static_cast<uint16_t*>(out);
  for (int64_t k = 0; k < kc; k += 32) {
    const int64_t n = smaller(kc - k, 32);
    const __m512i packed = load_bf16<KernelType::f32>(reinterpret_cast<const std::byte*>(x + k), n);
    _mm512_mask_storeu_epi16(y + k, first32((n + 1) / 2 * 2), packed);
  }
}

template <int kRows>
void multiply_rows_bf16(const GemmArgs& args) {
  F sums[kRows][kVectors];
  unroll<kRows * kVectors>([&](auto t) __attribute__((always_inline)) {
    sums[t / kVectors][t % kVectors] = Avx512::zero();
  });
  constexpr int kPointers = (kRows + 2) / 3;
  const uint16_t* a = static_cast<const uint16_t*>(args.a);
  const float* panel = static_cast<const float*>(args.panel);
  const int64_t a_stride = args.a_stride;
  const uint16_t* rows[kPointers];
  unroll<kPointers>([&](auto p) __attribute__((always_inline)) { rows[p] = a + 3 * p * a_stride; });
  for (int64_t k = 0; k < args.kc; k += 2) {
    __m512bh b[kVectors];
    unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      b[v] = as_bf16(_mm512_loadu_si512(panel + 16 * v));
    });
    unroll<kRows>([&](auto i) __attribute__((always_inline)) {
      int pair;
      __builtin_memcpy(&pair, rows[i / 3] + (i % 3) * a_stride + k, sizeof(pair));
      const __m512bh x = as_bf16(_mm512_set1_epi32(pair));
      unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        sums[i][v] = _mm512_dpbf16_ps(sums[i][v], x, b[v]);
      });
    });
    panel += kNr;
  }
  store_tile<Avx512, kRows, kVectors>(sums, args);
}

template <int kRows>
void multiply_bf16(const GemmArgs& args) {
  if constexpr (kRows > 1) {
    if (args.m < kRows) return multiply_bf16<kRows - 1>(args);
  }
  multiply_rows_bf16<kRows>(args);
}

}  // namespace

void fill_avx512_bf16(KernelTable& table) {
  table.gemm_bf16.mr = kMr;
  table.gemm_bf16.nr = kNr;
  table.gemm_bf16.k_step = 2;
  table.gemm_bf16.element_bytes = 2;
  table.gemm_bf16.k_most = 2048;
  table.gemm_bf16.pack_weights = pack_weights_bf16;
  table.gemm_bf16.pack_activations = pack_activations_bf16;
  table.gemm_bf16.multiply = multiply_bf16<kMr>;
}

}  // namespace pali
