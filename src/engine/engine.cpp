// Opening a model, and the public methods of Engine and Session.
#include "pali/engine.hpp"

#include <algorithm>
#include <map>
#include <utility>

#include "engine/cast.hpp"
#include "engine/state.hpp"
#include "kernels/isa.hpp"

namespace pali {
namespace {

// Requests that share one decoder run; more gain little and hold more memory.
constexpr size_t kBatch = 8;

const char* compute_name(ComputeType type) {
  return type == ComputeType::int8    ? "int8"
         : type == ComputeType::int16 ? "int16"
         : type == ComputeType::bf16  ? "bf16"
                                      : "f32";
}

const char* backend_name(MatmulBackend backend) {
  switch (backend) {
    case MatmulBackend::native:
      return "native";
    case MatmulBackend::onednn:
      return "onednn";
    case MatmulBackend::reference:
      return "reference";
    default:
      return "auto";
  }
}

// The storage type that most parameters have.
std::string main_dtype(const std::map<std::string, int64_t>& dtypes) {
  const auto most =
      std::max_element(dtypes.begin(), dtypes.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == dtypes.end() ? "f32" : most->first;
}

Pipeline pipeline_of(Preprocess preprocess) {
  switch (preprocess) {
    case Preprocess::hf:
      return Pipeline::hf;
    case Preprocess::bv:
      return Pipeline::bv;
    case Preprocess::bv_aa:
      break;
  }
  return Pipeline::bv_aa;
}

// What the products are computed in.
ComputeType resolve_compute(const EngineOptions& options, Isa isa, const std::string& dtype) {
  switch (options.compute) {
    case ComputeType::int8:
    case ComputeType::int16:
      if (dtype == weight_name(DType::i8) || dtype == weight_name(DType::i4)) {
        return options.compute;
      }
      throw Error(ErrorCode::unsupported, std::string(compute_name(options.compute)) +
                                              " products need int8 or int4 weights, found " +
                                              dtype + " (--compute); add --dtype int8");
    case ComputeType::bf16:
      if (isa >= Isa::avx512_bf16) return ComputeType::bf16;
      throw Error(ErrorCode::unsupported,
                  "this kernel tier does not multiply bf16 (--compute); use --compute f32");
    case ComputeType::f32:
      return ComputeType::f32;
    case ComputeType::automatic:
      break;
  }
  if (options.dtype == WeightType::f32) return ComputeType::f32;
  for (const DType weights : {DType::bf16, DType::i8, DType::i4}) {
    if (dtype == weight_name(weights)) {
      return automatic_compute(weights, options.matmul, isa, cpu_is_intel());
    }
  }
  return ComputeType::f32;
}

ModelInfo describe(const Model& model) {
  const Checkpoint& checkpoint = model.checkpoint;
  ModelInfo info;
  info.format = checkpoint.format;
  info.family = checkpoint.config.family;
  info.path = checkpoint.path.string();
  info.parameters = checkpoint.table.parameters();
  info.dtypes = checkpoint.table.parameters_by_dtype();
  info.memory_bytes["weights"] = checkpoint.store.bytes();
  info.config_json = checkpoint.config.json;
  info.task_style = checkpoint.config.task_style;
  info.prompts = prompt_list(checkpoint.config.prompts);
  info.preprocess = pipeline_name(checkpoint.config.preprocessing.pipeline);
  info.dtype = main_dtype(info.dtypes);
  info.has_vision = model.vision.has_value();
  info.has_language = model.language != nullptr;
  info.has_text_tower = model.text_tower.has_value();
  info.image_size = info.has_vision ? model.vision->image_size() : 0;
  info.warnings = checkpoint.warnings;
  return info;
}

}  // namespace

const char* to_string(FinishReason reason) noexcept {
  switch (reason) {
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "cancelled";
  }
  return "cancelled";
}

const Tokenizer& EngineState::tokenizer() const {
  if (!model.checkpoint.tokenizer) {
    throw Error(ErrorCode::not_found,
                "the model has no tokenizer (" + info.path +
                    "); put spiece.model or tokenizer.model beside it, or give --tokenizer FILE");
  }
  return *model.checkpoint.tokenizer;
}

Engine::Engine(std::shared_ptr<const EngineState> state) : state_(std::move(state)) {}

std::shared_ptr<EngineState> make_engine_state(Checkpoint checkpoint, const EngineOptions& options,
                                               ActivationObserver* observer) {
  if (options.threads < 0 || options.threads > 1024) {
    throw Error(ErrorCode::invalid_argument, "threads must be 1 to 1024, found " +
                                                 std::to_string(options.threads) +
                                                 " (--threads); give a number of cores");
  }
  const Isa isa = resolve_isa(options.isa);
  const KernelTable kernels = kernel_table(isa);
  if (options.preprocess) {
    checkpoint.config.preprocessing.pipeline = pipeline_of(*options.preprocess);
  }
  checkpoint = cast_checkpoint(std::move(checkpoint), options.dtype);
  const std::string dtype = main_dtype(checkpoint.table.parameters_by_dtype());
  ModelOptions build;
  std::map<std::string, int64_t> declined;
  build.policy = MatmulPolicy{
      options.matmul, resolve_compute(options, isa, dtype), isa, observer, options.prepack,
      &declined};
  build.resolution = options.resolution;
  build.on_progress = options.on_progress;
  const int threads = options.threads == 0 ? default_thread_count() : options.threads;
  auto state = std::make_shared<EngineState>(EngineState{build_model(std::move(checkpoint), build),
                                                         kernels,
                                                         std::make_unique<ThreadPool>(threads),
                                                         {}});
  if (state->model.language && state->model.checkpoint.tokenizer) {
    state->locations = location_ids(*state->model.checkpoint.tokenizer);
  }
  const std::filesystem::path masks = options.mask_decoder.empty()
                                          ? MaskDecoder::find_beside(state->model.checkpoint.path)
                                          : options.mask_decoder;
  if (!masks.empty()) state->mask_decoder = MaskDecoder::open(masks);
  state->info = describe(state->model);
  state->info.has_mask_decoder = state->mask_decoder.has_value();
  for (std::string& remark : declined_remarks(declined)) {
    state->info.warnings.push_back(std::move(remark));
  }
  state->info.isa = isa_name(isa);
  state->info.matmul = backend_name(options.matmul);
  state->info.compute = compute_name(build.policy.compute);
  if (options.dtype == WeightType::f32) state->info.dtype = "f32";
  state->info.threads = state->pool->size();
  return state;
}

Engine Engine::open(const std::filesystem::path& model, const EngineOptions& options) {
  const Stopwatch load;
  auto state = make_engine_state(
      open_checkpoint(model, {options.mmap, options.tokenizer, options.task_style}), options);
  state->info.load_ms = load.ms();
  return Engine(std::move(state));
}

const ModelInfo& Engine::info() const { return state_->info; }

Result Engine::run(const Request& request) const {
  return std::move(run(std::span<const Request>(&request, 1)).front());
}

std::vector<Result> Engine::run(std::span<const Request> requests) const {
  std::vector<CheckedRequest> checked;
  for (const Request& request : requests) {
    checked.push_back(check_request(*state_, request, request.images.size()));
  }
  std::vector<Result> results;
  for (size_t first = 0; first < requests.size();) {
    // Beam searches run alone; the others share a decoder.
    size_t count = 1;
    if (checked[first].run.options.beams == 1) {
      while (count < kBatch && first + count < requests.size() &&
             checked[first + count].run.options.beams == 1) {
        ++count;
      }
    }
    std::vector<Tensor> prefixes;
    std::vector<const Image*> images;
    std::vector<double> vision_ms;
    for (size_t i = first; i < first + count; ++i) {
      const Stopwatch vision;
      const Tensor visual =
          encode_images(*state_, state_->context(), requests[i].images, requests[i].region);
      vision_ms.push_back(vision.ms());
      prefixes.push_back(build_prefix(*state_, visual.view(), checked[i].prompt_ids));
      images.push_back(requests[i].images.empty() ? nullptr : requests[i].images.data());
    }
    std::vector<Result> group =
        generate_results(*state_, std::span(checked).subspan(first, count), prefixes, images);
    for (size_t i = 0; i < count; ++i) {
      group[i].timing.vision_ms = vision_ms[i];
      results.push_back(std::move(group[i]));
    }
    first += count;
  }
  return results;
}

Session Engine::start(std::span<const Image> images) const {
  auto state = std::make_unique<SessionState>();
  state->engine = state_;
  state->images.assign(images.begin(), images.end());
  if (!images.empty() && state_->model.vision && !state_->model.language) {
    throw Error(ErrorCode::unsupported, "a " + state_->info.family + " model writes no text (" +
                                            state_->info.path + "); use embed or classify");
  }
  if (!images.empty()) require_projected_vision(*state_);
  const Stopwatch vision;
  state->visual = encode_images(*state_, state_->context(), images);
  state->vision_ms = vision.ms();
  return Session(std::move(state));
}

std::vector<Score> Engine::score(const Request& request, std::span<const std::string> texts,
                                 const ScoreOptions& options) const {
  const CheckedRequest checked = check_request(*state_, request, request.images.size());
  const Tensor visual = encode_images(*state_, state_->context(), request.images, request.region);
  const Tensor prefix = build_prefix(*state_, visual.view(), checked.prompt_ids);
  return score_texts(*state_, prefix.view(), texts, options);
}

Session::Session(std::unique_ptr<SessionState> state) : state_(std::move(state)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

namespace {

void refuse_images(const Request& request) {
  if (!request.images.empty()) {
    throw Error(ErrorCode::invalid_argument,
                "a session has its images already (Request::images); leave them out");
  }
}

}  // namespace

Result Session::run(const Request& request) const {
  refuse_images(request);
  const CheckedRequest checked = check_request(*state_->engine, request, state_->images.size());
  std::vector<Tensor> prefix;
  prefix.push_back(build_prefix(*state_->engine, state_->visual.view(), checked.prompt_ids));
  const Image* image = state_->images.empty() ? nullptr : state_->images.data();
  std::vector<Result> results =
      generate_results(*state_->engine, {&checked, 1}, prefix, {&image, 1});
  results[0].timing.vision_ms = state_->vision_ms;
  return std::move(results[0]);
}

std::vector<Score> Session::score(const Request& request, std::span<const std::string> texts,
                                  const ScoreOptions& options) const {
  refuse_images(request);
  const CheckedRequest checked = check_request(*state_->engine, request, state_->images.size());
  const Tensor prefix = build_prefix(*state_->engine, state_->visual.view(), checked.prompt_ids);
  return score_texts(*state_->engine, prefix.view(), texts, options);
}

}  // namespace pali
