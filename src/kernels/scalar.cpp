// The baseline tier: product code on any CPU, and the oracle that the other tiers are tested
// against. Plain loops on purpose: nothing is shared with the vector tiers, so that a mistake in
// those cannot hide here. Sums run in a fixed number of lanes, which any compiler may vectorise
// without being allowed to reorder.
#include "kernels/scalar_values.hpp"

namespace pali {
namespace scalar {
namespace {

constexpr int64_t kLanes = 16;

// Lane sums added pairwise: the error grows with n / kLanes + log2(kLanes).
float add_lanes(float* lanes) {
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

template <class Term>
float sum_of(int64_t n, Term term) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) lanes[l] += term(i + l);
  }
  for (; i < n; ++i) lanes[i % kLanes] += term(i);
  return add_lanes(lanes);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                float* y) {
  const float mean = sum_of(n, [=](int64_t i) { return x[i]; }) / static_cast<float>(n);
  const float variance =
      sum_of(n, [=](int64_t i) { return (x[i] - mean) * (x[i] - mean); }) / static_cast<float>(n);
  const float scale = 1.0f / sqrtf(variance + eps);
  for (int64_t i = 0; i < n; ++i) {
    const float shift = bias != nullptr ? bias[i] : 0.0f;
    y[i] = (x[i] - mean) * scale * weight[i] + shift;
  }
}

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* y) {
  const float mean_square =
      sum_of(n, [=](int64_t i) { return x[i] * x[i]; }) / static_cast<float>(n);
  const float scale = 1.0f / sqrtf(mean_square + eps);
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] * scale * weight[i];
}

float activate(KernelActivation activation, float x) {
  switch (activation) {
    case KernelActivation::none:
      return x;
    case KernelActivation::gelu_tanh:  // Hendrycks and Gimpel 2016, the tanh form
      return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case KernelActivation::gelu_erf:
      return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    case KernelActivation::quick_gelu:
      return x / (1.0f + expf(-1.702f * x));
    case KernelActivation::silu:
      return x / (1.0f + expf(-x));
    case KernelActivation::relu:
      return x < 0.0f ? 0.0f : x;  // NaN stays NaN
  }
  return x;
}

void epilogue(const float* x, const float* bias, KernelActivation activation, const float* gate,
              const float* residual, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) {
    float value = activate(activation, bias != nullptr ? x[i] + bias[i] : x[i]);
    if (gate != nullptr) value *= gate[i];
    if (residual != nullptr) value += residual[i];
    y[i] = value;
  }
}

void rope(float* head, const float* cosines, const float* sines, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = head[i], b = head[half + i];
    head[i] = a * cosines[i] - b * sines[i];
    head[half + i] = b * cosines[i] + a * sines[i];
  }
}

void soft_cap(const float* x, float cap, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = cap * tanhf(x[i] / cap);
}

float dot(const float* a, const float* b, int64_t n) {
  return sum_of(n, [=](int64_t i) { return a[i] * b[i]; });
}

float max(const float* x, int64_t n) {
  float best = x[0];
  for (int64_t i = 1; i < n; ++i) {
    if (x[i] > best || x[i] != x[i]) best = x[i];  // nothing compares greater than a NaN
  }
  return best;
}

float sum_exp(const float* x, float shift, int64_t n) {
  return sum_of(n, [=](int64_t i) { return expf(x[i] - shift); });
}

void widen(const std::byte* x, KernelType type, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = load(x, type, i);
}

void to_bf16(const float* x, int64_t n, uint16_t* y) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = to_bits(x[i]);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    y[i] = static_cast<uint16_t>(nan ? (bits >> 16) | 0x40u : rounded);
  }
}

void dequantise(const std::byte* w, const std::byte* scales, KernelType type, int64_t k, float* y) {
  if (type == KernelType::int8) {
    const float scale = load(scales, KernelType::f32, 0);
    for (int64_t i = 0; i < k; ++i) {
      y[i] = static_cast<float>(static_cast<int8_t>(w[i])) * scale;
    }
    return;
  }
  constexpr int64_t kGroup = 32;
  for (int64_t first = 0; first < k; first += kGroup) {
    const float scale = load(scales, KernelType::f16, first / kGroup);
    const int64_t count = k - first < kGroup ? k - first : kGroup;
    const int64_t half = (count + 1) / 2;
    for (int64_t i = 0; i < count; ++i) {
      const int byte = static_cast<int>(w[first / 2 + (i < half ? i : i - half)]);
      y[first + i] = static_cast<float>((i < half ? byte & 15 : byte >> 4) - 8) * scale;
    }
  }
}

void gemv_pack(const float* x, KernelType, int64_t k, float* out) {
  memcpy(out, x, static_cast<size_t>(k) * sizeof(float));
}

// Weights are widened a strip of whole groups at a time, so that the sums run over plain floats.
void gemv(const GemvArgs& args) {
  constexpr int64_t kStrip = 256;
  constexpr int64_t kRows = 8;
  const bool int8 = args.type == KernelType::int8;
  const bool quantised = int8 || args.type == KernelType::int4;
  float strip[kStrip];
  float lanes[kRows][kLanes];
  for (int64_t j = 0; j < args.n; ++j) {
    const std::byte* w = args.w + j * args.w_stride;
    const std::byte* scales = args.scales + (int8        ? j * 4
                                             : quantised ? j * ((args.k + 31) / 32 * 2)
                                                         : 0);
    memset(lanes, 0, sizeof(lanes));
    for (int64_t k = 0; k < args.k; k += kStrip) {
      const int64_t count = args.k - k < kStrip ? args.k - k : kStrip;
      if (quantised) {
        dequantise(w + (int8 ? k : k / 2), scales + (int8 ? 0 : k / 32 * 2), args.type, count,
                   strip);
      } else {
        widen(row_of(w, args.type, k), args.type, count, strip);
      }
      for (int64_t i = 0; i < args.m; ++i) {
        const float* x = args.x + i * args.x_stride + k;
        int64_t t = 0;
        for (; t + kLanes <= count; t += kLanes) {
          for (int64_t l = 0; l < kLanes; ++l) lanes[i][l] += x[t + l] * strip[t + l];
        }
        for (; t < count; ++t) lanes[i][t % kLanes] += x[t] * strip[t];
      }
    }
    for (int64_t i = 0; i < args.m; ++i) args.y[i * args.y_stride + j] = add_lanes(lanes[i]);
  }
}

constexpr int kMr = 4;
constexpr int kNr = 8;

void pack_weights(const std::byte* w, KernelType type, int64_t out_stride, int64_t in_stride,
                  int64_t n, int64_t kc, void* panel) {
  float* out = static_cast<float*>(panel);
  for (int64_t k = 0; k < kc; ++k) {
    for (int64_t j = 0; j < kNr; ++j) {
      out[k * kNr + j] = j < n ? load(w, type, j * out_stride + k * in_stride) : 0.0f;
    }
  }
}

template <int kRows>
void multiply_rows(const GemmArgs& args) {
  const float* a = static_cast<const float*>(args.a);
  const float* panel = static_cast<const float*>(args.panel);
  float sums[kRows][kNr] = {};
  for (int64_t k = 0; k < args.kc; ++k) {
    for (int i = 0; i < kRows; ++i) {
      for (int j = 0; j < kNr; ++j) sums[i][j] += a[i * args.a_stride + k] * panel[k * kNr + j];
    }
  }
  for (int i = 0; i < kRows; ++i) {
    float* row = args.c + i * args.c_stride;
    for (int64_t j = 0; j < args.n; ++j) {
      row[j] = args.accumulate ? row[j] + sums[i][j] : sums[i][j];
    }
  }
}

void multiply(const GemmArgs& args) {
  constexpr decltype(GemmKernels::multiply) kByRows[kMr] = {multiply_rows<1>, multiply_rows<2>,
                                                            multiply_rows<3>, multiply_rows<4>};
  kByRows[args.m - 1](args);
}

// Activations as integers, Q, by int8 and int4: the oracle of the other tiers'.
// A packed row: the groups' scales, then the integers.
template <class Q>
int64_t integer_panel_bytes(int64_t k) {
  const int64_t bytes = groups_of(k) * 4 + k * static_cast<int64_t>(sizeof(Q));
  return (bytes + 63) / 64 * 64;
}

int64_t integer_scratch_bytes(int64_t, int64_t n, int64_t, int64_t) { return n * 4 + 64; }

template <class Q>
void pack_integers(const float* x, int64_t, int64_t, int64_t first, int64_t columns, int64_t k,
                   std::byte* panel) {
  float* scales = reinterpret_cast<float*>(panel) + first / kIntegerGroup;
  Q* q = reinterpret_cast<Q*>(panel + groups_of(k) * 4) + first;
  for (int64_t g = 0; g < groups_of(columns); ++g) {
    const int64_t begin = g * kIntegerGroup;
    const int64_t count = columns - begin < kIntegerGroup ? columns - begin : kIntegerGroup;
    quantise_group(x + begin, count, scales + g, q + begin);
  }
}

template <class Q>
void multiply_integers(const FusedGemmArgs& args) {
  const KernelEpilogue& e = args.epilogue;
  float* row = reinterpret_cast<float*>(args.scratch);
  const auto part = [](const float* p, int64_t offset) { return p == nullptr ? p : p + offset; };
  for (int64_t i = 0; i < args.m; ++i) {
    for (int64_t j = 0; j < args.n; ++j) {
      row[j] = product<Q>(args.x + i * integer_panel_bytes<Q>(args.k), args.w + j * args.w_stride,
                          args.scales, args.type, j, args.k);
    }
    epilogue(row, e.bias, e.activation, part(e.gate, i * e.gate_stride),
             part(e.residual, i * e.residual_stride), args.n, args.y + i * args.y_stride);
  }
}

template <class Q>
FusedGemm fused_integers() {
  return {.rows = 1,
          .w_rows = 8,
          .least_rows = 8,
          .k_step = kIntegerGroup,
          .element_bytes = sizeof(Q),
          .panel_bytes = integer_panel_bytes<Q>,
          .scratch_bytes = integer_scratch_bytes,
          .pack_activations = pack_integers<Q>,
          .multiply = multiply_integers<Q>};
}

constexpr int64_t kAttentionKeys = 128;  // of one block

// The softmax of one query so far (Milakov and Gimelshein 2018, "Online normalizer calculation for
// softmax"): only one block of scores is ever held.
struct Softmax {
  float highest = -INFINITY;
  float total = 0.0f;

  // scores: of `count` keys, with values v(key, column); out: the unnormalised sums.
  template <class Values>
  void add(float* scores, int64_t count, const Values& v, int64_t dim, float* out) {
    const float block_highest = max(scores, count);
    const float next =
        highest < block_highest || block_highest != block_highest ? block_highest : highest;
    // All scores so far -inf: any finite shift keeps their exponentials at 0.
    const float shift = next == -INFINITY ? 0.0f : next;
    const float correction = expf(highest - shift);
    for (int64_t j = 0; j < count; ++j) scores[j] = expf(scores[j] - shift);
    total = total * correction + sum_of(count, [=](int64_t j) { return scores[j]; });
    for (int64_t d = 0; d < dim; ++d) out[d] *= correction;
    for (int64_t j = 0; j < count; ++j) {
      for (int64_t d = 0; d < dim; ++d) out[d] += scores[j] * v(j, d);
    }
    highest = next;
  }
};

float score(float product, float scale, float soft_cap) {
  const float plain = scale * product;
  return soft_cap > 0.0f ? soft_cap * tanhf(plain / soft_cap) : plain;
}

template <KernelType kType>
void attend_one(const AttentionRow& row, const float* q, float* out) {
  const int64_t dim = row.head_dim;
  float scores[kAttentionKeys];
  Softmax softmax;
  for (int64_t d = 0; d < dim; ++d) out[d] = 0.0f;
  for (int64_t first = 0; first < row.keys; first += kAttentionKeys) {
    const int64_t count = row.keys - first < kAttentionKeys ? row.keys - first : kAttentionKeys;
    const auto stored = [&](const void* rows, int64_t stride, int64_t j, int64_t d) {
      const int64_t place = row.rows != nullptr ? row.rows[first + j] : first + j;
      return load(static_cast<const std::byte*>(rows), kType, place * stride + d);
    };
    for (int64_t j = 0; j < count; ++j) {
      const float product =
          sum_of(dim, [&](int64_t d) { return q[d] * stored(row.k, row.k_stride, j, d); });
      scores[j] = score(product, row.scale, row.soft_cap);
      if (row.bias != nullptr) scores[j] += row.bias[first + j];
    }
    const auto values = [&](int64_t j, int64_t d) { return stored(row.v, row.v_stride, j, d); };
    softmax.add(scores, count, values, dim, out);
  }
  for (int64_t d = 0; d < dim; ++d) out[d] /= softmax.total;
}

void attend_row(const AttentionRow& row) {
  const auto attend =
      row.type == KernelType::bf16 ? attend_one<KernelType::bf16> : attend_one<KernelType::f32>;
  for (int64_t i = 0; i < row.queries; ++i) {
    attend(row, row.q + i * row.q_stride, row.out + i * row.out_stride);
  }
}

// A block: the rows of K, then those of V, side by side.
int64_t attention_block_bytes(int64_t head_dim) { return 2 * kAttentionKeys * head_dim * 4; }

int64_t attention_scratch_bytes(int64_t) { return 0; }

void prepare_attention(const float* k, int64_t k_stride, const float* v, int64_t v_stride,
                       int64_t n, int64_t head_dim, std::byte* block) {
  const size_t bytes = static_cast<size_t>(head_dim) * 4;
  for (int64_t j = 0; j < n; ++j) {
    memcpy(block + j * head_dim * 4, k + j * k_stride, bytes);
    memcpy(block + (kAttentionKeys + j) * head_dim * 4, v + j * v_stride, bytes);
  }
}

void attend(const AttentionTile& tile) {
  const int64_t dim = tile.head_dim;
  float scores[kAttentionKeys];
  const float* values[kAttentionKeys];
  for (int64_t i = 0; i < tile.queries; ++i) {
    const float* q = tile.q + i * tile.q_stride;
    float* out = tile.out + i * tile.out_stride;
    const int64_t begin = tile.ranges != nullptr ? tile.ranges[i].first : 0;
    const int64_t end = tile.ranges != nullptr ? tile.ranges[i].end : tile.keys;
    Softmax softmax;
    for (int64_t d = 0; d < dim; ++d) out[d] = 0.0f;
    for (int64_t block = begin / kAttentionKeys; block * kAttentionKeys < end; ++block) {
      const float* k =
          reinterpret_cast<const float*>(tile.blocks + block * attention_block_bytes(dim));
      int64_t count = 0;
      for (int64_t j = 0; j < kAttentionKeys; ++j) {
        const int64_t key = block * kAttentionKeys + j;
        if (key < begin || key >= end) continue;
        scores[count] = score(dot(q, k + j * dim, dim), tile.scale, tile.soft_cap);
        if (tile.bias != nullptr) scores[count] += tile.bias[key - i];
        values[count++] = k + (kAttentionKeys + j) * dim;
      }
      softmax.add(
          scores, count, [&](int64_t j, int64_t d) { return values[j][d]; }, dim, out);
    }
    for (int64_t d = 0; d < dim; ++d) out[d] /= softmax.total;
  }
}

}  // namespace
}  // namespace scalar

void fill_scalar(KernelTable& table) {
  table = KernelTable{};
  table.layer_norm = scalar::layer_norm;
  table.rms_norm = scalar::rms_norm;
  table.epilogue = scalar::epilogue;
  table.rope = scalar::rope;
  table.soft_cap = scalar::soft_cap;
  table.dot = scalar::dot;
  table.max = scalar::max;
  table.sum_exp = scalar::sum_exp;
  table.widen = scalar::widen;
  table.to_bf16 = scalar::to_bf16;
  table.gemv = {scalar::gemv_pack, scalar::gemv};
  table.dequantise = scalar::dequantise;
  table.gemm_f32.mr = scalar::kMr;
  table.gemm_f32.nr = scalar::kNr;
  table.gemm_f32.k_step = 1;
  table.gemm_f32.element_bytes = 4;
  table.gemm_f32.k_most = 1024;
  table.gemm_f32.pack_weights = scalar::pack_weights;
  table.gemm_f32.multiply = scalar::multiply;
  table.int8.by_int8 = table.int8.by_int4 = scalar::fused_integers<int8_t>();
  table.int16.by_int8 = table.int16.by_int4 = scalar::fused_integers<int16_t>();
  table.attend_row = scalar::attend_row;
  table.attention_f32.queries = 64;
  table.attention_f32.keys = scalar::kAttentionKeys;
  table.attention_f32.block_bytes = scalar::attention_block_bytes;
  table.attention_f32.scratch_bytes = scalar::attention_scratch_bytes;
  table.attention_f32.prepare = scalar::prepare_attention;
  table.attention_f32.attend = scalar::attend;
}

}  // namespace pali
