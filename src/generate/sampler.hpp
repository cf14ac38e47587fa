// Choosing the next token by chance: temperature, then top-k, then top-p, as transformers does.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "generate/random.hpp"
#include "model/lm_head.hpp"
#include "pali/options.hpp"

namespace pali {

// The sampler of one request. Keeps its scratch between tokens; not thread-safe.
class Sampler {
 public:
  // `options` checked, temperature > 0.
  explicit Sampler(const GenerationOptions& options);

  // Draws from the V logits of one step. The log-probability returned is the model's own (softmax
  // of the raw logits), whatever the temperature. Throws Error(corrupt_file) for a logit that is
  // not finite: only weights make those.
  ScoredToken sample(std::span<const float> logits);

  // The ids that the last sample() chose among, ascending.
  std::span<const int32_t> kept() const { return kept_; }

 private:
  void keep_top_k();
  void keep_top_p();

  double temperature_;
  int top_k_;
  double top_p_;
  Random random_;
  std::vector<double> weights_;  // by id: exp((logit - largest) / temperature)
  std::vector<double> scratch_;
  std::vector<int32_t> kept_;
};

}  // namespace pali
