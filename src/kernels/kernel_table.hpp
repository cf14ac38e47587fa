// Every kernel of the engine as a plain function pointer: scalar entries, overlaid by each better
// tier that the CPU has. This header is seen by the ISA sources, so it includes nothing but the two
// freestanding headers below: an inline function of the standard library, compiled with -mavx512f
// and merged by the linker, would kill the baseline path.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pali {

// Storage type of a weight operand. Values are part of the packed layouts' contract.
// int8 and int4 come with scales, and only to the kernels that say so.
enum class KernelType : int { f32 = 0, bf16 = 1, f16 = 2, int8 = 3, int4 = 4 };

enum class KernelActivation : int { none, gelu_tanh, gelu_erf, quick_gelu, silu, relu };

// y[i][j] = sum_k x[i][k] * w[j][k] for few rows i (1..8): weights are streamed once, in place.
// A quantised weight (models/FORMAT.md) is an integer times its scale.
struct GemvArgs {
  const float* x;    // [m, k] packed by GemvKernels::pack, each row 64-byte aligned
  int64_t x_stride;  // floats, >= gemv_packed_floats(k) or gemv_integer_packed_floats(k)
  int64_t m;
  const std::byte* w;       // [n, k] rows of `type`, unaligned, k contiguous
  int64_t w_stride;         // bytes between rows
  const std::byte* scales;  // unaligned: [n] f32 (int8), or [n, ceil(k / 32)] f16 (int4); else null
  KernelType type;
  int64_t n;
  int64_t k;
  float* y;  // [m, n]
  int64_t y_stride;
};

// Floats of a packed row of activations.
constexpr int64_t gemv_packed_floats(int64_t k) { return (k + 127) / 128 * 128 + 16; }

struct GemvKernels {
  // k activations into the order that a tier wants them in for weights of `type`.
  void (*pack)(const float* x, KernelType type, int64_t k, float* out);
  void (*multiply)(const GemvArgs& args);
};

// c[i][j] (+)= sum over kc of a[i] * panel[j].
struct GemmArgs {
  const void* a;     // [m, kc] of GemmKernels::element_bytes
  int64_t a_stride;  // elements
  int64_t m;         // at most mr
  const void* panel;
  int64_t kc;
  float* c;  // [m, n]
  int64_t c_stride;
  int64_t n;        // at most nr
  bool accumulate;  // adds to c instead of overwriting it
  // What later calls will read: `rows` runs of `bytes` bytes, `stride` bytes apart, of values of
  // `value_bytes` each. Kernels may prefetch them, a line of each run at a time as k proceeds: a
  // panel that is packed from memory is waited for otherwise. Two cores of a Xeon with AMX in f32:
  // at 256 rows of x 3 % less time on AVX-512 and 1 % on AVX2, at 64 rows 10 and 6 %; of packed
  // panels (MatmulPolicy::prepack) 7 % at 256.
  struct Ahead {
    const std::byte* first = nullptr;
    int64_t rows = 0;
    int64_t stride = 0;
    int64_t bytes = 0;
    int64_t value_bytes = 0;
  } ahead;
};

// One packed layout: weights as panels of nr rows, interleaved along K. Entries belong together and
// are replaced together.
struct GemmKernels {
  int mr;             // most rows of one multiply()
  int nr;             // rows of W in a panel
  int k_step;         // K is padded to a multiple of this inside panels and packed activations
  int element_bytes;  // of panels and packed activations (4: f32, 2: bf16)
  // Columns of x summed up at a time, as measured on CPUs of the tier: sums are added up in that
  // order, so it does not follow from the caches.
  int64_t k_most;
  // w: n <= nr rows, element (j, k) at j * out_stride + k * in_stride (elements of `type`); kc
  // columns. panel: nr * round_up(kc, k_step) elements, 64-byte aligned; what is missing is zero.
  void (*pack_weights)(const std::byte* w, KernelType type, int64_t out_stride, int64_t in_stride,
                       int64_t n, int64_t kc, void* panel);
  // One activation row of kc values into round_up(kc, k_step) elements. Null where activations are
  // used as they are (f32).
  void (*pack_activations)(const float* x, int64_t kc, void* out);
  void (*multiply)(const GemmArgs& args);
};

// What follows a product before it is stored: y = act(sum + bias) * gate + residual, each null
// where there is none. Rows of gate and residual are those of y.
struct KernelEpilogue {
  const float* bias;
  KernelActivation activation;
  const float* gate;
  int64_t gate_stride;
  const float* residual;
  int64_t residual_stride;
};

struct FusedGemmArgs {
  const std::byte* x;  // packed activations: panels of `rows` rows, panel_bytes(k) apart
  int64_t m;
  const std::byte* w;       // [n, k] rows of `type`, unaligned, k contiguous
  int64_t w_stride;         // bytes between rows
  const std::byte* scales;  // of int8 and int4 weights, as in GemvArgs
  KernelType type;          // bf16, int8, int4
  int64_t n;
  int64_t k;
  int64_t k_block;  // a multiple of k_step: so much of K at a time
  KernelEpilogue epilogue;
  float* y;  // [m, n]
  int64_t y_stride;
  std::byte* scratch;  // scratch_bytes(m, n, k, k_block), 64-byte aligned
  // Rows of weights, w_stride apart, that the next call will read first: asked for beside the last
  // of these. Null: not known.
  const std::byte* next_w;
};

// Products that go the way from the weights in their file's layout to the stored result in one
// call. A sum does not depend on m, n, or where it stands among the others. All null where a tier
// has none.
struct FusedGemm {
  int64_t rows;    // of x in a packed panel
  int64_t w_rows;  // of W in a panel: work is best cut at multiples
  // Rows of W that multiply() should have at least, where there are so many for each thread: it
  // brings all of x to L2 once more.
  int64_t least_rows;
  int64_t k_step;
  int64_t element_bytes;  // of packed activations
  int64_t (*panel_bytes)(int64_t k);
  int64_t (*scratch_bytes)(int64_t m, int64_t n, int64_t k, int64_t k_block);
  // Columns [first, first + columns) of m <= rows rows of x into a panel of rows of k, 64-byte
  // aligned. x: at column `first`, a multiple of k_step, as `columns` is unless they are the last.
  void (*pack_activations)(const float* x, int64_t x_stride, int64_t m, int64_t first,
                           int64_t columns, int64_t k, std::byte* panel);
  void (*multiply)(const FusedGemmArgs& args);
};

// Activations as integers, of [-127, 127] (int8) or [-32767, 32767] (int16), with a scale for each
// row's next so many columns. Shorter groups cost: on tiles, half as many columns took 1.2 times as
// long. Longer ones might overflow 32 bits: 256 products of 32767 by 128 are half of that.
constexpr int64_t kIntegerGroup = 256;

// Floats' room of a row of activations packed by IntegerKernels::gemv, of either kind.
constexpr int64_t gemv_integer_packed_floats(int64_t k) {
  return (k + kIntegerGroup - 1) / kIntegerGroup * (kIntegerGroup * 2 + 8) / 4 / 16 * 16 + 16;
}

// x as integers, by weights in int8 or int4. A group of activations has the scale max|x| / most,
// and rounds x (most / max|x|) to nearest even, `most` being 127 or 32767; below 2^-100 it is zero;
// with an infinity or a NaN in it, its row of sums is NaN.
struct IntegerKernels {
  // Many rows by int8: y = scale of W's row * sum of scale of x's group * (integer sum), group
  // after group, by f32 multiply-adds of one rounding: the same bits on every tier.
  FusedGemm by_int8;
  // By int4: y = sum of scale of x's group * (sum of scale of W's group * (integer sum)), in the
  // same way: the same bits on every tier. All null where there is a faster way.
  FusedGemm by_int4;
  // Few rows; x is what its own pack() makes in gemv_integer_packed_floats(k). By int8: the bits of
  // by_int8. By int4: the sums of by_int4, added up in another order.
  GemvKernels gemv;
};

// The keys that a query sees: [first, end), never empty.
struct KeyRange {
  int32_t first;
  int32_t end;
};

// A tile of queries of one head against its keys, streaming softmax:
//   out[i] = sum_j softmax_j(cap(scale * q[i] . k[j]) + bias[j - i]) v[j]
// with cap(s) = soft_cap * tanh(s / soft_cap), and j over the keys that query i sees.
// A row of v that is not finite may reach queries of the tile that do not see its key.
struct AttentionTile {
  const float* q;  // [queries, head_dim]
  int64_t q_stride;
  int64_t queries;          // 1..AttentionKernels::queries
  const std::byte* blocks;  // keys and values as prepare() made them, block after block
  int64_t keys;             // >= 1
  int64_t head_dim;
  float scale;
  float soft_cap;          // 0: none
  const float* bias;       // null, or the entry at j - i = 0
  const KeyRange* ranges;  // [queries], within [0, keys); null: every query sees all keys
  float* out;              // [queries, head_dim]
  int64_t out_stride;
  std::byte* scratch;  // scratch_bytes(head_dim), 64-byte aligned
};

// Many queries against the keys and values of one head. Those are brought once a head into blocks
// of the layout, and of the type, that the tier's tiles read. Entries belong together and are
// replaced together.
struct AttentionKernels {
  int64_t queries;                             // most of one tile
  int64_t keys;                                // of one block
  int64_t (*block_bytes)(int64_t head_dim);    // a multiple of 64
  int64_t (*scratch_bytes)(int64_t head_dim);  // of attend
  // n (1..keys) rows of k and v -> one block, 64-byte aligned.
  void (*prepare)(const float* k, int64_t k_stride, const float* v, int64_t v_stride, int64_t n,
                  int64_t head_dim, std::byte* block);
  void (*attend)(const AttentionTile& tile);
};

// Queries that AttentionRow takes at once.
constexpr int64_t kRowQueries = 8;

// A query, or a few that see the same keys, against the rows of K and V where they lie: a decoder's
// step. Arithmetic as above, and for a query the same whether others come with it or not.
struct AttentionRow {
  const float* q;  // [queries, head_dim]
  int64_t q_stride;
  int64_t queries;   // 1..kRowQueries
  KernelType type;   // of k and v: f32 or bf16, widened exactly
  const void* k;     // key j at k + row(j) * k_stride
  int64_t k_stride;  // in values
  const void* v;
  int64_t v_stride;
  int64_t keys;         // >= 1
  const int32_t* rows;  // row(j) = rows[j]; null: row(j) = j
  int64_t head_dim;
  float scale;
  float soft_cap;     // 0: none
  const float* bias;  // null, or [keys]
  float* out;         // [queries, head_dim]
  int64_t out_stride;
};

struct KernelTable {
  int64_t l2_bytes;  // of this CPU's cores: what blocks of a product have room in

  // Row kernels over n contiguous values; y may be x.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                     float* y);
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* y);
  // y = act(x + bias) * gate + residual; each of bias, gate, residual may be null.
  void (*epilogue)(const float* x, const float* bias, KernelActivation activation,
                   const float* gate, const float* residual, int64_t n, float* y);
  // The halves a, b of one head turned in place: (a, b) -> (a cos - b sin, b cos + a sin).
  void (*rope)(float* head, const float* cosines, const float* sines, int64_t half);
  void (*soft_cap)(const float* x, float cap, int64_t n, float* y);  // y = cap tanh(x / cap)
  float (*dot)(const float* a, const float* b, int64_t n);
  float (*max)(const float* x, int64_t n);  // n >= 1; NaN where any value is NaN
  // sum of exp(x[i] - shift)
  float (*sum_exp)(const float* x, float shift, int64_t n);
  // Values of `type` (unaligned) to f32, exactly.
  void (*widen)(const std::byte* x, KernelType type, int64_t n, float* y);
  void (*to_bf16)(const float* x, int64_t n, uint16_t* y);  // round to nearest even

  GemvKernels gemv;  // activations stay f32
  // A row of k quantised weights to f32: float(integer) * scale, one rounding. `w`, `scales`: of
  // the row, as in GemvArgs.
  void (*dequantise)(const std::byte* w, const std::byte* scales, KernelType type, int64_t k,
                     float* y);
  GemmKernels gemm_f32;  // f32 activations, weights of any type widened exactly
  // bf16 activations and weights, f32 sums; subnormals are zero. Null entries: the tier has none.
  GemmKernels gemm_bf16;
  // bf16 operands, f32 sums, in tile registers; subnormals are zero. Weights are bf16, int8 or
  // int4: int8 is exact, its scales multiply the sums; int4 times its scale is rounded to bf16.
  FusedGemm fused_bf16;
  IntegerKernels int8;   // x in int8
  IntegerKernels int16;  // x in int16
  void (*attend_row)(const AttentionRow& row);
  AttentionKernels attention_f32;
  AttentionKernels attention_bf16;  // bf16 operands, f32 softmax; null entries: tier has none
};

// Each tier overlays what it does better. Called once an Engine, for tiers the CPU has.
void fill_scalar(KernelTable& table);
void fill_scalar_int8(KernelTable& table);
void fill_avx2(KernelTable& table);
void fill_avx2_int8(KernelTable& table);
void fill_avx_vnni(KernelTable& table);
void fill_avx512(KernelTable& table);
void fill_avx512_int8(KernelTable& table);
void fill_avx512_vnni(KernelTable& table);
void fill_avx512_bf16(KernelTable& table);
void fill_avx512_bf16_attention(KernelTable& table);
void fill_amx(KernelTable& table);
void fill_amx_int8(KernelTable& table);
void fill_amx_attention(KernelTable& table);

}  // namespace pali
