// Checkpoints of big_vision (.npz), which carry no config: what the same model's config.json would
// say, from the shapes of the tensors, and where each canonical tensor lies.
#pragma once

#include <string>
#include <vector>

#include "io/weight_store.hpp"
#include "model/configs/family.hpp"

namespace pali {

// The small files that a Hugging Face folder of the model would have. The file's own name gives the
// resolution where the grid of positions leaves a choice (384 and 378 px are both 27 patches of
// 14). Throws Error: unsupported (neither SigLIP nor PaliGemma), corrupt_file (tensors missing or
// of another rank).
ConfigFiles big_vision_files(const WeightStore& store);

// Gives every row its place in the file instead of its Hugging Face names; optional rows that
// big_vision does not have are dropped.
void use_big_vision_names(const WeightStore& store, std::vector<TensorRule>& rules);

}  // namespace pali
