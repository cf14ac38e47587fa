// Token embeddings as a language model's input wants them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/tensor.hpp"
#include "io/tensor_table.hpp"
#include "model/model_config.hpp"

namespace pali {

class TokenTable {
 public:
  // Rows "lm.embed" [V, D] and, for the token that has one, "lm.own_row" [D].
  TokenTable(const LanguageConfig& config, const TensorTable& table);
  // out [ids.size(), D]
  void embed(std::span<const int32_t> ids, Mat out) const;

 private:
  WeightRef table_;
  float scale_ = 1.0f;
  int32_t own_row_token_;
  std::vector<float> own_row_;
};

}  // namespace pali
