// From a checked checkpoint to the parts that run. What is there decides, never a family's name.
#include "model/assemble.hpp"

#include <utility>

#include "model/encoder_decoder.hpp"
#include "model/prefix_lm.hpp"

namespace pali {

Model build_model(Checkpoint checkpoint, const ModelOptions& options) {
  const auto progress = [&](double fraction) {
    if (options.on_progress) options.on_progress(fraction);
  };
  Model model;
  model.checkpoint = std::move(checkpoint);
  const ModelConfig& config = model.checkpoint.config;
  progress(0.0);
  model.checkpoint.table.load(model.checkpoint.store);
  model.checkpoint.table.turn();
  const TensorTable& table = model.checkpoint.table;
  if (config.vision) {
    model.vision.emplace(*config.vision, table, options.policy, options.resolution);
  } else if (options.resolution != 0) {
    throw Error(ErrorCode::invalid_argument, "a resolution for a model without a vision tower (" +
                                                 model.checkpoint.path.string() +
                                                 "); leave --resolution out");
  }
  progress(0.3);
  if (config.text_tower) {
    model.text_tower.emplace(*config.text_tower, table, options.policy);
    model.logit_scale = table.values("logit_scale").at(0);
    model.logit_bias = table.values("logit_bias").at(0);
  }
  if (config.projector) model.projector.emplace(*config.projector, table, options.policy);
  progress(0.5);
  if (config.language) {
    const auto make = config.language->encoder_layers > 0 ? make_encoder_decoder : make_prefix_lm;
    model.language = make(*config.language, table, options.policy);
  }
  progress(1.0);
  return model;
}

}  // namespace pali
