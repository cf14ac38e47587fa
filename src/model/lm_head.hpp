// The vocabulary product, fused with what its caller wants to know of the logits.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/tensor.hpp"
#include "exec/context.hpp"
#include "matmul/matmul.hpp"

namespace pali {

struct ScoredToken {
  int32_t id = 0;
  float logprob =
      0;  // log-softmax over all V logits (over the allowed ids where such a set is given)
};

// logits = (scale * h) E^T over V tokens, then cap * tanh(logit / cap) where cap > 0. All methods
// take hidden [B, D]; `allowed`, where not empty, is a sorted set of ids: the others count as
// impossible. Ties go to the lower id. Non-finite logits throw Error(corrupt_file): weights made
// them. The table is shared, the buffer of logits is the head's own: one head a decoder, one thread
// at a time.
class LmHead {
 public:
  LmHead(std::shared_ptr<const PackedLinear> table, float scale, float cap = 0);
  int64_t vocab() const;

  // The best token of each row.
  void argmax(const Context& context, ConstMat hidden, std::span<ScoredToken> best,
              std::span<const int32_t> allowed = {}) const;
  // The k best tokens of each row, best first: out[b * k + j]. Where fewer than k are possible, the
  // rest have id 0 and logprob -infinity.
  void top_k(const Context& context, ConstMat hidden, int64_t k, std::span<ScoredToken> out,
             std::span<const int32_t> allowed = {}) const;
  // log P(ids[b]) of each row; `see`, where given, is called with the logits of one row after the
  // other.
  using SeeLogits = std::function<void(size_t b, std::span<const float> logits)>;
  void logprob(const Context& context, ConstMat hidden, std::span<const int32_t> ids,
               std::span<float> out, const SeeLogits& see = {}) const;
  // All logits [B, V].
  void full(const Context& context, ConstMat hidden, Mat logits) const;

 private:
  // Of a block of a row's logits, taken while they are in the cache.
  struct Block {
    float highest = 0;
    float sum = 0;  // of exp(logit - highest)
  };
  // Calls body(b, logits of hidden row b, their blocks) for every row.
  template <class Body>
  void for_each_row(const Context& context, ConstMat hidden, const Body& body) const;
  // Caps the logits and fills blocks_ for each row; throws where one is not finite.
  void scan(const Context& context, Mat logits) const;

  std::shared_ptr<const PackedLinear> table_;
  float scale_ = 1.0f, cap_ = 0;
  mutable Tensor scaled_, logits_;     // [chunk, D], [chunk, V]
  mutable std::vector<Block> blocks_;  // [chunk, ceil(V / block)]
};

}  // namespace pali
