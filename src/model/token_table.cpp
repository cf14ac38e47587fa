#include "model/token_table.hpp"

#include <algorithm>
#include <cmath>

#include "ops/embedding.hpp"

namespace pali {
namespace {

// Ref: GemmaTextScaledWordEmbedding: `* self.embed_scale.to(self.weight.dtype)`; a table of
// integers is a rounded one of f32.
float embedding_scale(int64_t width, DType dtype) {
  const float root = static_cast<float>(std::sqrt(static_cast<double>(width)));
  if (dtype == DType::bf16) return bf16_to_f32(f32_to_bf16(root));
  if (dtype == DType::f16) return f16_to_f32(f32_to_f16(root));
  return root;
}

}  // namespace

TokenTable::TokenTable(const LanguageConfig& config, const TensorTable& table)
    : table_(table.matrix("lm.embed")), own_row_token_(config.own_row_token) {
  if (config.scale_embedding) scale_ = embedding_scale(config.width, table_.dtype);
  if (own_row_token_ >= 0) own_row_ = table.values("lm.own_row");
}

void TokenTable::embed(std::span<const int32_t> ids, Mat out) const {
  embed_tokens(table_, ids, out);
  for (size_t t = 0; t < ids.size(); ++t) {
    float* row = out.row(static_cast<int64_t>(t));
    if (ids[t] == own_row_token_) {
      std::copy(own_row_.begin(), own_row_.end(), row);
    } else if (scale_ != 1.0f) {
      for (int64_t i = 0; i < out.cols; ++i) row[i] *= scale_;
    }
  }
}

}  // namespace pali
