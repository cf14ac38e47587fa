// T5's relative position bias, from a 1-D table by distance instead of an [N, N] matrix a head.
#pragma once

#include <cstdint>

#include "base/tensor.hpp"
#include "base/weight_ref.hpp"

namespace pali {

// Bucket of distance = key position - query position.
// Ref: T5Attention._relative_position_bucket in transformers' modeling_t5.py.
int32_t relative_bucket(int64_t distance, bool bidirectional, int32_t buckets,
                        int32_t max_distance);

// Bias by head and distance: row h holds distances [-left, right], distance d in column d + left.
struct DistanceBias {
  Tensor values;  // [H, left + right + 1]
  int64_t left = 0;
  const float* head(int64_t h) const { return values.row(h) + left; }  // index by signed distance
};

// table: [buckets, H] as transformers stores `relative_attention_bias.weight`.
DistanceBias distance_bias(ConstMat table, bool bidirectional, int32_t max_distance, int64_t left,
                           int64_t right);

}  // namespace pali
