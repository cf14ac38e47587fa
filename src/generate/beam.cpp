// Beam search: the hypotheses of transformers' generate(num_beams, early_stopping=False).
// Ref: transformers 5.23, generation/utils.py, _beam_search and its helpers.
#include <algorithm>
#include <cmath>
#include <utility>

#include "generate/generate.hpp"
#include "generate/hypothesis.hpp"

namespace pali {
namespace {

// One token of the tree of hypotheses; a hypothesis is its last token and the way back.
struct Node {
  int32_t parent = -1;
  int32_t id = 0;
  float logprob = 0;
};

struct Beam {
  int32_t node = -1;
  double logprob = 0;
};

// A beam and the token it would go on with.
struct Continuation {
  int32_t beam = 0;
  ScoredToken token;
  double logprob = 0;  // of the whole hypothesis
};

struct Finished {
  int32_t node = -1;
  size_t length = 0;
  double logprob = 0, score = 0;
};

class BeamSearch {
 public:
  BeamSearch(const Context& context, Decoder& decoder, const SpecialTokens& special,
             const GenerationRun& run)
      : context_(context),
        decoder_(decoder),
        special_(special),
        run_(run),
        width_(static_cast<size_t>(run.options.beams)) {
    PALI_ASSERT(decoder.batch() == 1);
  }
  std::vector<Hypothesis> run();

 private:
  void expand(ConstMat hidden);
  std::vector<int32_t> tokens_to(int32_t node) const;
  void finish(const Continuation& from, int32_t node);
  void advance(bool last_step);
  bool can_improve() const;
  Hypothesis unwind(const Finished& finished, bool cancelled) const;
  int32_t add_node(const Continuation& from);

  const Context& context_;
  Decoder& decoder_;
  const SpecialTokens special_;
  const GenerationRun& run_;
  const size_t width_;  // B
  size_t length_ = 0;   // tokens generated so far
  std::vector<Node> nodes_;
  std::vector<Beam> beams_ = {Beam{}};  // running, best first
  std::vector<Finished> finished_;      // best first, at most B
  std::vector<Continuation> continuations_;
  std::vector<ScoredToken> best_;
  std::vector<int32_t> ids_, source_;
};

std::vector<Hypothesis> BeamSearch::run() {
  const size_t max_tokens = static_cast<size_t>(run_.options.max_tokens);
  ids_ = {special_.start};
  bool cancelled = false;
  while (length_ < max_tokens && !beams_.empty()) {
    cancelled = run_.stop.stop_requested();
    if (cancelled) break;
    expand(decoder_.step(context_, ids_));
    ++length_;
    advance(/*last_step=*/length_ == max_tokens);
    if (!can_improve() || length_ == max_tokens) break;
    if (!beams_.empty()) decoder_.reorder(source_);
  }
  if (cancelled) {
    // What there is, running beams as they stand.
    for (const Beam& beam : beams_) {
      finished_.push_back({beam.node, length_, beam.logprob,
                           length_normalised(beam.logprob, length_, run_.options.length_penalty)});
    }
    std::stable_sort(finished_.begin(), finished_.end(),
                     [](const Finished& a, const Finished& b) { return a.score > b.score; });
  }
  std::vector<Hypothesis> hypotheses;
  for (const Finished& finished : finished_) {
    if (hypotheses.size() == static_cast<size_t>(run_.options.n_best)) break;
    hypotheses.push_back(unwind(finished, cancelled));
  }
  return hypotheses;
}

// The 2B best continuations of all beams, best first; ties in the order of beams, then ids. Each
// beam ends at most once, so that at least B of them do not end.
void BeamSearch::expand(ConstMat hidden) {
  const LmHead& head = decoder_.head();
  const int64_t k = std::min<int64_t>(2 * static_cast<int64_t>(width_), head.vocab());
  best_.resize(beams_.size() * static_cast<size_t>(k));
  const auto count = static_cast<size_t>(k);
  if (!run_.allowed) {
    head.top_k(context_, hidden, k, best_);
  } else {
    for (size_t beam = 0; beam < beams_.size(); ++beam) {
      head.top_k(context_, hidden.rows_from(static_cast<int64_t>(beam), 1), k,
                 std::span(best_).subspan(beam * count, count),
                 run_.allowed(tokens_to(beams_[beam].node)));
    }
  }
  continuations_.clear();
  for (size_t i = 0; i < best_.size(); ++i) {
    if (std::isinf(best_[i].logprob)) continue;  // fewer than k are allowed
    const size_t beam = i / count;
    continuations_.push_back({static_cast<int32_t>(beam), best_[i],
                              beams_[beam].logprob + static_cast<double>(best_[i].logprob)});
  }
  std::stable_sort(
      continuations_.begin(), continuations_.end(),
      [](const Continuation& a, const Continuation& b) { return a.logprob > b.logprob; });
  continuations_.resize(std::min(continuations_.size(), 2 * width_));
}

std::vector<int32_t> BeamSearch::tokens_to(int32_t node) const {
  std::vector<int32_t> tokens;
  for (; node >= 0; node = nodes_[static_cast<size_t>(node)].parent) {
    tokens.push_back(nodes_[static_cast<size_t>(node)].id);
  }
  std::reverse(tokens.begin(), tokens.end());
  return tokens;
}

// Only the B best continuations may end, by the end token or because there is no room left; the B
// best of those that do not end run on.
void BeamSearch::advance(bool last_step) {
  std::vector<Beam> next;
  source_.clear();
  ids_.clear();
  for (size_t i = 0; i < continuations_.size(); ++i) {
    const Continuation& from = continuations_[i];
    const bool ends = last_step || from.token.id == special_.end;
    if (ends && i < width_) {
      finish(from, add_node(from));
    } else if (!ends && next.size() < width_) {
      next.push_back({add_node(from), from.logprob});
      source_.push_back(from.beam);
      ids_.push_back(from.token.id);
    }
  }
  beams_ = std::move(next);
}

int32_t BeamSearch::add_node(const Continuation& from) {
  nodes_.push_back(
      {beams_[static_cast<size_t>(from.beam)].node, from.token.id, from.token.logprob});
  return static_cast<int32_t>(nodes_.size()) - 1;
}

// Keeps the B best; of equals the one that ended first stays ahead.
void BeamSearch::finish(const Continuation& from, int32_t node) {
  const double score = length_normalised(from.logprob, length_, run_.options.length_penalty);
  const auto place = std::find_if(finished_.begin(), finished_.end(),
                                  [&](const Finished& other) { return other.score < score; });
  finished_.insert(place, {node, length_, from.logprob, score});
  if (finished_.size() > width_) finished_.pop_back();
}

// The rule of early_stopping=False: stop once B have ended and the best running beam, were it to
// end at its present length, would not beat the worst of them.
bool BeamSearch::can_improve() const {
  if (beams_.empty()) return false;
  if (finished_.size() < width_) return true;
  return length_normalised(beams_.front().logprob, length_, run_.options.length_penalty) >
         finished_.back().score;
}

Hypothesis BeamSearch::unwind(const Finished& finished, bool cancelled) const {
  Hypothesis hypothesis;
  hypothesis.tokens = tokens_to(finished.node);
  for (int32_t node = finished.node; node >= 0; node = nodes_[static_cast<size_t>(node)].parent) {
    hypothesis.token_logprobs.push_back(nodes_[static_cast<size_t>(node)].logprob);
  }
  std::reverse(hypothesis.token_logprobs.begin(), hypothesis.token_logprobs.end());
  hypothesis.logprob = finished.logprob;
  hypothesis.score = finished.score;
  const bool ended = !hypothesis.tokens.empty() && hypothesis.tokens.back() == special_.end;
  hypothesis.finish = ended ? FinishReason::stop : FinishReason::length;
  if (cancelled && !ended) hypothesis.finish = FinishReason::cancelled;
  return hypothesis;
}

}  // namespace

std::vector<Hypothesis> generate_beam(const Context& context, Decoder& decoder,
                                      const SpecialTokens& special, const GenerationRun& run) {
  return BeamSearch(context, decoder, special, run).run();
}

}  // namespace pali
