// Products of int8 by int8 in tile registers (TDPBSSD, 16 x 16 integer sums over 64 neighbours of
// K).
//
// Laid out as amx.cpp: rows of W are the first operand and are only copied into panels, activations
// are the second and are turned into fours of K once a product. Each group of activations ends with
// its sums stored, and while the tiles multiply the next group, the vector units scale those of the
// last into f32, finish the block before, and copy the next panel of W.
#include <immintrin.h>

#include "kernels/amx_finishing-inl.hpp"
#include "kernels/int8-inl.hpp"
#include "kernels/simd_int8_avx512.hpp"
#include "kernels/tiles-inl.hpp"

namespace pali {
namespace {

constexpr int64_t kRows = 32;              // of W in a panel, and of x in a panel: two tiles
constexpr int64_t kDepth = 64;             // of K in one step
constexpr int64_t kMany = 1 << 20;         // rows of W: as long shares as may be
constexpr int64_t kStep = 2 * kTile;       // bytes of a panel, for one step of K
constexpr int64_t kBlock = kRows * kRows;  // sums of a block, in four tiles
constexpr int64_t kSteps = kIntegerGroup / kDepth;  // of a group: as many as a block has tiles
static_assert(kSteps == 4);

constexpr TileConfig kConfig = whole_tiles();  // 0-3 sums, 4-5 rows of W, 6-7 activations

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A panel of x: its steps, then the scales of its rows, group after group.
int64_t panel_bytes(int64_t k) {
  return ceil_div(k, kDepth) * kStep + integer_groups(k) * kRows * 4;
}

// Two panels of W, integer sums of two groups, two blocks of f32 sums, or those of all blocks where
// K is cut.
int64_t scratch_bytes(int64_t m, int64_t n, int64_t k, int64_t k_block) {
  const int64_t blocks = k > k_block ? ceil_div(m, kRows) * ceil_div(n, kRows) : 0;
  return 2 * ceil_div(smaller(k, k_block), kDepth) * kStep + (4 + blocks) * kBlock * 4;
}

void pack_activations(const float* x, int64_t x_stride, int64_t m, int64_t first, int64_t columns,
                      int64_t k, std::byte* panel) {
  const int64_t steps = ceil_div(k, kDepth), end = first + columns;
  float* scales = reinterpret_cast<float*>(panel + steps * kStep);
  for (int64_t half = 0; half < 2 && half * 16 < m; ++half) {
    for (int64_t g = first / kIntegerGroup; g < integer_groups(end); ++g) {
      alignas(64) std::byte rows[16][kIntegerGroup];
      const int64_t begin = g * kIntegerGroup;
      for (int64_t i = 0; i < 16; ++i) {
        const int64_t row = half * 16 + i;
        int32_t sum;
        // No row: as one of zeros.
        quantise_group<Avx512, Avx512Bytes>(x + smaller(row, m - 1) * x_stride + begin - first,
                                            row < m ? smaller(end - begin, kIntegerGroup) : 0,
                                            scales + g * kRows + row, &sum, rows[i]);
      }
      for (int64_t s = 0; s < kSteps && g * kSteps + s < steps; ++s) {
        F r[16];
        unroll<16>([&](auto i) __attribute__((always_inline)) {
          r[i] = _mm512_castsi512_ps(_mm512_load_si512(rows[i] + s * kDepth));
        });
        Avx512::transpose(r);
        float* to = reinterpret_cast<float*>(panel + (g * kSteps + s) * kStep + half * kTile);
        unroll<16>([&](auto i)
                       __attribute__((always_inline)) { _mm512_store_ps(to + i * 16, r[i]); });
      }
    }
  }
}

// A panel of W in the making: row r's step s at s * kStep + r * 64. A share of its rows is copied
// beside each block of the panel before. What lies behind the last row is never stored.
struct Copying {
  const std::byte* from;
  int64_t stride;
  int64_t left;  // columns
  int64_t steps;
  int64_t rows;
  std::byte* panel;
  int64_t begin = 0, end = 0;

  void share(int64_t part, int64_t parts) {
    begin = smaller(kRows * part / parts, rows);
    end = smaller(kRows * (part + 1) / parts, rows);
  }
  [[gnu::always_inline]] void step(int64_t s) const {
    const int64_t columns = left - s * kDepth;
    const __mmask64 some = columns >= 64 ? ~__mmask64{0} : (__mmask64{1} << columns) - 1u;
    for (int64_t r = begin; r < end; ++r) {
      const std::byte* p = from + r * stride + s * kDepth;
      // What the next share will read, whatever rows those are: they follow in the file.
      __builtin_prefetch(p + (end - begin) * stride, 0, 2);
      _mm512_store_si512(panel + s * kStep + r * 64, _mm512_maskz_loadu_epi8(some, p));
    }
  }
  [[gnu::always_inline]] void ask(int64_t s) const {
    for (int64_t r = begin; r < end; ++r) __builtin_prefetch(from + r * stride + s * kDepth, 0, 2);
  }
  void all() {
    share(0, 1);
    for (int64_t s = 0; s < steps; ++s) step(s);
  }
};

// Integer sums of one group on their way to f32, a tile at a time.
struct Scaling {
  const int32_t* products;  // [2 n][2 m][16][16], as the tile registers leave them
  const float* scales;      // [32] of the rows of x
  float* sums;              // as `products`
  bool first;               // group of its sums

  [[gnu::always_inline]] void tile(int64_t index) const {
    const F scale = _mm512_loadu_ps(scales + index % 2 * 16);
    const int32_t* from = products + index * 256;
    float* to = sums + index * 256;
    const auto add = [&](auto before) __attribute__((always_inline)) {
      for (int64_t i = 0; i < 256; i += 16) {
        const F product = _mm512_maskz_cvtepi32_ps(0xffff, _mm512_load_si512(from + i));
        _mm512_store_ps(to + i, _mm512_fmadd_ps(product, scale, before(to + i)));
      }
    };
    if (first) {
      add([](const float*) __attribute__((always_inline)) { return _mm512_setzero_ps(); });
    } else {
      add([](const float* p) __attribute__((always_inline)) { return _mm512_load_ps(p); });
    }
  }
};

// The products of one group of a panel of W and one of x, kHalves tiles of 16 rows.
template <int kHalves, class Work>
[[gnu::always_inline]] inline void multiply_group(const std::byte* w, const std::byte* x,
                                                  int64_t steps, int32_t* products,
                                                  const Work& beside) {
  stores_before_tiles();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t s = 0; s < steps; ++s, w += kStep, x += kStep) {
    _tile_loadd(4, w, 64);
    _tile_loadd(6, x, 64);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(5, w + kTile, 64);
    _tile_dpbssd(2, 5, 6);
    if constexpr (kHalves == 2) {
      _tile_loadd(7, x + kTile, 64);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(3, 5, 7);
    }
    beside(s);
  }
  _tile_stored(0, products, 64);
  _tile_stored(1, products + 256, 64);
  _tile_stored(2, products + 512, 64);
  _tile_stored(3, products + 768, 64);
  stores_before_tiles();
}

void multiply(const FusedGemmArgs& args) {
  const int64_t steps = ceil_div(args.k, kDepth);
  const int64_t block_steps = smaller(ceil_div(args.k_block, kDepth), steps);
  const int64_t k_blocks = ceil_div(steps, block_steps);
  const int64_t m_panels = ceil_div(args.m, kRows), n_panels = ceil_div(args.n, kRows);
  const int64_t x_bytes = panel_bytes(args.k);
  std::byte* panels[2] = {args.scratch, args.scratch + block_steps * kStep};
  std::byte* rest = args.scratch + 2 * block_steps * kStep;
  int32_t* products[2] = {reinterpret_cast<int32_t*>(rest),
                          reinterpret_cast<int32_t*>(rest + kBlock * 4)};
  float* sums = reinterpret_cast<float*>(rest + 2 * kBlock * 4);  // of two blocks, or of all

  // Panels in the order of their use: all of W for one part of K, then the next part.
  const auto copying = [&](int64_t index) {
    const int64_t p = index % n_panels, first = index / n_panels * block_steps;
    Copying copy;
    copy.from = args.w + p * kRows * args.w_stride + first * kDepth;
    copy.stride = args.w_stride;
    copy.left = args.k - first * kDepth;
    copy.steps = smaller(block_steps, steps - first);
    copy.rows = smaller(kRows, args.n - p * kRows);
    copy.panel = panels[index % 2];
    return copy;
  };

  Finishing finishing;
  Scaling scaling = {};
  bool scales = false;  // a group waits to be scaled
  bool ends = false;    // and is the last of its block
  int64_t m0 = 0, n0 = 0, side = 0, turn = 0;
  const auto scale_rest = [&](int64_t from) __attribute__((always_inline)) {
    if (scales) {
      for (int64_t tile = from; tile < 4; ++tile) scaling.tile(tile);
    }
    if (ends) {
      finishing.all();
      finishing.start(args, scaling.sums, m0, n0);
    }
    scales = ends = false;
  };

  Copying now = copying(0);
  now.all();
  _tile_loadconfig(&kConfig);
  for (int64_t index = 0; index < n_panels * k_blocks; ++index) {
    const int64_t p = index % n_panels, kb = index / n_panels;
    const bool more = index + 1 < n_panels * k_blocks;
    Copying next = copying(more ? index + 1 : index);
    // The short one at the end of K is not worth being copied beside others.
    const bool beside_this = more && next.steps == now.steps;
    const bool asks = !more && args.next_w != nullptr;
    if (asks) {
      next.from = args.next_w;
      next.rows = kRows;
    }
    const int64_t pieces = ceil_div(Finishing::kPieces, now.steps);
    for (int64_t mb = 0; mb < m_panels; ++mb) {
      next.share(mb, m_panels);
      const std::byte* x = args.x + mb * x_bytes;
      const float* x_scales = reinterpret_cast<const float*>(x + steps * kStep);
      float* block = sums + (k_blocks > 1 ? p * m_panels + mb : side) * kBlock;
      for (int64_t s0 = 0; s0 < now.steps; s0 += kSteps) {
        const int64_t step0 = kb * block_steps + s0, count = smaller(kSteps, now.steps - s0);
        int32_t* const to = products[turn];
        turn = 1 - turn;
        const auto beside = [&](int64_t s) __attribute__((always_inline)) {
          if (beside_this) {
            next.step(s0 + s);
          } else if (asks) {
            next.ask(s0 + s);
          }
          if (scales) scaling.tile(s);
          finishing.some(pieces);
        };
        const std::byte* w = now.panel + s0 * kStep;
        if (args.m - mb * kRows > 16) {
          multiply_group<2>(w, x + step0 * kStep, count, to, beside);
        } else {
          multiply_group<1>(w, x + step0 * kStep, count, to, beside);
        }
        scale_rest(count);
        scaling = {to, x_scales + step0 / kSteps * kRows, block, step0 == 0};
        scales = true;
      }
      ends = kb + 1 == k_blocks;
      m0 = mb * kRows, n0 = p * kRows;
      side = 1 - side;
    }
    if (more && !beside_this) next.all();
    now = next;
  }
  _tile_release();
  scale_rest(0);
  finishing.all();
}

}  // namespace

void fill_amx_int8(KernelTable& table) {
  table.int8.by_int8 = {.rows = kRows,
                        .w_rows = kRows,
                        .least_rows = kMany,
                        .k_step = kIntegerGroup,
                        .element_bytes = 1,
                        .panel_bytes = panel_bytes,
                        .scratch_bytes = scratch_bytes,
                        .pack_activations = pack_activations,
                        .multiply = multiply};
  // A group of int4 weights would fill half of a tile's depth, and its sums be stored each time:
  // tiles of bf16 are ahead.
  table.int8.by_int4 = {};
}

}  // namespace pali
