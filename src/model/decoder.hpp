// The seam between models and generation: a decoder advances B sequences one token at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/tensor.hpp"
#include "exec/context.hpp"
#include "model/lm_head.hpp"

namespace pali {

// The state of one generation run. Made by LanguageModel::start for R requests, one sequence each;
// sequences may then be multiplied, permuted and dropped by reorder(). Not thread-safe.
class Decoder {
 public:
  virtual ~Decoder() = default;
  // Number of live sequences B. Starts as the number of requests.
  virtual int64_t batch() const = 0;
  // Feeds ids[b] to sequence b; returns the hidden states [B, D] that LmHead takes. The view is
  // valid until the next call. The first step is fed each model's start token.
  virtual ConstMat step(const Context& context, std::span<const int32_t> ids) = 0;
  // New sequence i continues what sequence source[i] was (same request: same memory). The new batch
  // is source.size(), at most the capacity given to start(). Caches are not copied, indices are.
  virtual void reorder(std::span<const int32_t> source) = 0;
  // As start() left it: prefixes stay, what was fed since is forgotten.
  virtual void restart() = 0;
  virtual const LmHead& head() const = 0;
};

struct DecoderLimits {
  int64_t max_steps = 1;      // tokens fed to a sequence, at most
  int64_t max_sequences = 1;  // live sequences, at most (requests * beams)
};

// A language model as generation sees it: encoder-decoder or prefix-LM. Immutable.
class LanguageModel {
 public:
  virtual ~LanguageModel() = default;
  virtual int64_t width() const = 0;  // D
  virtual int64_t vocab() const = 0;  // V
  virtual int32_t start_token() const = 0;
  virtual int32_t end_token() const = 0;
  // Embeds token ids into out [ids.size(), D] as the model's input wants them.
  virtual void embed(std::span<const int32_t> ids, Mat out) const = 0;
  // Runs the prefix (visual tokens, then text; [S, D] each, S >= 1) of every request: encoder and
  // cross K/V here. The decoder keeps what it needs; prefixes may go.
  virtual std::unique_ptr<Decoder> start(const Context& context, std::span<const ConstMat> prefixes,
                                         const DecoderLimits& limits) const = 0;
};

}  // namespace pali
