// How far a model's answers move when its weights or its arithmetic are rounded.
#pragma once

#include <cstdint>
#include <span>

#include "pali/engine.hpp"

namespace pali::bench {

// One step's logits by two models.
struct StepDrift {
  bool agrees = false;  // the most probable token is the same
  double kl = 0;        // KL(reference || other) over the whole vocabulary, in nats
};
// Both of one size, not empty.
StepDrift compare(std::span<const float> reference, std::span<const float> other);

// Sums over requests: steps of the reference's own greedy answers, read by both models.
struct Drift {
  int64_t requests = 0;
  int64_t same_answers = 0;  // greedy answers that are equal to the letter
  int64_t steps = 0;         // tokens of the reference's answers, their closing end tokens too
  int64_t agreeing = 0;
  double kl_sum = 0;
  double kl_max = 0;

  void add(const StepDrift& step);
  void add(const Drift& other);
  double same_share() const;
  double top1_agreement() const;
  double kl_mean() const;
};

// One request by both, greedily whatever it asks for. Throws Error as Engine::run does, and where
// the vocabularies differ.
Drift drift(const Engine& reference, const Engine& other, Request request);

}  // namespace pali::bench
