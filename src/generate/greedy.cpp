// Greedy search and sampling: the best, or a drawn, token a step, for several requests at once.
#include <numeric>
#include <optional>
#include <utility>

#include "generate/generate.hpp"
#include "generate/hypothesis.hpp"
#include "generate/sampler.hpp"

namespace pali {
namespace {

// One request on its way; `request` is its place in the caller's order.
struct Live {
  size_t request = 0;
  int32_t last = 0;  // what the decoder is fed next
};

class GreedySearch {
 public:
  GreedySearch(const Context& context, Decoder& decoder, const SpecialTokens& special,
               std::span<const GenerationRun> runs);
  std::vector<Hypothesis> run();

 private:
  void drop_stopped();
  void choose(ConstMat hidden);
  void accept(const ScoredToken& token, Live& live);
  void leave_batch();

  const Context& context_;
  Decoder& decoder_;
  const SpecialTokens special_;
  std::span<const GenerationRun> runs_;
  std::vector<Hypothesis> hypotheses_;            // by request
  std::vector<std::optional<Sampler>> samplers_;  // by request; none: greedy
  std::vector<bool> ended_;                       // by request
  std::vector<Live> live_;                        // by decoder sequence
  std::vector<int32_t> ids_, source_;
  std::vector<ScoredToken> chosen_;
  Tensor logits_;  // [1, V], where anybody samples
};

GreedySearch::GreedySearch(const Context& context, Decoder& decoder, const SpecialTokens& special,
                           std::span<const GenerationRun> runs)
    : context_(context),
      decoder_(decoder),
      special_(special),
      runs_(runs),
      hypotheses_(runs.size()),
      samplers_(runs.size()),
      ended_(runs.size()) {
  PALI_ASSERT(decoder.batch() == static_cast<int64_t>(runs.size()));
  for (size_t r = 0; r < runs.size(); ++r) {
    if (runs[r].options.temperature > 0) samplers_[r].emplace(runs[r].options);
    if (samplers_[r] && logits_.empty()) logits_ = Tensor(1, decoder.head().vocab());
    live_.push_back({r, special.start});
  }
  chosen_.resize(runs.size());
}

std::vector<Hypothesis> GreedySearch::run() {
  for (drop_stopped(); !live_.empty(); drop_stopped()) {
    ids_.clear();
    for (const Live& live : live_) ids_.push_back(live.last);
    choose(decoder_.step(context_, ids_));
    for (size_t b = 0; b < live_.size(); ++b) accept(chosen_[b], live_[b]);
    leave_batch();
  }
  for (size_t r = 0; r < runs_.size(); ++r) {
    Hypothesis& hypothesis = hypotheses_[r];
    hypothesis.logprob =
        std::accumulate(hypothesis.token_logprobs.begin(), hypothesis.token_logprobs.end(), 0.0);
    hypothesis.score = length_normalised(hypothesis.logprob, hypothesis.tokens.size(),
                                         runs_[r].options.length_penalty);
  }
  return std::move(hypotheses_);
}

void GreedySearch::drop_stopped() {
  for (const Live& live : live_) {
    if (!runs_[live.request].stop.stop_requested()) continue;
    hypotheses_[live.request].finish = FinishReason::cancelled;
    ended_[live.request] = true;
  }
  leave_batch();
}

// Neighbours that search greedily share one vocabulary product; each that samples or is constrained
// takes its row.
void GreedySearch::choose(ConstMat hidden) {
  const LmHead& head = decoder_.head();
  const auto samples = [&](size_t b) { return samplers_[live_[b].request].has_value(); };
  const auto constrained = [&](size_t b) {
    return static_cast<bool>(runs_[live_[b].request].allowed);
  };
  for (size_t b = 0; b < live_.size();) {
    size_t count = 1;
    if (samples(b)) {
      head.full(context_, hidden.rows_from(static_cast<int64_t>(b), 1), logits_.view());
      chosen_[b] = samplers_[live_[b].request]->sample(std::as_const(logits_).view().row_span(0));
    } else if (constrained(b)) {
      const size_t r = live_[b].request;
      head.argmax(context_, hidden.rows_from(static_cast<int64_t>(b), 1),
                  std::span(chosen_).subspan(b, 1), runs_[r].allowed(hypotheses_[r].tokens));
    } else {
      while (b + count < live_.size() && !samples(b + count) && !constrained(b + count)) ++count;
      head.argmax(context_, hidden.rows_from(static_cast<int64_t>(b), static_cast<int64_t>(count)),
                  std::span(chosen_).subspan(b, count));
    }
    b += count;
  }
}

void GreedySearch::accept(const ScoredToken& token, Live& live) {
  const GenerationRun& run = runs_[live.request];
  Hypothesis& hypothesis = hypotheses_[live.request];
  hypothesis.tokens.push_back(token.id);
  hypothesis.token_logprobs.push_back(token.logprob);
  live.last = token.id;
  const bool go_on = !run.on_token || run.on_token(token.id, token.logprob);
  if (token.id == special_.end) {
    hypothesis.finish = FinishReason::stop;
  } else if (!go_on) {
    hypothesis.finish = FinishReason::cancelled;
  } else if (hypothesis.tokens.size() >= static_cast<size_t>(run.options.max_tokens)) {
    hypothesis.finish = FinishReason::length;
  } else {
    return;
  }
  ended_[live.request] = true;
}

void GreedySearch::leave_batch() {
  source_.clear();
  for (size_t b = 0; b < live_.size(); ++b) {
    if (!ended_[live_[b].request]) source_.push_back(static_cast<int32_t>(b));
  }
  if (source_.size() == live_.size()) return;
  std::erase_if(live_, [&](const Live& live) { return ended_[live.request]; });
  if (!live_.empty()) decoder_.reorder(source_);
}

}  // namespace

std::vector<Hypothesis> generate_greedy(const Context& context, Decoder& decoder,
                                        const SpecialTokens& special,
                                        std::span<const GenerationRun> runs) {
  return GreedySearch(context, decoder, special, runs).run();
}

}  // namespace pali
