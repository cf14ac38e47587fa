// Turning a decoder's hidden states into token sequences. Sees decoder.hpp only.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <vector>

#include "model/decoder.hpp"
#include "pali/engine.hpp"
#include "pali/options.hpp"

namespace pali {

struct Hypothesis {
  std::vector<int32_t> tokens;        // the end token included where it came
  std::vector<float> token_logprobs;  // as long as tokens
  double logprob = 0;                 // their sum
  double score = 0;                   // logprob / length^length_penalty
  FinishReason finish = FinishReason::stop;
};

// What generation needs to know of one request of the decoder's batch.
struct GenerationRun {
  GenerationOptions options;                                // checked; max_tokens >= 1
  std::function<bool(int32_t id, float logprob)> on_token;  // false: cancel. May be empty
  std::stop_token stop;
  // The ids that may follow a sequence (ascending, not empty; valid until the next call); none:
  // all. Probabilities are then those among them. Not with sampling.
  std::function<std::span<const int32_t>(std::span<const int32_t> so_far)> allowed = {};
};

struct SpecialTokens {
  int32_t start = 0;
  int32_t end = 1;
};

// Throws Error(invalid_argument) naming the option: beams < 1, n_best > beams, temperature not
// finite or negative, top_p outside (0, 1], top_k < 0, max_tokens < 1, beams with temperature.
void check_options(const GenerationOptions& options);

// Greedy or sampling, several requests at once: runs[r] is decoder sequence r. Requests that end
// leave the batch. One hypothesis a request.
std::vector<Hypothesis> generate_greedy(const Context& context, Decoder& decoder,
                                        const SpecialTokens& special,
                                        std::span<const GenerationRun> runs);

// Beam search of one request (decoder batch 1), the hypotheses of transformers' generate
// (num_beams, early_stopping=False): best first, options.n_best of them.
std::vector<Hypothesis> generate_beam(const Context& context, Decoder& decoder,
                                      const SpecialTokens& special, const GenerationRun& run);

// Sees the logits of the whole vocabulary that the next token of targets[i] is chosen from.
using OnLogits = std::function<void(size_t i, std::span<const float> logits)>;

// log P of each token of `targets[i]` (end token included by the caller) given the decoder's one
// request: decoder batch 1, capacity >= targets.size(). out[i] has targets[i].size() entries.
std::vector<std::vector<float>> score_targets(const Context& context, Decoder& decoder,
                                              const SpecialTokens& special,
                                              std::span<const std::vector<int32_t>> targets,
                                              const OnLogits& on_logits = {});

}  // namespace pali
