// The store of a product's finished blocks, in pieces that are done beside the next block's steps.
// Included once by each source of the amx tier that multiplies by weights.
#pragma once

#include "kernels/rows-inl.hpp"
#include "kernels/simd_avx512.hpp"
#include "kernels/tiles-inl.hpp"

namespace pali {
namespace {

// A block of 32 x 32 f32 sums, [2 n][2 m][16 n][16 m] as the tile registers leave them. Each of its
// four tiles is turned where it lies and, for int8 weights, scaled; then its rows go through the
// epilogue into y, four at a time.
class Finishing {
 public:
  static constexpr int64_t kPieces = 20;

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
  static constexpr int64_t kRowsAPiece = 4;
  static constexpr int64_t kTilePieces = 1 + 16 / kRowsAPiece;
  // So much later lines of y that were asked for are there: stores that miss L1 hold up the many
  // others behind them.
  static constexpr int64_t kAhead = 2;
  static_assert(4 * kTilePieces == kPieces);

  struct Place {
    float* tile;
    int64_t part;         // 0: to be turned; then rows
    int64_t row, column;  // of y
  };
  Place place(int64_t piece) const {
    const int64_t tile = piece / kTilePieces, part = piece % kTilePieces;
    return {tiles_ + tile * 256, part, m0_ + tile % 2 * 16 + (part - 1) * kRowsAPiece,
            n0_ + tile / 2 * 16};
  }

  [[gnu::noinline]] void one() {
    const Place later = place(piece_ + kAhead), now = place(piece_);
    if (piece_ + kAhead < kPieces && later.part > 0 && later.column < args_->n) {
      unroll<kRowsAPiece>([&](auto i) __attribute__((always_inline)) {
        const int64_t row = smaller(later.row + i, args_->m - 1);
        __builtin_prefetch(args_->y + row * args_->y_stride + later.column, 1, 3);
      });
    }
    ++piece_;
    if (now.column >= args_->n) return;
    if (now.part == 0) return turn(now.tile, now.column);
    rows(now.tile + (now.part - 1) * kRowsAPiece * 16, now.row, now.column);
  }

  void turn(float* tile, int64_t column) const {
    F r[16];
    unroll<16>([&](auto i)
                   __attribute__((always_inline)) { r[i] = _mm512_load_ps(tile + i * 16); });
    if (args_->type == KernelType::int8) {
      alignas(64) float scales[16];
      _mm512_store_ps(
          scales, _mm512_maskz_loadu_ps(first16(args_->n - column), args_->scales + column * 4));
      unroll<16>([&](auto i) __attribute__((always_inline)) {
        r[i] = _mm512_mul_ps(r[i], _mm512_set1_ps(scales[i]));
      });
    }
    Avx512::transpose(r);
    unroll<16>([&](auto i)
                   __attribute__((always_inline)) { _mm512_store_ps(tile + i * 16, r[i]); });
  }

  void rows(const float* x, int64_t row, int64_t column) const {
    using A = KernelActivation;
    switch (args_->epilogue.activation) {
      case A::none:
        return rows_as<A::none>(x, row, column);
      case A::gelu_tanh:
        return rows_as<A::gelu_tanh>(x, row, column);
      case A::gelu_erf:
        return rows_as<A::gelu_erf>(x, row, column);
      case A::quick_gelu:
        return rows_as<A::quick_gelu>(x, row, column);
      case A::silu:
        return rows_as<A::silu>(x, row, column);
      case A::relu:
        return rows_as<A::relu>(x, row, column);
    }
  }
  // epilogue() of rows-inl.hpp for one vector of four rows: by calls of that an int8 prefill took 5
  // % longer.
  template <KernelActivation kActivation>
  void rows_as(const float* x, int64_t row, int64_t column) const {
    const KernelEpilogue& e = args_->epilogue;
    const __mmask16 some = first16(args_->n - column);
    const F bias =
        e.bias == nullptr ? Avx512::zero() : _mm512_maskz_loadu_ps(some, e.bias + column);
    unroll<kRowsAPiece>([&](auto i) __attribute__((always_inline)) {
      if (row + i >= args_->m) return;
      F value = _mm512_load_ps(x + i * 16);
      if (e.bias != nullptr) value = Avx512::add(value, bias);
      value = activate<Avx512, kActivation>(value);
      const auto beside = [&](const float* p, int64_t stride) __attribute__((always_inline)) {
        return _mm512_maskz_loadu_ps(some, p + (row + i) * stride + column);
      };
      if (e.gate != nullptr) value = Avx512::mul(value, beside(e.gate, e.gate_stride));
      if (e.residual != nullptr) value = Avx512::add(value, beside(e.residual, e.residual_stride));
      _mm512_mask_storeu_ps(args_->y + (row + i) * args_->y_stride + column, some, value);
    });
  }

  const FusedGemmArgs* args_ = nullptr;
  float* tiles_ = nullptr;
  int64_t m0_ = 0, n0_ = 0;
  int64_t piece_ = kPieces;
};

}  // namespace
}  // namespace pali
