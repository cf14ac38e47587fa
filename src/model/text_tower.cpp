// Ref: SiglipTextTransformer and SiglipModel.forward in transformers' modeling_siglip.py.
#include "model/text_tower.hpp"

#include <cmath>

#include "model/encoder_stack.hpp"
#include "ops/embedding.hpp"

namespace pali {
namespace {

StackSpec stack_spec(const TextTowerConfig& config) {
  StackSpec spec;
  spec.block.width = config.width;
  spec.block.heads = spec.block.kv_heads = config.heads;
  spec.block.head_dim = config.width / config.heads;
  spec.block.attention_scale = 1.0f / std::sqrt(static_cast<float>(spec.block.head_dim));
  spec.block.eps = config.eps;
  spec.block.mlp_width = config.mlp;
  spec.block.activation = config.activation;
  spec.layers = config.layers;
  return spec;
}

double norm(std::span<const float> x) {
  double sum = 0;
  for (const float value : x) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

}  // namespace

struct TextTower::Impl {
  TextTowerConfig config;
  WeightRef embedding;           // [V, D]
  std::vector<float> positions;  // [T, D]
  EncoderStack stack;
  Linear head;  // [projection, D]
};

TextTower::TextTower(const TextTowerConfig& config, const TensorTable& table,
                     const MatmulPolicy& policy)
    : impl_(new Impl{config, table.matrix("text.embed"), table.values("text.pos"),
                     EncoderStack(stack_spec(config), table, "text", policy),
                     Linear(table, "text.head", policy)}) {}

TextTower::TextTower(TextTower&&) noexcept = default;
TextTower::~TextTower() = default;

int64_t TextTower::length() const { return impl_->config.length; }

Tensor TextTower::run(const Context& context, std::span<const int32_t> ids) const {
  const Impl& tower = *impl_;
  const int64_t length = tower.config.length;
  PALI_ASSERT(static_cast<int64_t>(ids.size()) == length);
  for (const int32_t id : ids) PALI_ASSERT(id >= 0 && id < tower.config.vocab);
  Tensor x(length, tower.config.width);  // [T, D]
  // embeddings = token_embedding(ids) + position_embedding
  embed_tokens(tower.embedding, ids, x.view());
  add_rows(context, ConstMat(tower.positions.data(), length, tower.config.width), x.view());
  context.trace("text.embed", x.view());
  // last_hidden_state = final_layer_norm(encoder(embeddings)); no mask, padding is seen
  tower.stack.run(context, x.view(), "text");
  context.trace("text.tokens", x.view());
  // pooled = head(last_hidden_state[-1])
  Tensor pooled(1, tower.head.out());
  tower.head.run(context, x.view().rows_from(length - 1, 1), pooled.view());
  context.trace("text.pooled", pooled.view());
  return pooled;
}

double siglip_logit(std::span<const float> image, std::span<const float> text, float logit_scale,
                    float logit_bias) {
  PALI_ASSERT(image.size() == text.size());
  // logits = normalize(text) . normalize(image) * exp(logit_scale) + logit_bias
  double dot = 0;
  for (size_t i = 0; i < image.size(); ++i) dot += static_cast<double>(image[i]) * text[i];
  const double lengths = norm(image) * norm(text);
  const double cosine = lengths == 0 ? 0.0 : dot / lengths;
  const double logit = cosine * std::exp(static_cast<double>(logit_scale)) + logit_bias;
  if (!std::isfinite(logit)) {
    throw Error(ErrorCode::corrupt_file,
                "the model's weights give a logit that is not finite (vision or text tower); the "
                "checkpoint is damaged: fetch or convert it again");
  }
  return logit;
}

}  // namespace pali
