// One problem of attention through every path of a tier: tiles of queries in f32 and in bf16 over
// prepared blocks, and one query over rows in place, f32 and bf16. The oracle is softmax in f64.
#pragma once

#include <algorithm>
#include <functional>

#include "base/tensor.hpp"
#include "not_finite.hpp"

namespace pali {

enum class Path { rows, rows_bf16, f32, bf16 };

inline bool in_place(Path path) { return path == Path::rows || path == Path::rows_bf16; }

// The values of a matrix as bf16, NaN beyond and beside them.
inline std::vector<uint16_t> as_bf16(const Poisoned& mat, int64_t rows, int64_t cols) {
  std::vector<uint16_t> stored(static_cast<size_t>(rows * mat.stride() + 32), 0xffff);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t d = 0; d < cols; ++d) {
      stored[static_cast<size_t>(i * mat.stride() + d)] = f32_to_bf16(mat.at(i, d));
    }
  }
  return stored;
}

struct Case {
  int64_t queries, keys, dim;
  bool bias = false, rows = false;  // rows: of K and V by a table, in place alone
  float spread = 1.0f;              // of the queries: larger makes the softmax sharper
  float soft_cap = 0.0f;
  std::function<KeyRange(int64_t query)> range = nullptr;
};

// What one run of a kernel needs beside the table.
struct Problem {
  const Poisoned *q, *k, *v;
  int64_t queries, keys, dim;
  float scale;
  const float* bias = nullptr;  // of key - query = 0
  const KeyRange* ranges = nullptr;
  float soft_cap = 0.0f;
  const int32_t* rows = nullptr;
};

class Attention : public EveryTier {
 protected:
  const AttentionKernels& kernels(Path path) const {
    return path == Path::bf16 ? table.attention_bf16 : table.attention_f32;
  }
  // The paths of this tier that can take `queries` at once.
  std::vector<Path> paths(int64_t queries, bool rows = false) const {
    std::vector<Path> some = {Path::rows, Path::rows_bf16};
    if (rows) return some;
    if (queries <= table.attention_f32.queries) some.push_back(Path::f32);
    if (table.attention_bf16.attend != nullptr && queries <= table.attention_bf16.queries) {
      some.push_back(Path::bf16);
    }
    return some;
  }

  void run(Path path, const Problem& p, Poisoned& out) {
    if (in_place(path)) return run_rows(path, p, out);
    const AttentionKernels& use = kernels(path);
    const int64_t block_bytes = use.block_bytes(p.dim), blocks = (p.keys + use.keys - 1) / use.keys;
    ASSERT_EQ(block_bytes % 64, 0);
    // NaN in f32 and in bf16, before and after: what a kernel leaves unwritten and then uses shows.
    AlignedBuffer<std::byte> prepared(blocks * block_bytes + 64);
    AlignedBuffer<std::byte> scratch(use.scratch_bytes(p.dim) + 64);
    std::fill_n(prepared.data(), prepared.size(), std::byte{0xff});
    std::fill_n(scratch.data(), scratch.size(), std::byte{0xff});
    for (int64_t b = 0; b < blocks; ++b) {
      use.prepare(p.k->row(b * use.keys), p.k->stride(), p.v->row(b * use.keys), p.v->stride(),
                  std::min(use.keys, p.keys - b * use.keys), p.dim,
                  prepared.data() + b * block_bytes);
    }
    AttentionTile tile{};
    tile.q = p.q->data(), tile.q_stride = p.q->stride(), tile.queries = p.queries;
    tile.blocks = prepared.data();
    tile.keys = p.keys, tile.head_dim = p.dim, tile.scale = p.scale, tile.soft_cap = p.soft_cap;
    tile.bias = p.bias, tile.ranges = p.ranges;
    tile.out = out.data(), tile.out_stride = out.stride();
    tile.scratch = scratch.data();
    use.attend(tile);
    for (int64_t s = 1; s <= 64; ++s) {
      ASSERT_EQ(prepared.data()[prepared.size() - s], std::byte{0xff}) << "beyond the blocks";
      ASSERT_EQ(scratch.data()[scratch.size() - s], std::byte{0xff}) << "beyond the scratch";
    }
    ASSERT_TRUE(out.untouched());
  }

  void run_rows(Path path, const Problem& p, Poisoned& out) {
    int64_t stored = p.keys;
    for (int64_t j = 0; p.rows != nullptr && j < p.keys; ++j) {
      stored = std::max<int64_t>(stored, p.rows[j] + 1);
    }
    const auto k = as_bf16(*p.k, stored, p.dim), v = as_bf16(*p.v, stored, p.dim);
    for (int64_t i = 0; i < p.queries; ++i) {
      const int64_t first = p.ranges != nullptr ? p.ranges[i].first : 0;
      const int64_t skipped = p.rows != nullptr ? 0 : first;
      AttentionRow row{};
      row.q = p.q->row(i), row.queries = 1;
      row.k_stride = p.k->stride(), row.v_stride = p.v->stride();
      row.k = p.k->row(skipped), row.v = p.v->row(skipped);
      if (path == Path::rows_bf16) {
        row.type = KernelType::bf16;
        row.k = k.data() + skipped * row.k_stride, row.v = v.data() + skipped * row.v_stride;
      }
      row.keys = (p.ranges != nullptr ? p.ranges[i].end : p.keys) - first;
      if (p.rows != nullptr) row.rows = p.rows + first;
      row.head_dim = p.dim, row.scale = p.scale, row.soft_cap = p.soft_cap;
      row.bias = p.bias == nullptr ? nullptr : p.bias + first - i;
      row.out = out.row(i);
      table.attend_row(row);
    }
    ASSERT_TRUE(out.untouched());
  }

  void check(const Case& c) {
    std::mt19937 random(static_cast<unsigned>(c.queries * 3 + c.keys * 5 + c.dim * 7));
    const int64_t stored = c.rows ? c.keys + 9 : c.keys;
    Poisoned q(c.queries, c.dim), k(stored, c.dim, c.dim + 11), v(stored, c.dim, c.dim + 7),
        out(c.queries, c.dim);
    q.fill(random, c.spread), k.fill(random), v.fill(random);
    // Distances from -(queries - 1) to keys - 1, poison on both sides.
    Poisoned bias(1, c.queries + c.keys - 1);
    bias.fill(random);
    std::vector<int32_t> rows;
    for (int64_t j = 0; j < c.keys; ++j) {
      rows.push_back(static_cast<int32_t>(c.rows ? (j * 7 + 3) % stored : j));
    }
    if (c.rows) {
      for (int64_t j = 1; j < c.keys; ++j) std::swap(rows[j], rows[random() % (j + 1)]);
    }
    std::vector<KeyRange> ranges;
    for (int64_t i = 0; i < c.queries; ++i) {
      ranges.push_back(c.range ? c.range(i) : KeyRange{0, static_cast<int32_t>(c.keys)});
    }
    Problem p{&q, &k, &v, c.queries, c.keys, c.dim, 1.0f / std::sqrt(static_cast<float>(c.dim))};
    if (c.bias) p.bias = bias.data() + c.queries - 1;
    if (c.range) p.ranges = ranges.data();
    if (c.rows) p.rows = rows.data();
    p.soft_cap = c.soft_cap;
    for (const Path path : paths(c.queries, c.rows)) {
      run(path, p, out);
      for (int64_t i = 0; i < c.queries; ++i) {
        ASSERT_EQ(mismatch(path, p, rows, i, ranges[static_cast<size_t>(i)], out), "")
            << "path " << static_cast<int>(path) << ", " << c.queries << " queries, " << c.keys
            << " keys, width " << c.dim << ", query " << i;
      }
    }
  }

  // What is wrong with row i of `out`, from softmax in f64 over operands as the path rounds them.
  std::string mismatch(Path path, const Problem& p, const std::vector<int32_t>& rows, int64_t i,
                       KeyRange range, const Poisoned& out) {
    const bool bf16 = path == Path::bf16;  // of queries and weights too
    const auto rounded = [](float x) { return double{bf16_to_f32(f32_to_bf16(x))}; };
    const auto query = [&](float x) { return bf16 ? rounded(x) : double{x}; };
    const auto operand = [&](float x) {
      return bf16 || path == Path::rows_bf16 ? rounded(x) : double{x};
    };
    std::vector<double> weights(static_cast<size_t>(p.keys));
    double highest = -1e300, score_error = 0, sum = 0;
    for (int64_t j = range.first; j < range.end; ++j) {
      double score = 0, magnitude = 0;
      for (int64_t d = 0; d < p.dim; ++d) {
        const double term =
            query(p.q->at(i, d)) * operand(p.k->at(rows[static_cast<size_t>(j)], d));
        score += term * p.scale, magnitude += std::abs(term) * p.scale;
      }
      // tanh's own error is relative, 7 kEps, and its slope at most 1.
      if (p.soft_cap > 0) score = p.soft_cap * std::tanh(score / p.soft_cap);
      const double cap_error = p.soft_cap > 0 ? 9 * kEps * std::abs(score) : 0;
      if (p.bias != nullptr) score += p.bias[j - i];
      weights[static_cast<size_t>(j)] = score;
      highest = std::max(highest, score);
      // One chain of dim products at worst; bias, scale and the subtraction of the maximum.
      score_error = std::max(score_error, magnitude * static_cast<double>(p.dim + 2) * kEps +
                                              4 * kEps * (std::abs(score) + 4) + cap_error);
      // bf16 tiles scale by powers of two: the factor log2(e) and its products round as well.
      if (bf16)
        score_error =
            std::max(score_error, 4 * kEps * (magnitude + std::abs(score)) + 2 * score_error);
    }
    for (int64_t j = range.first; j < range.end; ++j) {
      sum += weights[static_cast<size_t>(j)] = std::exp(weights[static_cast<size_t>(j)] - highest);
    }
    // Chains over one block of keys and over the blocks, the exponential's own 3 kEps and the
    // division. In bf16, weights are good to 2e-4 and then rounded to 8 bits.
    const double chains =
        static_cast<double>(std::min<int64_t>(p.keys, 128) + 3 * (p.keys / 128) + 12);
    const double weight_error = score_error + chains * kEps + (bf16 ? 0x1p-8 + 2e-4 : 0);
    for (int64_t d = 0; d < p.dim; ++d) {
      double expected = 0, magnitude = 0;
      for (int64_t j = range.first; j < range.end; ++j) {
        const double term = weights[static_cast<size_t>(j)] / sum *
                            operand(p.v->at(rows[static_cast<size_t>(j)], d));
        expected += term, magnitude += std::abs(term);
      }
      // Weights' errors reach numerator and denominator.
      const double tolerance = 2 * magnitude * weight_error;
      if (std::abs(out.at(i, d) - expected) <= tolerance) continue;
      return "column " + std::to_string(d) + ": " + std::to_string(out.at(i, d)) + ", expected " +
             std::to_string(expected) + " +- " + std::to_string(tolerance);
    }
    return "";
  }
};

}  // namespace pali
