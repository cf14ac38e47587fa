// score --drift-from: the requests of a file by two models, and the report.
#pragma once

#include <map>
#include <string>

#include "batch_line.hpp"
#include "drift.hpp"

namespace pali::cli {

using DriftByTask = std::map<std::string, bench::Drift>;

// Every line of a file as `batch` reads it. Ends early where interrupted. Throws Error with the
// line where one cannot be answered.
DriftByTask drift_over(const Engine& reference, const Engine& other, const std::string& path,
                       const BatchDefaults& defaults);

// A line a task, and all of them together.
std::string to_text(const DriftByTask& by_task);
Json to_json(const DriftByTask& by_task);

}  // namespace pali::cli
