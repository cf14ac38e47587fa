// Weights in another storage type than the file's, made at load.
#pragma once

#include <optional>

#include "model/assemble.hpp"
#include "pali/options.hpp"

namespace pali {

// What tensors are stored as; empty: each as it is.
std::optional<DType> storage_of(WeightType type);

// automatic and f32 keep the file's own bytes: widening bf16 and f16 to f32 is exact, so the
// products do it on the fly. bf16, int8 and int4 round what the provenance table allows, into
// memory of their own: the bits that `pali convert --dtype` writes.
Checkpoint cast_checkpoint(Checkpoint checkpoint, WeightType type);

}  // namespace pali
