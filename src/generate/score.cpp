// The log-probability of given texts.
#include "generate/generate.hpp"

namespace pali {

std::vector<std::vector<float>> score_targets(const Context& context, Decoder& decoder,
                                              const SpecialTokens& special,
                                              std::span<const std::vector<int32_t>> targets,
                                              const OnLogits& on_logits) {
  PALI_ASSERT(decoder.batch() == 1);
  std::vector<std::vector<float>> logprobs(targets.size());
  std::vector<size_t> live;  // by decoder sequence: the target it reads
  for (size_t i = 0; i < targets.size(); ++i) {
    logprobs[i].reserve(targets[i].size());
    if (!targets[i].empty()) live.push_back(i);
  }
  if (live.empty()) return logprobs;
  decoder.reorder(std::vector<int32_t>(live.size(), 0));

  std::vector<int32_t> ids(live.size(), special.start), wanted, source;
  std::vector<float> found;
  LmHead::SeeLogits see;
  if (on_logits) {
    see = [&](size_t b, std::span<const float> logits) { on_logits(live[b], logits); };
  }
  for (size_t step = 0; !live.empty(); ++step) {
    wanted.clear();
    for (const size_t i : live) wanted.push_back(targets[i][step]);
    found.resize(live.size());
    const ConstMat hidden = decoder.step(context, ids);
    decoder.head().logprob(context, hidden, wanted, found, see);

    std::vector<size_t> next;
    source.clear();
    ids.clear();
    for (size_t b = 0; b < live.size(); ++b) {
      logprobs[live[b]].push_back(found[b]);
      if (step + 1 == targets[live[b]].size()) continue;
      source.push_back(static_cast<int32_t>(b));
      ids.push_back(wanted[b]);
      next.push_back(live[b]);
    }
    if (next.size() != live.size() && !next.empty()) decoder.reorder(source);
    live = std::move(next);
  }
  return logprobs;
}

}  // namespace pali
