// Arithmetic that greedy search, sampling and beam search share.
#pragma once

#include <cmath>
#include <cstddef>

namespace pali {

// Ref: transformers' beam search: sum of logprobs / generated length ^ length_penalty. The length
// counts the end token, not the decoder's start token.
inline double length_normalised(double logprob, size_t length, double length_penalty) {
  if (logprob == 0 || length == 0) return logprob;  // 0 / 0 with a very negative penalty
  return logprob / std::pow(static_cast<double>(length), length_penalty);
}

}  // namespace pali
