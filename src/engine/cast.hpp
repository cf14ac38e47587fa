// Weights in another storage type than the file's, made at load.
#pragma once

#include "model/assemble.hpp"
#include "pali/options.hpp"

namespace pali {

// automatic and f32 keep the file's own bytes: widening bf16 and f16 to f32 is exact, so the
// products do it on the fly. bf16 rounds what the provenance table allows (round to nearest even),
// into memory of its own. int8, int4: Error(unsupported).
Checkpoint cast_checkpoint(Checkpoint checkpoint, WeightType type);

}  // namespace pali
