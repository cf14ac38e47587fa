// The store of a product's finished blocks, in pieces that are done beside the next block's steps.
// Included once by each source of the amx tier that multiplies by weights.
#pragma once

#include "kernels/rows-inl.hpp"
#include "kernels/simd_avx512.hpp"
#include "kernels/tiles-inl.hpp"

namespace pali {
namespace {

// A block of 32 x 32 f32 sums, [2 n][2 m][16 n][16 m] as the tile registers leave them. Each of its
// four tiles is turned, for int8 weights scaled, and goes through the epilogue into y.
class Finishing {
 public:
  static constexpr int64_t kPieces = 8;

  // The block's first row of x and of W; the block before is finished.
  void start(const FusedGemmArgs& args, float* tiles, int64_t m0, int64_t n0) {
    args_ = &args, tiles_ = tiles;
    m0_ = m0, n0_ = n0;
    piece_ = 0;
  }
  [[gnu::always_inline]] void some(int64_t count) {
    for (; count > 0 && piece_ < kPieces; --count) one();
  }
  void all() { some(kPieces); }

 private:
  // Asks for y's lines of four tiles first: stores that miss L1 hold up the many others behind
  // them.
  [[gnu::noinline]] void one() {
    const int64_t tile = piece_ % 4;
    const int64_t row = m0_ + tile % 2 * 16, column = n0_ + tile / 2 * 16;
    const bool asks = piece_++ < 4;
    if (row >= args_->m || column >= args_->n) return;
    if (asks) {
      float* y = args_->y + row * args_->y_stride + column;
      unroll<16>([&](auto i) __attribute__((always_inline)) {
        __builtin_prefetch(y + smaller(i, args_->m - 1 - row) * args_->y_stride, 1, 3);
      });
      return;
    }
    finish(tiles_ + tile * 256, row, column);
  }

  void finish(const float* tile, int64_t row, int64_t column) const {
    using A = KernelActivation;
    switch (args_->epilogue.activation) {
      case A::none:
        return finish_as<A::none>(tile, row, column);
      case A::gelu_tanh:
        return finish_as<A::gelu_tanh>(tile, row, column);
      case A::gelu_erf:
        return finish_as<A::gelu_erf>(tile, row, column);
      case A::quick_gelu:
        return finish_as<A::quick_gelu>(tile, row, column);
      case A::silu:
        return finish_as<A::silu>(tile, row, column);
      case A::relu:
        return finish_as<A::relu>(tile, row, column);
    }
  }
  // epilogue() of rows-inl.hpp for one vector of sixteen rows.
  template <KernelActivation kActivation>
  void finish_as(const float* tile, int64_t row, int64_t column) const {
    const KernelEpilogue& e = args_->epilogue;
    const __mmask16 some = first16(args_->n - column);
    const int64_t rows = args_->m - row;
    F r[16];
    unroll<16>([&](auto i)
                   __attribute__((always_inline)) { r[i] = _mm512_load_ps(tile + i * 16); });
    if (args_->type == KernelType::int8) {
      alignas(64) float scales[16];
      _mm512_store_ps(scales, _mm512_maskz_loadu_ps(some, args_->scales + column * 4));
      unroll<16>([&](auto i) __attribute__((always_inline)) {
        r[i] = _mm512_mul_ps(r[i], _mm512_set1_ps(scales[i]));
      });
    }
    Avx512::transpose(r);
    if (e.bias != nullptr) {
      const F bias = _mm512_maskz_loadu_ps(some, e.bias + column);
      unroll<16>([&](auto i) __attribute__((always_inline)) { r[i] = Avx512::add(r[i], bias); });
    }
    unroll<16>([&](auto i)
                   __attribute__((always_inline)) { r[i] = activate<Avx512, kActivation>(r[i]); });
    const auto beside = [&](int64_t i, const float* p, int64_t stride)
        __attribute__((always_inline)) {
      return _mm512_maskz_loadu_ps(some, p + (row + smaller(i, rows - 1)) * stride + column);
    };
    if (e.gate != nullptr) {
      unroll<16>([&](auto i) __attribute__((always_inline)) {
        r[i] = Avx512::mul(r[i], beside(i, e.gate, e.gate_stride));
      });
    }
    if (e.residual != nullptr) {
      unroll<16>([&](auto i) __attribute__((always_inline)) {
        r[i] = Avx512::add(r[i], beside(i, e.residual, e.residual_stride));
      });
    }
    float* y = args_->y + row * args_->y_stride + column;
    unroll<16>([&](auto i) __attribute__((always_inline)) {
      if (i < rows) _mm512_mask_storeu_ps(y + i * args_->y_stride, some, r[i]);
    });
  }

  const FusedGemmArgs* args_ = nullptr;
  float* tiles_ = nullptr;
  int64_t m0_ = 0, n0_ = 0;
  int64_t piece_ = kPieces;
};

}  // namespace
}  // namespace pali
