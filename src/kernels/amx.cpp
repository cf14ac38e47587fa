// The amx tier: products of bf16 operands with f32 sums in tile registers (TDPBF16PS, 16 x 16 sums
// over 32 neighbours of K; subnormals as zero, rounding to nearest even).
//
// Rows of W are the first operand, as the file has them (K contiguous): bringing them into tiles is
// a plain copy, with conversion where they are not bf16. Activations are the second operand and
// are turned into pairs of K once a product. Sums come out as [n][m] and are turned in the store.
// The tile unit works beside the vector units, so what is vector work (the next panel of W, the
// epilogue of the block before) is done between the steps of K of a block, where it costs nothing
// until it outweighs the 64 cycles of a step.
#include <immintrin.h>

#include "kernels/amx_finishing-inl.hpp"

namespace pali {
namespace {

constexpr int64_t kRows = 32;              // of W in a panel, and of x in a panel: two tiles
constexpr int64_t kDepth = 32;             // of K in one step
constexpr int64_t kMany = 1 << 20;         // rows of W: as long shares as may be
constexpr int64_t kStep = 2 * kTile;       // of a panel, for one step of K
constexpr int64_t kBlock = kRows * kRows;  // sums of a block, in four tiles

constexpr TileConfig kConfig = whole_tiles();  // 0-3 sums, 4-5 rows of W, 6-7 activations

// 32 integers as bf16, exactly.
[[gnu::always_inline]] inline __m512i integers_as_bf16(__m256i bytes) {
  const F low = _mm512_maskz_cvtepi32_ps(
      0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, _mm256_castsi256_si128(bytes)));
  const F high = _mm512_maskz_cvtepi32_ps(
      0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, _mm256_extracti128_si256(bytes, 1)));
  return narrow(low, high);
}

// Where the rows of W lie.
struct Rows {
  const std::byte* data;
  int64_t stride;           // bytes
  const std::byte* scales;  // int4
  int64_t scale_stride;
  int64_t k;
};

// Step s of row r of W as 32 bf16, zero from k on. int8 stays without its scale, which the
// epilogue multiplies by.
template <KernelType kType>
[[gnu::always_inline]] inline __m512i weights(const Rows& w, int64_t r, int64_t s) {
  const int64_t left = w.k - s * kDepth;
  const std::byte* row = w.data + r * w.stride;
  if constexpr (kType == KernelType::bf16) {
    return _mm512_maskz_loadu_epi16(first32(left), row + s * 64);
  } else if constexpr (kType == KernelType::int8) {
    return integers_as_bf16(_mm256_maskz_loadu_epi8(first32(left), row + s * 32));
  } else {  // a group of 32 is a step: weight j in the low nibble of byte j, the other half above
    const int64_t count = smaller(left, kDepth), half = (count + 1) / 2;
    const __m128i bytes = _mm_maskz_loadu_epi8(first16(half), row + s * 16);
    uint16_t bits;
    __builtin_memcpy(&bits, w.scales + r * w.scale_stride + s * 2, sizeof(bits));
    const F scale = _mm512_set1_ps(_cvtsh_ss(bits));
    const auto widen = [&](__m128i nibbles) __attribute__((always_inline)) {
      const __m512i wide = _mm512_maskz_cvtepi8_epi32(0xffff, nibbles);
      return _mm512_mul_ps(
          _mm512_maskz_cvtepi32_ps(0xffff, _mm512_sub_epi32(wide, _mm512_set1_epi32(8))), scale);
    };
    const __m128i mask = _mm_set1_epi8(15);
    const F low = widen(_mm_and_si128(bytes, mask));
    const F high = widen(_mm_and_si128(_mm_srli_epi16(bytes, 4), mask));
    if (count == kDepth) return narrow(low, high);
    alignas(64) float values[48];
    _mm512_store_ps(values, low);
    _mm512_storeu_ps(values + half, high);
    return narrow(_mm512_maskz_loadu_ps(first16(count), values),
                  _mm512_maskz_loadu_ps(first16(count - 16), values + 16));
  }
}

// Where the tiles of W come from: rows `stride` bytes apart, the lower 16 `half` bytes on, the next
// step `advance` bytes on.
struct Operand {
  const std::byte* first;
  int64_t stride, half, advance;
};
constexpr Operand panel_operand(const std::byte* panel) { return {panel, 64, kTile, kStep}; }

// A panel of W in the making: row r's step s at s * kStep + r * 64. A share of its rows is packed
// beside each block of the panel before.
template <KernelType kType>
struct Packing {
  static constexpr int64_t kBytes = kType == KernelType::int8   ? 32
                                    : kType == KernelType::int4 ? 16
                                                                : 64;  // of W a step
  Rows from;
  int64_t first_step, steps;
  int64_t rows;  // <= kRows; the others are zero
  std::byte* panel;
  int64_t begin = 0, end = 0;

  void share(int64_t part, int64_t parts) {
    begin = smaller(kRows * part / parts, rows);
    end = smaller(kRows * (part + 1) / parts, rows);
  }
  [[gnu::always_inline]] void step(int64_t s) const {
    for (int64_t r = begin; r < end; ++r) {
      // What the next share will read, whatever rows those are: they follow in the file.
      ask(r + end - begin, s);
      _mm512_store_si512(panel + s * kStep + r * 64, weights<kType>(from, r, first_step + s));
    }
  }
  [[gnu::always_inline]] void ask(int64_t r, int64_t s) const {
    __builtin_prefetch(from.data + r * from.stride + (first_step + s) * kBytes, 0, 2);
  }
  void all() {
    for (int64_t s = 0; s < steps; ++s) {
      for (int64_t r = rows; r < kRows; ++r) {
        _mm512_store_si512(panel + s * kStep + r * 64, _mm512_setzero_si512());
      }
    }
    share(0, 1);
    for (int64_t s = 0; s < steps; ++s) step(s);
  }
};

// Adds the products of a panel of W and one of x, kHalves tiles of 16 rows, to tiles 0-3.
template <int kHalves, class Work>
[[gnu::always_inline]] inline void multiply_block(const Operand& operand, const std::byte* x,
                                                  int64_t steps, float* unused,
                                                  const Work& beside) {
  const std::byte* w = operand.first;
  for (int64_t s = 0; s < steps; ++s, w += operand.advance, x += kStep) {
    _tile_loadd(4, w, operand.stride);
    _tile_loadd(6, x, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, w + operand.half, operand.stride);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (kHalves == 2) {
      _tile_loadd(7, x + kTile, 64);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    // A store of a tile costs about 700 cycles more where the last one was some thousand cycles ago
    // (seen on a Granite Rapids-like Xeon; one step here is 64): so there is one in time.
    if (s % 8 == 0) _tile_stored(4, unused, 0);
    beside(s);
  }
}

void load_sums(const float* sums) {
  _tile_loadd(0, sums, 64);
  _tile_loadd(1, sums + 256, 64);
  _tile_loadd(2, sums + 512, 64);
  _tile_loadd(3, sums + 768, 64);
}

void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

void store_sums(float* sums) {
  _tile_stored(0, sums, 64);
  _tile_stored(1, sums + 256, 64);
  _tile_stored(2, sums + 512, 64);
  _tile_stored(3, sums + 768, 64);
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t panel_bytes(int64_t k) { return ceil_div(k, kDepth) * kStep; }

// Scratch: two panels of W, two blocks of sums, and sums of all blocks where K is cut.
int64_t scratch_bytes(int64_t m, int64_t n, int64_t k, int64_t k_block) {
  const int64_t blocks = k > k_block ? ceil_div(m, kRows) * ceil_div(n, kRows) : 0;
  return 2 * ceil_div(smaller(k, k_block), kDepth) * kStep + (2 + blocks) * kBlock * 4 + 64;
}

template <KernelType kType>
void multiply_as(const FusedGemmArgs& args) {
  const int64_t steps = ceil_div(args.k, kDepth);
  const int64_t block_steps = smaller(ceil_div(args.k_block, kDepth), steps);
  const int64_t k_blocks = ceil_div(steps, block_steps);
  const int64_t m_panels = ceil_div(args.m, kRows), n_panels = ceil_div(args.n, kRows);
  std::byte* panels[2] = {args.scratch, args.scratch + block_steps * kStep};
  float* floats = reinterpret_cast<float*>(args.scratch + 2 * block_steps * kStep);
  float* unused = floats + 2 * kBlock;
  float* kept = unused + 16;
  const int64_t scale_stride = ceil_div(args.k, 32) * 2;

  // Panels in the order of their use: all of W for one part of K, then the next part.
  const auto packing = [&](int64_t index) {
    const int64_t p = index % n_panels, first = index / n_panels * block_steps;
    Packing<kType> work;
    work.from = {args.w + p * kRows * args.w_stride, args.w_stride,
                 args.scales == nullptr ? nullptr : args.scales + p * kRows * scale_stride,
                 scale_stride, args.k};
    work.first_step = first;
    work.steps = smaller(block_steps, steps - first);
    work.rows = smaller(kRows, args.n - p * kRows);
    work.panel = panels[index % 2];
    return work;
  };
  // Whole panels of bf16 are multiplied where they lie, but for a last step that is not whole.
  const auto in_place = [&](const Packing<kType>& work) {
    return kType == KernelType::bf16 && work.rows == kRows;
  };
  const auto whole_steps = [&](const Packing<kType>& work) {
    return smaller(work.steps, args.k / kDepth - work.first_step);
  };
  const auto prepare_tail = [&](Packing<kType> work) {
    if (whole_steps(work) == work.steps) return;
    work.first_step += work.steps - 1;
    work.steps = 1;
    work.all();
  };

  Finishing finishing;
  int64_t side = 0;
  Packing<kType> now = packing(0);
  in_place(now) ? prepare_tail(now) : now.all();
  _tile_loadconfig(&kConfig);
  for (int64_t index = 0; index < n_panels * k_blocks; ++index) {
    const int64_t p = index % n_panels, kb = index / n_panels;
    const bool last = kb + 1 == k_blocks, more = index + 1 < n_panels * k_blocks;
    Packing<kType> next = packing(more ? index + 1 : index);
    // The short ones, at the ends of N and K, are not worth being packed beside others.
    const bool ahead = more && next.rows == kRows && next.steps == now.steps;
    const bool packs = ahead && !in_place(next);
    const bool asks = more ? ahead && !packs : args.next_w != nullptr;
    if (!more) {
      next.from.data = args.next_w;
      next.first_step = 0;
      next.rows = kRows;
    }
    const int64_t count = in_place(now) ? whole_steps(now) : now.steps;
    const Operand operand = in_place(now)
                                ? Operand{now.from.data + now.first_step * kDepth * 2,
                                          now.from.stride, 16 * now.from.stride, kDepth * 2}
                                : panel_operand(now.panel);
    const int64_t pieces = ceil_div(Finishing::kPieces, now.steps);
    for (int64_t mb = 0; mb < m_panels; ++mb) {
      float* sums = kept + (p * m_panels + mb) * kBlock;
      stores_before_tiles();
      if (kb == 0) {
        clear_sums();
      } else {
        load_sums(sums);
      }
      next.share(mb, m_panels);
      const auto beside = [&](int64_t s) __attribute__((always_inline)) {
        if (packs) {
          next.step(s);
        } else if (asks) {
          for (int64_t r = next.begin; r < next.end; ++r) next.ask(r, s);
        }
        finishing.some(pieces);
      };
      const std::byte* x = args.x + (mb * steps + now.first_step) * kStep;
      const auto part = [&](const Operand& from, int64_t first, int64_t n)
          __attribute__((always_inline)) {
        if (args.m - mb * kRows > 16) {
          multiply_block<2>(from, x + first * kStep, n, unused, beside);
        } else {
          multiply_block<1>(from, x + first * kStep, n, unused, beside);
        }
      };
      part(operand, 0, count);
      if (count < now.steps) part(panel_operand(now.panel), count, 1);
      if (!last) {
        store_sums(sums);
        continue;
      }
      finishing.all();
      float* done = floats + side * kBlock;
      side = 1 - side;
      store_sums(done);
      finishing.start(args, done, mb * kRows, p * kRows);
    }
    if (more && !packs) in_place(next) ? prepare_tail(next) : next.all();
    now = next;
  }
  _tile_release();
  finishing.all();
}

void multiply(const FusedGemmArgs& args) {
  using T = KernelType;
  switch (args.type) {
    case T::int8:
      return multiply_as<T::int8>(args);
    case T::int4:
      return multiply_as<T::int4>(args);
    default:
      return multiply_as<T::bf16>(args);
  }
}

// Pairs of K of 16 rows of x, turned: dword (pair, row).
void pack_activations(const float* x, int64_t x_stride, int64_t m, int64_t first, int64_t columns,
                      int64_t, std::byte* panel) {
  const int64_t steps = ceil_div(columns, kDepth);
  std::byte* out = panel + first / kDepth * kStep;
  for (int64_t half = 0; half < 2 && half * 16 < m; ++half) {
    const float* from = x + half * 16 * x_stride;
    const int64_t rows = m - half * 16;
    for (int64_t s = 0; s < steps; ++s) {
      const int64_t left = columns - s * kDepth;
      F r[16];
      unroll<16>([&](auto i) __attribute__((always_inline)) {
        const float* p = from + i * x_stride + s * kDepth;
        r[i] = i < rows
                   ? _mm512_castsi512_ps(narrow(_mm512_maskz_loadu_ps(first16(left), p),
                                                _mm512_maskz_loadu_ps(first16(left - 16), p + 16)))
                   : _mm512_setzero_ps();
      });
      Avx512::transpose(r);
      float* to = reinterpret_cast<float*>(out + s * kStep + half * kTile);
      unroll<16>([&](auto i)
                     __attribute__((always_inline)) { _mm512_store_ps(to + i * 16, r[i]); });
    }
  }
}

}  // namespace

void fill_amx(KernelTable& table) {
  table.fused_bf16 = {.rows = kRows,
                      .w_rows = kRows,
                      .least_rows = kMany,
                      .k_step = kDepth,
                      .element_bytes = 2,
                      .panel_bytes = panel_bytes,
                      .scratch_bytes = scratch_bytes,
                      .pack_activations = pack_activations,
                      .multiply = multiply};
}

}  // namespace pali
