// Rotary position embedding: pairs of a head's values turned by an angle that grows with position.
#pragma once

#include <cstdint>
#include <span>

#include "base/tensor.hpp"
#include "exec/context.hpp"

namespace pali {

struct RopeSpec {
  float theta = 0;   // base of the frequencies; 0: no rotation
  float factor = 1;  // "linear" scaling: positions are divided by it
  bool operator==(const RopeSpec&) const = default;
};

// Cosines and sines of positions first, first + 1, ...: [positions, Hd/2] each.
struct RopeTable {
  Tensor cosines, sines;
};
// Ref: compute_default_rope_parameters and _compute_linear_scaling_rope_parameters in transformers:
// angle(p, i) = p / (theta^(2i/Hd) * factor), in f32 as there. head_dim even.
RopeTable rope_table(const RopeSpec& spec, int64_t head_dim, int64_t first, int64_t positions);

// x [M, H*Hd], in place: value i of a head is paired with i + Hd/2 (half-split,
// apply_rotary_pos_emb in modeling_gemma.py). Row m takes the angles of the table's row rows[m].
void rope(const Context& context, const RopeTable& table, std::span<const int32_t> rows, Mat x);

}  // namespace pali
