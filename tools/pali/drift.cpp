#include "drift.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace pali::bench {
namespace {

using Logits = std::vector<std::vector<float>>;

// The logits of each token of `text`, in turn.
Logits logits_of(const Engine& engine, const Request& request, const std::string& text) {
  Logits logits;
  ScoreOptions options;
  options.on_logits = [&](size_t, std::span<const float> row) {
    logits.emplace_back(row.begin(), row.end());
  };
  engine.score(request, std::span(&text, 1), options);
  return logits;
}

double log_sum_exp(std::span<const float> logits) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - most);
  return most + std::log(sum);
}

auto best(std::span<const float> logits) {
  return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

double ratio(double part, int64_t whole) {
  return whole > 0 ? part / static_cast<double>(whole) : 0;
}

}  // namespace

StepDrift compare(std::span<const float> reference, std::span<const float> other) {
  const double from = log_sum_exp(reference), to = log_sum_exp(other);
  double kl = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double log_p = reference[i] - from, p = std::exp(log_p);
    if (p > 0) kl += p * (log_p - (other[i] - to));  // 0 log 0 = 0
  }
  return {best(reference) == best(other), std::max(kl, 0.0)};
}

void Drift::add(const StepDrift& step) {
  ++steps;
  agreeing += step.agrees;
  kl_sum += step.kl;
  kl_max = std::max(kl_max, step.kl);
}

void Drift::add(const Drift& other) {
  requests += other.requests;
  same_answers += other.same_answers;
  steps += other.steps;
  agreeing += other.agreeing;
  kl_sum += other.kl_sum;
  kl_max = std::max(kl_max, other.kl_max);
}

double Drift::same_share() const { return ratio(static_cast<double>(same_answers), requests); }
double Drift::top1_agreement() const { return ratio(static_cast<double>(agreeing), steps); }
double Drift::kl_mean() const { return ratio(kl_sum, steps); }

Drift drift(const Engine& reference, const Engine& other, Request request) {
  request.generation.beams = request.generation.n_best = 1;
  request.generation.temperature = 0;
  Drift result;
  const std::string answer = reference.run(request).text;
  result.requests = 1;
  result.same_answers = answer == other.run(request).text;
  const Logits expected = logits_of(reference, request, answer);
  const Logits found = logits_of(other, request, answer);
  if (expected.size() != found.size() ||
      (!found.empty() && expected[0].size() != found[0].size())) {
    throw Error(ErrorCode::invalid_argument,
                "the two models have different vocabularies (--drift-from); give one model in two "
                "precisions");
  }
  for (size_t i = 0; i < found.size(); ++i) result.add(compare(expected[i], found[i]));
  return result;
}

}  // namespace pali::bench
