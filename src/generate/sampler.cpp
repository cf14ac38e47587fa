#include "generate/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>

#include "pali/error.hpp"

namespace pali {

Sampler::Sampler(const GenerationOptions& options)
    : temperature_(options.temperature),
      top_k_(options.top_k),
      top_p_(options.top_p),
      random_(options.seed) {}

ScoredToken Sampler::sample(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  weights_.resize(logits.size());
  double raw_total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (!std::isfinite(logits[i])) {
      throw Error(ErrorCode::corrupt_file,
                  "logit " + std::to_string(i) +
                      " is not a finite number (weights of the language model); get the file anew");
    }
    const double distance = static_cast<double>(logits[i]) - largest;
    raw_total += std::exp(distance);
    weights_[i] = std::exp(distance / temperature_);
  }
  kept_.resize(logits.size());
  std::iota(kept_.begin(), kept_.end(), 0);
  if (top_k_ > 0 && static_cast<size_t>(top_k_) < kept_.size()) keep_top_k();
  if (top_p_ < 1.0) keep_top_p();

  // In the order of ids, so that a filter that removes nothing changes nothing.
  double total = 0;
  for (const int32_t id : kept_) total += weights_[static_cast<size_t>(id)];
  double left = random_.uniform() * total;
  int32_t chosen = -1;
  for (const int32_t id : kept_) {
    const double weight = weights_[static_cast<size_t>(id)];
    if (weight <= 0) continue;
    chosen = id;  // the last one possible, should rounding use up the sum too soon
    if (left < weight) break;
    left -= weight;
  }
  const double distance = static_cast<double>(logits[static_cast<size_t>(chosen)]) - largest;
  return {chosen, static_cast<float>(distance - std::log(raw_total))};
}

// Ref: transformers' TopKLogitsWarper: what is as good as the k-th best stays too.
void Sampler::keep_top_k() {
  scratch_ = weights_;
  const auto kth = scratch_.begin() + (top_k_ - 1);
  std::nth_element(scratch_.begin(), kth, scratch_.end(), std::greater<>());
  const double threshold = *kth;
  std::erase_if(kept_, [&](int32_t id) { return weights_[static_cast<size_t>(id)] < threshold; });
}

// Ref: transformers' TopPLogitsWarper: a token stays while the ones before it, best first, hold
// less than p of what top-k left; the best one always stays. Ties go to the lower id.
void Sampler::keep_top_p() {
  double total = 0;
  for (const int32_t id : kept_) total += weights_[static_cast<size_t>(id)];
  const auto worse = [&](int32_t a, int32_t b) {
    const double wa = weights_[static_cast<size_t>(a)], wb = weights_[static_cast<size_t>(b)];
    return wa < wb || (wa == wb && a > b);
  };
  // A heap, not a sort: of a large vocabulary only the few best are ever looked at.
  std::make_heap(kept_.begin(), kept_.end(), worse);
  auto end = kept_.end();
  double before = 0;
  do {
    std::pop_heap(kept_.begin(), end, worse);
    --end;
    before += weights_[static_cast<size_t>(*end)];
  } while (end != kept_.begin() && before < top_p_ * total);
  kept_.erase(kept_.begin(), end);
  std::sort(kept_.begin(), kept_.end());
}

}  // namespace pali
