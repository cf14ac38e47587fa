// The engine: open a model once, then caption, ask, read, detect, score and embed.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "pali/error.hpp"
#include "pali/export.hpp"
#include "pali/image.hpp"
#include "pali/options.hpp"

namespace pali {

struct EngineState;   // what an Engine holds; private to the library
struct SessionState;  // what a Session holds; private to the library
struct EngineAccess;  // makes Engines; private to the library

// One generated token as it leaves the decoder (streaming).
struct Token {
  int32_t id = 0;
  std::string_view text;  // what it adds to the answer; may be empty (inside a UTF-8 character)
  float logprob = 0;      // natural log of the model's softmax at this token
};

// x0 <= x1, y0 <= y1, in pixels of the image as shown.
struct Region {
  double x0 = 0, y0 = 0, x1 = 0, y1 = 0;
};

struct Request {
  std::vector<Image> images;
  Task task = Task::run;
  // run: the prompt, as given. vqa: the question. detect, segment: "cat ; dog". caption, ocr:
  // unused.
  std::string prompt;
  std::vector<std::string> choices;  // vqa of a model that picks one of several answers
  // caption of a model that describes one part of the image: a frame around it is drawn into what
  // the model sees.
  std::optional<Region> region;
  std::string lang;  // language of the answer for the prompt templates; empty: the model's default
  GenerationOptions generation;
  // Called on the calling thread after each token; false stops the run (FinishReason::cancelled).
  // Greedy and sampling only: beams settle at the end.
  std::function<bool(const Token&)> on_token;
  std::stop_token stop;
};

enum class FinishReason { stop, length, cancelled };
PALI_API const char* to_string(FinishReason reason) noexcept;

struct Candidate {
  std::string text;
  std::vector<int32_t> tokens;  // without the end token
  double logprob = 0;           // sum of natural logs, the end token included where it came
  double score = 0;             // after the length penalty
};

// Pixels of an image, as run lengths: column by column, top to bottom, beginning with outside,
// inside and outside by turns (COCO's order).
struct Mask {
  int width = 0, height = 0;
  std::vector<uint32_t> counts;
};

// A box in pixels of the image as shown (EXIF applied): x0 <= x1, y0 <= y1.
struct Box {
  std::string label;
  double x0 = 0, y0 = 0, x1 = 0, y1 = 0;
  std::optional<double> score;    // geometric mean of its location tokens' probabilities
  std::optional<Mask> mask = {};  // Task::segment
};

// Wall time in milliseconds.
struct Timing {
  double load_ms = 0;       // of Engine::open, as ModelInfo has it
  double vision_ms = 0;     // of this request's images; in a session, of its start
  double prefill_ms = 0;    // of the prefixes of all requests that share a decoder
  double decode_ms = 0;     // of all steps of these requests
  double tokens_per_s = 0;  // of the best answer alone: its tokens over decode_ms
};

struct Result {
  std::string prompt;  // after the template
  std::string text;
  std::vector<int32_t> tokens;
  double logprob = 0;
  FinishReason finish = FinishReason::stop;
  std::vector<Candidate> candidates;  // best first; n_best of them where beams > 1
  std::vector<Box> boxes;             // Task::detect, Task::segment
  int invalid_boxes = 0;              // location groups in the text that are no box
  std::vector<std::string> warnings;
  Timing timing;
};

struct Score {
  std::string text;
  std::vector<int32_t> tokens;  // the closing end token included unless left out
  std::vector<float> token_logprobs;
  double logprob = 0;
};

struct ScoreOptions {
  bool end_token = true;  // score the closing end token too
  // Where set: called for each token of each text with the logits of the whole vocabulary that it
  // is chosen from, a text's tokens in turn. The span is good during the call only.
  std::function<void(size_t text, std::span<const float> logits)> on_logits{};
};

struct LabelScore {
  std::string label;
  double probability = 0;  // SigLIP: sigmoid of the logit; language model: softmax over the labels
  double logit = 0;        // SigLIP: the logit; language model: the label's log-probability
};

// A matrix of visual tokens, row-major.
struct TokenEmbeddings {
  int64_t rows = 0, columns = 0;
  std::vector<float> values;
};

struct ModelInfo {
  std::string format;  // "huggingface", "pali", "big_vision"
  std::string family;  // "pali3", "pali3-vit", "paligemma", "siglip", "t5", "t5gemma2", ...
  std::string path;
  int64_t parameters = 0;                       // tied tensors once
  std::map<std::string, int64_t> dtypes;        // parameters by storage type
  std::map<std::string, int64_t> memory_bytes;  // "weights": of all tensors, as stored
  std::string config_json;                      // the configuration as understood
  std::string task_style;                       // "pt", "mix", "ft-vqav2"; may be empty
  std::map<std::string, std::string> prompts;   // templates of the tasks it knows
  bool has_mask_decoder = false;
  std::string isa, dtype, compute, preprocess;  // as used
  std::string matmul;                           // as asked for; what it declines stands in warnings
  int threads = 1;
  int64_t image_size = 0;  // side in pixels that images are resized to; 0: no vision
  bool has_vision = false, has_language = false, has_text_tower = false;
  double load_ms = 0;
  std::vector<std::string> warnings;
};

// Images seen once, for several questions. Cheap to move; keeps its engine alive. One thread at a
// time; different sessions may run concurrently.
class PALI_API Session {
 public:
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;
  ~Session();
  // As Engine::run, with the session's images; request.images must be empty.
  Result run(const Request& request) const;
  std::vector<Score> score(const Request& request, std::span<const std::string> texts,
                           const ScoreOptions& options = {}) const;

 private:
  friend class Engine;
  explicit Session(std::unique_ptr<SessionState> state);
  std::unique_ptr<SessionState> state_;
};

// Immutable after open; copies share the model; const methods may run concurrently.
class PALI_API Engine {
 public:
  // A Hugging Face model folder, a pali checkpoint (.safetensors), a file of big_vision (.npz), or
  // a name of the hub ("google/flan-t5-small") that lies in the local cache. Throws Error.
  static Engine open(const std::filesystem::path& model, const EngineOptions& options = {});

  const ModelInfo& info() const;

  Result run(const Request& request) const;
  // Several requests; those that can share a decoder batch do. Results in the requests' order.
  // The first request that fails throws; use run(request) to isolate failures.
  std::vector<Result> run(std::span<const Request> requests) const;
  Session start(std::span<const Image> images) const;
  // log P(text | images, prompt) of each text, in the order given.
  std::vector<Score> score(const Request& request, std::span<const std::string> texts,
                           const ScoreOptions& options = {}) const;
  // Labels in the order given. SigLIP: zero-shot probabilities; else by score.
  std::vector<LabelScore> classify(const Image& image, std::span<const std::string> labels) const;
  // Pooled embedding of the two-tower head, before normalisation. Throws unsupported where the
  // model has no such head.
  std::vector<float> embed(const Image& image) const;
  std::vector<float> embed(std::string_view text) const;
  // Visual tokens before pooling [N, Dv], or after the projector [N, D].
  TokenEmbeddings embed_tokens(const Image& image, bool projected = false) const;

 private:
  friend struct EngineAccess;
  explicit Engine(std::shared_ptr<const EngineState> state);
  std::shared_ptr<const EngineState> state_;
};

}  // namespace pali
