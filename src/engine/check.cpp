// Checking a request before anything is computed.
#include <algorithm>

#include "engine/state.hpp"
#include "tasks/prompt.hpp"

namespace pali {

void require_projected_vision(const EngineState& engine) {
  if (engine.model.vision && engine.model.projector) return;
  throw Error(ErrorCode::invalid_argument,
              "an image for a text-only model (" + engine.info.path +
                  "); leave the image out, or use a model with a vision tower");
}

namespace {

void check_images(const EngineState& engine, const Request& request, size_t image_count) {
  const Model& model = engine.model;
  if (!model.language) {
    throw Error(ErrorCode::unsupported, "this model has no language model to write text with (" +
                                            engine.info.path +
                                            "); use another model, or embed with this one");
  }
  if (image_count > 0) require_projected_vision(engine);
  if (image_count == 0 && request.task != Task::run) {
    throw Error(ErrorCode::invalid_argument,
                "this task needs an image (" + engine.info.path + "); give one");
  }
}

void check_region(const EngineState& engine, const Request& request, size_t image_count) {
  if (!request.region) return;
  if (request.task != Task::caption || !engine.model.checkpoint.config.prompts.caption_region) {
    throw Error(ErrorCode::invalid_argument,
                "a box in the image is for captions of a widgetcap model (--box); leave it out");
  }
  if (request.images.size() != 1 || image_count != 1) {
    throw Error(ErrorCode::invalid_argument,
                "a box is of one image that the request brings (--box); give that one image");
  }
  const Region& region = *request.region;
  const double width = request.images[0].width(), height = request.images[0].height();
  // Written so that a NaN fails too.
  const bool inside = region.x0 >= 0 && region.y0 >= 0 && region.x1 <= width &&
                      region.y1 <= height && region.x0 <= region.x1 && region.y0 <= region.y1;
  if (!inside) {
    throw Error(ErrorCode::invalid_argument,
                "the box must be x0 <= x1, y0 <= y1 inside the image's " +
                    std::to_string(request.images[0].width()) + " x " +
                    std::to_string(request.images[0].height()) + " pixels (--box); correct it");
  }
}

}  // namespace

CheckedRequest check_request(const EngineState& engine, const Request& request,
                             size_t image_count) {
  check_images(engine, request, image_count);
  CheckedRequest checked;
  checked.task = request.task;
  checked.prompt = render_prompt(engine.model.checkpoint.config.prompts, request);
  check_region(engine, request, image_count);
  checked.prompt_ids =
      prompt_ids(engine.tokenizer(), engine.model.checkpoint.config, checked.prompt, image_count);
  if (checked.prompt_ids.size() >= kMaxPromptTokens) {
    throw Error(ErrorCode::invalid_argument,
                "prompt of " + std::to_string(checked.prompt_ids.size()) + " tokens, at most " +
                    std::to_string(kMaxPromptTokens - 1) + " expected (prompt); shorten it");
  }
  const int64_t vocab = engine.model.language->vocab();
  if (std::any_of(checked.prompt_ids.begin(), checked.prompt_ids.end(),
                  [&](int32_t id) { return id != kImagePlace && (id < 0 || id >= vocab); })) {
    throw Error(ErrorCode::corrupt_file,
                "the tokenizer knows more pieces than the embedding table's " +
                    std::to_string(vocab) + " rows (" + engine.info.path +
                    "); use the tokenizer that belongs to the model");
  }
  checked.run.options = request.generation;
  GenerationOptions& options = checked.run.options;
  if (options.max_tokens == 0) options.max_tokens = default_max_tokens(request.task);
  check_options(options);
  check_locating(engine, request, checked);
  checked.run.stop = request.stop;
  if (request.on_token && options.beams == 1) {
    checked.run.on_token = [on_token = request.on_token,
                            stream = std::make_shared<StreamDecoder>(engine.tokenizer())](
                               int32_t id, float logprob) {
      return on_token(Token{id, stream->next(id), logprob});
    };
  }
  return checked;
}

}  // namespace pali
