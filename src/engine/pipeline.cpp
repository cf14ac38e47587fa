// The way of the data, from images and a prompt to answers.
#include <algorithm>
#include <cstring>
#include <new>

#include "engine/state.hpp"
#include "image/image.hpp"
#include "tasks/region.hpp"

namespace pali {
namespace {

// Texts that are scored together have so many rows in the decoder's cache at most, each as long as
// the longest: of a UL2-XL 0.8 GB.
constexpr int64_t kScoredRows = 2048;

void copy_rows(ConstMat from, Mat to) {
  for (int64_t i = 0; i < from.rows; ++i) {
    std::memcpy(to.row(i), from.row(i), static_cast<size_t>(from.cols) * sizeof(float));
  }
}

// tokens without the end token, and their text.
Candidate to_candidate(const EngineState& engine, const Hypothesis& hypothesis) {
  Candidate candidate;
  candidate.tokens = hypothesis.tokens;
  if (hypothesis.finish == FinishReason::stop && !candidate.tokens.empty()) {
    candidate.tokens.pop_back();
  }
  candidate.text = engine.tokenizer().decode(candidate.tokens);
  candidate.logprob = hypothesis.logprob;
  candidate.score = hypothesis.score;
  return candidate;
}

Result to_result(const EngineState& engine, const CheckedRequest& request, const Image* image,
                 std::span<const Hypothesis> hypotheses) {
  Result result;
  result.prompt = request.prompt;
  if (hypotheses.empty()) return result;  // cancelled before the first token
  for (const Hypothesis& hypothesis : hypotheses) {
    result.candidates.push_back(to_candidate(engine, hypothesis));
  }
  const Candidate& best = result.candidates.front();
  result.text = best.text;
  result.tokens = best.tokens;
  result.logprob = best.logprob;
  result.finish = hypotheses.front().finish;
  if ((request.task == Task::detect || request.task == Task::segment) && image != nullptr) {
    const std::span<const float> logprobs(hypotheses.front().token_logprobs.data(),
                                          best.tokens.size());
    find_boxes(engine, request, *image, logprobs, result);
  }
  return result;
}

}  // namespace

Tensor encode_images(const EngineState& engine, const Context& context,
                     std::span<const Image> images, const std::optional<Region>& region) {
  if (images.empty()) return {};
  const VisionTower& vision = *engine.model.vision;
  const Preprocessing how = engine.model.checkpoint.config.preprocessing.at(vision.image_size());
  const int64_t count = engine.model.projector->tokens(vision.tokens());  // of an image
  Tensor visual(static_cast<int64_t>(images.size()) * count, engine.model.projector->width());
  for (size_t j = 0; j < images.size(); ++j) {
    Context named = context;
    Tracer prefixed;
    if (context.tracing() && images.size() > 1) {
      prefixed = [&](std::string_view name, ConstMat values) {
        (*context.tracer)("image" + std::to_string(j) + "/" + std::string(name), values);
      };
      named.tracer = &prefixed;
    }
    Tensor pixels = preprocess(images[j], how);
    if (region) frame_region(pixels, how, images[j].width(), images[j].height(), *region);
    const Tensor tokens = vision.run(named, pixels.view());
    const Tensor projected = engine.model.projector->run(named, tokens.view());
    copy_rows(projected.view(), visual.view().rows_from(static_cast<int64_t>(j) * count, count));
  }
  return visual;
}

Tensor build_prefix(const EngineState& engine, ConstMat visual, std::span<const int32_t> ids) {
  const LanguageModel& language = *engine.model.language;
  const auto images = std::count(ids.begin(), ids.end(), kImagePlace);
  const int64_t tokens = images == 0 ? 0 : visual.rows / images;  // of each
  PALI_ASSERT(tokens * images == visual.rows);
  Tensor prefix(visual.rows + static_cast<int64_t>(ids.size()) - images, language.width());
  int64_t row = 0, seen = 0;
  for (auto from = ids.begin(); from != ids.end();) {
    if (*from == kImagePlace) {
      copy_rows(visual.rows_from(seen, tokens), prefix.view().rows_from(row, tokens));
      seen += tokens, row += tokens, ++from;
      continue;
    }
    const auto to = std::find(from, ids.end(), kImagePlace);
    language.embed({from, to}, prefix.view().rows_from(row, to - from));
    row += to - from;
    from = to;
  }
  return prefix;
}

std::vector<Result> generate_results(const EngineState& engine,
                                     std::span<const CheckedRequest> requests,
                                     std::span<const Tensor> prefixes,
                                     std::span<const Image* const> first_images) {
  const Context context = engine.context();
  const LanguageModel& language = *engine.model.language;
  DecoderLimits limits{1, 0};
  std::vector<ConstMat> views;
  std::vector<GenerationRun> runs;
  for (size_t i = 0; i < requests.size(); ++i) {
    const GenerationOptions& options = requests[i].run.options;
    limits.max_steps = std::max<int64_t>(limits.max_steps, options.max_tokens);
    limits.max_sequences += options.beams;
    views.push_back(prefixes[i].view());
    runs.push_back(requests[i].run);
  }
  const Stopwatch prefill;
  const std::unique_ptr<Decoder> decoder = language.start(context, views, limits);
  const double prefill_ms = prefill.ms();

  const Stopwatch decode;
  const SpecialTokens special{language.start_token(), language.end_token()};
  const bool beams = requests.size() == 1 && requests[0].run.options.beams > 1;
  std::vector<std::vector<Hypothesis>> found(requests.size());
  if (beams) {
    found[0] = generate_beam(context, *decoder, special, runs[0]);
  } else {
    std::vector<Hypothesis> greedy = generate_greedy(context, *decoder, special, runs);
    for (size_t i = 0; i < greedy.size(); ++i) found[i].push_back(std::move(greedy[i]));
  }
  const double decode_ms = decode.ms();

  std::vector<Result> results;
  for (size_t i = 0; i < requests.size(); ++i) {
    Result result = to_result(engine, requests[i], first_images[i], found[i]);
    if (result.candidates.empty()) result.finish = FinishReason::cancelled;
    if (!beams) result.candidates.clear();
    const double steps = found[i].empty() ? 0 : static_cast<double>(found[i][0].tokens.size());
    result.timing = {engine.info.load_ms, 0, prefill_ms, decode_ms,
                     decode_ms > 0 ? steps * 1e3 / decode_ms : 0};
    results.push_back(std::move(result));
  }
  return results;
}

std::vector<Score> score_texts(const EngineState& engine, ConstMat prefix,
                               std::span<const std::string> texts, const ScoreOptions& options) {
  const LanguageModel& language = *engine.model.language;
  std::vector<Score> scores;
  std::vector<std::vector<int32_t>> targets;
  int64_t longest = 1;
  for (const std::string& text : texts) {
    Score score{text, engine.tokenizer().encode(text), {}, 0};
    if (score.tokens.size() >= kMaxPromptTokens) {
      throw Error(ErrorCode::invalid_argument,
                  "text of " + std::to_string(score.tokens.size()) + " tokens, at most " +
                      std::to_string(kMaxPromptTokens - 1) + " expected (score); shorten it");
    }
    if (options.end_token) score.tokens.push_back(language.end_token());
    longest = std::max<int64_t>(longest, static_cast<int64_t>(score.tokens.size()));
    targets.push_back(score.tokens);
    scores.push_back(std::move(score));
  }
  const Context context = engine.context();
  const ConstMat prefixes[] = {prefix};
  const SpecialTokens special{language.start_token(), language.end_token()};
  // Equal groups: a short one, of few rows, might be multiplied another way.
  const size_t most = static_cast<size_t>(std::max<int64_t>(kScoredRows / longest, 1));
  const size_t groups = (scores.size() + most - 1) / most;
  std::unique_ptr<Decoder> decoder;
  for (size_t g = 0; g < groups; ++g) {
    const size_t first = scores.size() * g / groups;
    const size_t count = scores.size() * (g + 1) / groups - first;
    if (decoder == nullptr) {
      const size_t largest = (scores.size() + groups - 1) / groups;
      decoder = language.start(context, prefixes, {longest, static_cast<int64_t>(largest)});
    } else {
      decoder->restart();
    }
    OnLogits on_logits;
    if (options.on_logits) {
      on_logits = [&](size_t i, std::span<const float> logits) {
        options.on_logits(first + i, logits);
      };
    }
    std::vector<std::vector<float>> logprobs = score_targets(
        context, *decoder, special, std::span(targets).subspan(first, count), on_logits);
    for (size_t i = 0; i < count; ++i) {
      Score& score = scores[first + i];
      score.token_logprobs = std::move(logprobs[i]);
      for (const float value : score.token_logprobs) score.logprob += value;
    }
  }
  return scores;
}

}  // namespace pali
