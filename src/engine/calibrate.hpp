// Rounding to integers by what the matrices meet in runs of the model.
#pragma once

#include <functional>

#include "model/assemble.hpp"
#include "pali/checkpoint.hpp"

namespace pali {

// The forms, as `dtype` (i8 or i4), of those matrices of `checkpoint` that options.calibrate's
// requests go through and that the provenance table lets be integers: the others stay to plain
// rounding. `open` gives the same checkpoint again: an engine takes one for good. `most_bytes`: of
// moments held at once; a larger model sees its requests several times. Throws Error:
// invalid_argument where no request came.
StoredForms calibrated_forms(const Checkpoint& checkpoint, DType dtype,
                             const ConvertOptions& options, const std::function<Checkpoint()>& open,
                             int64_t most_bytes = int64_t{4} << 30);

}  // namespace pali
