// Embeddings and zero-shot classification: the vision half on its own.
#include <algorithm>
#include <array>
#include <cmath>

#include "engine/state.hpp"
#include "image/image.hpp"

namespace pali {
namespace {

// Weights that were damaged give infinities and NaN: no answer, but an error.
void require_finite(const EngineState& engine, std::span<const float> values, const char* what) {
  if (std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); })) {
    return;
  }
  throw Error(ErrorCode::corrupt_file, std::string("the model's weights give ") + what +
                                           " that is not finite (" + engine.info.path +
                                           "); the file may be damaged: download it again");
}

std::vector<float> finite_row(const EngineState& engine, ConstMat rows) {
  require_finite(engine, rows.row_span(0), "an embedding");
  return {rows.row(0), rows.row(0) + rows.cols};
}

[[noreturn]] void no_head(const EngineState& engine, const char* what, const char* advice) {
  throw Error(ErrorCode::unsupported,
              std::string("this model has no ") + what + " (" + engine.info.path + "); " + advice);
}

Tensor visual_tokens(const EngineState& engine, const Context& context, const Image& image) {
  if (!engine.model.vision) no_head(engine, "vision tower", "use a model that sees");
  const VisionTower& vision = *engine.model.vision;
  const Preprocessing how = engine.model.checkpoint.config.preprocessing.at(vision.image_size());
  return vision.run(context, preprocess(image, how).view());
}

std::vector<float> text_embedding(const EngineState& engine, std::string_view text) {
  if (!engine.model.text_tower) no_head(engine, "text tower", "use a SigLIP model");
  const TextTower& tower = *engine.model.text_tower;
  const std::vector<int32_t> ids = siglip_encode(engine.tokenizer(), text, tower.length(),
                                                 engine.model.checkpoint.config.text_tower->pad);
  return finite_row(engine, tower.run(engine.context(), ids).view());
}

std::vector<LabelScore> by_two_towers(const EngineState& engine, std::span<const float> image,
                                      std::span<const std::string> labels) {
  std::vector<LabelScore> scores;
  for (const std::string& label : labels) {
    const double logit = siglip_logit(image, text_embedding(engine, label),
                                      engine.model.logit_scale, engine.model.logit_bias);
    require_finite(engine, std::array{static_cast<float>(logit)}, "a logit");
    scores.push_back({label, 1.0 / (1.0 + std::exp(-logit)), logit});
  }
  return scores;
}

// Softmax of log P(label | image, caption prompt).
std::vector<LabelScore> by_language_model(const Engine& engine, const Image& image,
                                          std::span<const std::string> labels) {
  Request request;
  request.images = {image};
  request.task = Task::caption;
  std::vector<LabelScore> scores;
  double best = -INFINITY;
  for (const Score& score : engine.score(request, labels)) {
    scores.push_back({score.text, 0, score.logprob});
    best = std::max(best, score.logprob);
  }
  double total = 0;
  for (LabelScore& score : scores) total += score.probability = std::exp(score.logit - best);
  for (LabelScore& score : scores) score.probability /= total;
  return scores;
}

}  // namespace

std::vector<float> Engine::embed(const Image& image) const {
  if (!state_->model.vision) no_head(*state_, "vision tower", "use a SigLIP model");
  if (!state_->model.vision->has_pooling_head()) {
    no_head(*state_, "pooling head", "use a SigLIP model, or embed --tokens");
  }
  const Context context = state_->context();
  const Tensor tokens = visual_tokens(*state_, context, image);
  return finite_row(*state_, state_->model.vision->pool(context, tokens.view()).view());
}

std::vector<float> Engine::embed(std::string_view text) const {
  return text_embedding(*state_, text);
}

TokenEmbeddings Engine::embed_tokens(const Image& image, bool projected) const {
  const Context context = state_->context();
  Tensor tokens = visual_tokens(*state_, context, image);
  if (projected) {
    if (!state_->model.projector) {
      no_head(*state_, "projector", "embed --tokens, without --projected");
    }
    tokens = state_->model.projector->run(context, tokens.view());
  }
  TokenEmbeddings out{tokens.rows(), tokens.cols(), {}};
  for (int64_t i = 0; i < tokens.rows(); ++i) {
    out.values.insert(out.values.end(), tokens.row(i), tokens.row(i) + tokens.cols());
  }
  require_finite(*state_, out.values, "a visual token");
  return out;
}

std::vector<LabelScore> Engine::classify(const Image& image,
                                         std::span<const std::string> labels) const {
  if (labels.empty()) {
    throw Error(ErrorCode::invalid_argument, "no labels (classify); give at least one");
  }
  const Model& model = state_->model;
  if (model.text_tower && model.vision && model.vision->has_pooling_head()) {
    return by_two_towers(*state_, embed(image), labels);
  }
  return by_language_model(*this, image, labels);
}

}  // namespace pali
