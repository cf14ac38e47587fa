// Checking a request before anything is computed.
#include <algorithm>

#include "engine/state.hpp"
#include "tasks/prompt.hpp"

namespace pali {
namespace {

void check_images(const EngineState& engine, const Request& request, size_t image_count) {
  const Model& model = engine.model;
  if (!model.language) {
    throw Error(ErrorCode::unsupported, "this model has no language model to write text with (" +
                                            engine.info.path +
                                            "); use another model, or embed with this one");
  }
  if (image_count > 0 && !(model.vision && model.projector)) {
    throw Error(ErrorCode::invalid_argument,
                "an image for a text-only model (" + engine.info.path +
                    "); leave the image out, or use a model with a vision tower");
  }
  if (image_count == 0 && request.task != Task::run) {
    throw Error(ErrorCode::invalid_argument,
                "this task needs an image (" + engine.info.path + "); give one");
  }
}

}  // namespace

CheckedRequest check_request(const EngineState& engine, const Request& request,
                             size_t image_count) {
  check_images(engine, request, image_count);
  CheckedRequest checked;
  checked.task = request.task;
  if (request.task == Task::detect) checked.objects = request.prompt;
  checked.prompt = render_prompt(engine.model.checkpoint.config.prompts, request.task,
                                 request.prompt, request.lang);
  checked.prompt_ids = engine.tokenizer().encode(checked.prompt);
  if (checked.prompt_ids.size() >= kMaxPromptTokens) {
    throw Error(ErrorCode::invalid_argument,
                "prompt of " + std::to_string(checked.prompt_ids.size()) + " tokens, at most " +
                    std::to_string(kMaxPromptTokens - 1) + " expected (prompt); shorten it");
  }
  checked.prompt_ids.push_back(engine.model.language->end_token());
  const int64_t vocab = engine.model.language->vocab();
  if (std::any_of(checked.prompt_ids.begin(), checked.prompt_ids.end(),
                  [&](int32_t id) { return id < 0 || id >= vocab; })) {
    throw Error(ErrorCode::corrupt_file,
                "the tokenizer knows more pieces than the embedding table's " +
                    std::to_string(vocab) + " rows (" + engine.info.path +
                    "); use the tokenizer that belongs to the model");
  }
  checked.run.options = request.generation;
  GenerationOptions& options = checked.run.options;
  if (options.max_tokens == 0) options.max_tokens = default_max_tokens(request.task);
  check_options(options);
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
