// What an Engine holds, and the steps of a request that engine, session and scoring share.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "exec/context.hpp"
#include "generate/generate.hpp"
#include "kernels/kernel_table.hpp"
#include "model/assemble.hpp"
#include "pali/engine.hpp"
#include "tasks/locations.hpp"
#include "tasks/mask_decoder.hpp"

namespace pali {

struct EngineState {
  Model model;
  KernelTable kernels;
  std::unique_ptr<ThreadPool> pool;
  ModelInfo info;
  LocationIds locations = {};  // none where the tokenizer has no such tokens
  std::optional<MaskDecoder> mask_decoder = {};

  // A const Engine lends its pool: the pool serialises its own users.
  Context context() const { return Context{*pool, kernels, nullptr}; }
  const Tokenizer& tokenizer() const;  // throws Error(not_found) where the model has none
};

// Reaches what Engine keeps to itself.
struct EngineAccess {
  static Engine engine(std::shared_ptr<const EngineState> state) {
    return Engine(std::move(state));
  }
};

// engine.cpp: a checkpoint made ready to run. `observer`, where given, sees what its matrices meet
// and outlives it. Throws Error.
std::shared_ptr<EngineState> make_engine_state(Checkpoint checkpoint, const EngineOptions& options,
                                               ActivationObserver* observer = nullptr);

struct SessionState {
  std::shared_ptr<const EngineState> engine;
  std::vector<Image> images;
  Tensor visual;  // [sum of N, D], images in order
  double vision_ms = 0;
};

// Wall clock since construction.
class Stopwatch {
 public:
  double ms() const {
    return std::chrono::duration<double, std::milli>(Clock::now() - start_).count();
  }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

// A prompt is read whole by the encoder, and a text to score takes a step a token: past this it is
// a mistake, not a question.
inline constexpr size_t kMaxPromptTokens = 16384;

// Stands in prompt ids for all tokens of the next image.
inline constexpr int32_t kImagePlace = -1;

// check.cpp: the second door. A checked request has its task's defaults filled in, and its prompt
// rendered and tokenized (end token included).
struct CheckedRequest {
  Task task = Task::run;
  std::string prompt;               // after the template
  std::vector<int32_t> prompt_ids;  // kImagePlace where an image's tokens go
  std::string objects;              // Task::detect, Task::segment: what was asked for
  GenerationRun run;
};
// Throws Error(invalid_argument) where images cannot be shown to the language model.
void require_projected_vision(const EngineState& engine);
// image_count: images of the request or of its session. Throws Error(invalid_argument,
// unsupported).
CheckedRequest check_request(const EngineState& engine, const Request& request, size_t image_count);

// checkpoint.cpp: the templates that a model has, by task.
std::map<std::string, std::string> prompt_list(const PromptTemplates& prompts);

// locating.cpp: boxes and masks.
LocationIds location_ids(const Tokenizer& tokenizer);
// The part of check_request that detect, segment and GenerationOptions::constrain need. Throws
// Error(invalid_argument, unsupported, not_found).
void check_locating(const EngineState& engine, const Request& request, CheckedRequest& checked);
// Boxes, masks and the count of invalid groups of result.tokens and result.text; logprobs of the
// tokens.
void find_boxes(const EngineState& engine, const CheckedRequest& request, const Image& image,
                std::span<const float> logprobs, Result& result);

// prompt_ids.cpp: the prompt in the family's form. Throws Error(invalid_argument) where it has
// another number of image markers than there are images.
std::vector<int32_t> prompt_ids(const Tokenizer& tokenizer, const ModelConfig& config,
                                const std::string& prompt, size_t image_count);

// pipeline.cpp: the way of the data.
// Images -> visual tokens in the language model's width [sum of N, D]. Several images: stage names
// are prefixed "image{j}/" for the tracer. A frame around `region` is drawn into each.
Tensor encode_images(const EngineState& engine, const Context& context,
                     std::span<const Image> images, const std::optional<Region>& region = {});
// The prompt's embeddings, and in the place of each kImagePlace the next image's visual tokens:
// [S, D].
Tensor build_prefix(const EngineState& engine, ConstMat visual, std::span<const int32_t> ids);
// One decoder run over requests whose prefixes are ready; beams only where there is one request.
std::vector<Result> generate_results(const EngineState& engine,
                                     std::span<const CheckedRequest> requests,
                                     std::span<const Tensor> prefixes,
                                     std::span<const Image* const> first_images);
// log P of each text after the prefix.
std::vector<Score> score_texts(const EngineState& engine, ConstMat prefix,
                               std::span<const std::string> texts, const ScoreOptions& options);

}  // namespace pali
