#include "unit/model/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>

namespace pali::test {
namespace {

using Vector = std::vector<double>;
// Additive score of (head, query, key); -infinity hides a key.
using Bias = std::function<double(int64_t head, int64_t query, int64_t key)>;

double none(int64_t, int64_t, int64_t) { return 0.0; }

Rows linear(const TensorTable& table, const std::string& name, const Rows& x) {
  const WeightRef& w = table.matrix(name + ".weight");
  std::vector<float> bias(static_cast<size_t>(w.out), 0.0f);
  if (table.has(name + ".bias")) bias = table.values(name + ".bias");
  Rows y;
  for (const Vector& row : x) {
    Vector out;
    for (int64_t o = 0; o < w.out; ++o) {
      double sum = bias[o];
      for (int64_t i = 0; i < w.in; ++i) sum += row[i] * w.at(o, i);
      out.push_back(sum);
    }
    y.push_back(out);
  }
  return y;
}

Rows add(Rows a, const Rows& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    for (size_t j = 0; j < a[i].size(); ++j) a[i][j] += b[i][j];
  }
  return a;
}

Rows rms_norm(const TensorTable& table, const std::string& name, double eps, Rows x) {
  const std::vector<float> w = table.values(name + ".weight");
  for (Vector& row : x) {
    double mean_square = 0;
    for (const double v : row) mean_square += v * v / static_cast<double>(row.size());
    for (size_t j = 0; j < row.size(); ++j) row[j] *= w[j] / std::sqrt(mean_square + eps);
  }
  return x;
}

Rows layer_norm(const TensorTable& table, const std::string& name, double eps, Rows x) {
  const std::vector<float> w = table.values(name + ".weight"), b = table.values(name + ".bias");
  for (Vector& row : x) {
    double mean = 0, variance = 0;
    for (const double v : row) mean += v / static_cast<double>(row.size());
    for (const double v : row) {
      variance += (v - mean) * (v - mean) / static_cast<double>(row.size());
    }
    for (size_t j = 0; j < row.size(); ++j) {
      row[j] = (row[j] - mean) / std::sqrt(variance + eps) * w[j] + b[j];
    }
  }
  return x;
}

double activate(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::gelu_erf:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case Activation::silu:
      return x / (1 + std::exp(-x));
    case Activation::relu:
      return std::max(x, 0.0);
    case Activation::none:
      return x;
  }
  return x;
}

Rows attend(const Rows& q, const Rows& k, const Rows& v, int64_t heads, double scale,
            const Bias& bias) {
  const int64_t dim = static_cast<int64_t>(q[0].size()) / heads;
  Rows out(q.size(), Vector(q[0].size(), 0.0));
  for (int64_t h = 0; h < heads; ++h) {
    for (size_t m = 0; m < q.size(); ++m) {
      Vector scores;
      for (size_t n = 0; n < k.size(); ++n) {
        double dot = 0;
        for (int64_t d = h * dim; d < (h + 1) * dim; ++d) dot += q[m][d] * k[n][d];
        scores.push_back(scale * dot + bias(h, int64_t(m), int64_t(n)));
      }
      const double largest = *std::max_element(scores.begin(), scores.end());
      double sum = 0;
      for (double& s : scores) sum += s = std::exp(s - largest);
      for (size_t n = 0; n < k.size(); ++n) {
        for (int64_t d = h * dim; d < (h + 1) * dim; ++d) out[m][d] += scores[n] / sum * v[n][d];
      }
    }
  }
  return out;
}

Rows attention_layer(const TensorTable& table, const std::string& name, const Rows& x,
                     const Rows& memory, int64_t heads, double scale, const Bias& bias) {
  return linear(table, name + ".o",
                attend(linear(table, name + ".q", x), linear(table, name + ".k", memory),
                       linear(table, name + ".v", memory), heads, scale, bias));
}

Rows mlp(const TensorTable& table, const std::string& name, Activation kind, const Rows& x) {
  Rows hidden = linear(table, name + ".up", x);
  if (table.has(name + ".gate.weight")) {
    const Rows gate = linear(table, name + ".gate", x);
    for (size_t i = 0; i < hidden.size(); ++i) {
      for (size_t j = 0; j < hidden[i].size(); ++j) hidden[i][j] *= activate(kind, gate[i][j]);
    }
  } else {
    for (Vector& row : hidden) {
      for (double& v : row) v = activate(kind, v);
    }
  }
  return linear(table, name + ".down", hidden);
}

// Buckets of 32 and 128 as integer tables: the first distance of each.
int bucket(int64_t distance, bool bidirectional) {
  static constexpr int kHalf[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91};
  static constexpr int kFull[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                  16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113};
  if (bidirectional) {
    const int64_t n = std::abs(distance);
    return int(std::upper_bound(kHalf, kHalf + 16, n) - kHalf) - 1 + (distance > 0 ? 16 : 0);
  }
  return int(std::upper_bound(kFull, kFull + 32, std::max<int64_t>(-distance, 0)) - kFull) - 1;
}

Bias relative(const LanguageConfig& config, const TensorTable& table, const std::string& stack,
              int64_t layer, bool encoder) {
  const std::string name = config.bias_per_layer
                               ? stack + ".blocks." + std::to_string(layer) + ".bias"
                               : stack + ".bias";
  const WeightRef& weights = table.matrix(name);
  return [&weights, encoder](int64_t h, int64_t m, int64_t n) {
    if (!encoder && n > m) return -std::numeric_limits<double>::infinity();
    return double(weights.at(bucket(n - m, encoder), h));
  };
}

// The pre-LN encoder that SigLIP's two towers share.
Rows siglip_stack(const TensorTable& table, const std::string& name, int64_t layers, int64_t heads,
                  double eps, Activation kind, Rows x) {
  const double scale = 1 / std::sqrt(static_cast<double>(x[0].size()) / double(heads));
  for (int64_t i = 0; i < layers; ++i) {
    const std::string block = name + ".blocks." + std::to_string(i);
    const Rows h = layer_norm(table, block + ".norm1", eps, x);
    x = add(x, attention_layer(table, block + ".attn", h, h, heads, scale, none));
    x = add(x, mlp(table, block + ".mlp", kind, layer_norm(table, block + ".norm2", eps, x)));
  }
  return layer_norm(table, name + ".norm", eps, x);
}

}  // namespace

Rows rows_of(ConstMat values) {
  Rows rows;
  for (int64_t i = 0; i < values.rows; ++i) {
    rows.emplace_back(values.row(i), values.row(i) + values.cols);
  }
  return rows;
}

Rows t5_encode(const LanguageConfig& config, const TensorTable& table, const Rows& prefix) {
  Rows x = prefix;
  for (int64_t i = 0; i < config.encoder_layers; ++i) {
    const std::string block = "lm.encoder.blocks." + std::to_string(i);
    const Rows h = rms_norm(table, block + ".norm1", config.eps, x);
    x = add(x, attention_layer(table, block + ".attn", h, h, config.heads, 1.0,
                               relative(config, table, "lm.encoder", i, true)));
    x = add(x, mlp(table, block + ".mlp", config.activation,
                   rms_norm(table, block + ".norm2", config.eps, x)));
  }
  return rms_norm(table, "lm.encoder.norm", config.eps, x);
}

Rows t5_decode(const LanguageConfig& config, const TensorTable& table, const Rows& memory,
               std::span<const int32_t> ids) {
  const WeightRef& embed = table.matrix("lm.embed");
  Rows x;
  for (const int32_t id : ids) {
    Vector row;
    for (int64_t j = 0; j < config.width; ++j) row.push_back(embed.at(id, j));
    x.push_back(row);
  }
  for (int64_t i = 0; i < config.decoder_layers; ++i) {
    const std::string block = "lm.decoder.blocks." + std::to_string(i);
    Rows h = rms_norm(table, block + ".norm1", config.eps, x);
    x = add(x, attention_layer(table, block + ".attn", h, h, config.heads, 1.0,
                               relative(config, table, "lm.decoder", i, false)));
    h = rms_norm(table, block + ".norm_cross", config.eps, x);
    x = add(x, attention_layer(table, block + ".cross", h, memory, config.heads, 1.0, none));
    x = add(x, mlp(table, block + ".mlp", config.activation,
                   rms_norm(table, block + ".norm2", config.eps, x)));
  }
  x = rms_norm(table, "lm.decoder.norm", config.eps, x);
  const WeightRef& head = table.matrix(table.has("lm.head.weight") ? "lm.head.weight" : "lm.embed");
  const double scale = config.scale_head ? 1 / std::sqrt(double(config.width)) : 1.0;
  Rows logits;
  for (const Vector& row : x) {
    Vector out;
    for (int64_t v = 0; v < head.out; ++v) {
      double sum = 0;
      for (int64_t j = 0; j < head.in; ++j) sum += row[j] * scale * head.at(v, j);
      out.push_back(sum);
    }
    logits.push_back(out);
  }
  return logits;
}

Rows vit_tokens(const VisionConfig& config, const TensorTable& table, const Rows& pixels) {
  const WeightRef& kernel = table.matrix("vision.patch.weight");
  const std::vector<float> bias = table.values("vision.patch.bias");
  const WeightRef& positions = table.matrix("vision.pos");
  const int64_t size = config.image_size, p = config.patch, grid = size / p;
  Rows x;
  for (int64_t n = 0; n < grid * grid; ++n) {
    Vector row;
    for (int64_t d = 0; d < config.width; ++d) {
      double sum = bias[d] + positions.at(n, d);
      for (int64_t c = 0; c < 3; ++c) {
        for (int64_t dy = 0; dy < p; ++dy) {
          for (int64_t dx = 0; dx < p; ++dx) {
            const int64_t at = (n / grid * p + dy) * size + n % grid * p + dx;
            sum += pixels[c][at] * kernel.at(d, (c * p + dy) * p + dx);
          }
        }
      }
      row.push_back(sum);
    }
    x.push_back(row);
  }
  return siglip_stack(table, "vision", config.layers, config.heads, config.eps, config.activation,
                      x);
}

std::vector<double> vit_pool(const VisionConfig& config, const TensorTable& table,
                             const Rows& tokens) {
  const std::vector<float> probe = table.values("vision.head.probe");
  const Rows query{Vector(probe.begin(), probe.end())};
  const double scale = 1 / std::sqrt(double(config.width) / double(config.heads));
  const Rows x =
      attention_layer(table, "vision.head.attn", query, tokens, config.heads, scale, none);
  return add(x, mlp(table, "vision.head.mlp", config.activation,
                    layer_norm(table, "vision.head.norm", config.eps, x)))[0];
}

std::vector<double> text_embedding(const TextTowerConfig& config, const TensorTable& table,
                                   std::span<const int32_t> ids) {
  const WeightRef &embed = table.matrix("text.embed"), &positions = table.matrix("text.pos");
  Rows x;
  for (size_t t = 0; t < ids.size(); ++t) {
    Vector row;
    for (int64_t j = 0; j < config.width; ++j) {
      row.push_back(double(embed.at(ids[t], j)) + positions.at(int64_t(t), j));
    }
    x.push_back(row);
  }
  x = siglip_stack(table, "text", config.layers, config.heads, config.eps, config.activation, x);
  return linear(table, "text.head", {x.back()})[0];
}

double relative_error(std::span<const float> found, std::span<const double> expected) {
  if (found.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double largest = 0, error = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double difference = std::abs(found[i] - expected[i]);
    if (!(difference <= error)) error = difference;  // a NaN stays
    largest = std::max(largest, std::abs(expected[i]));
  }
  return error / largest;
}

}  // namespace pali::test
