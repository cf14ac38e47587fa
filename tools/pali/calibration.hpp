// Requests that a model is calibrated on.
#pragma once

#include <string>

#include "arguments.hpp"

namespace pali::cli {

// Runs the lines of `file` (those of batch) and drops the answers. Throws Error: not_found, and for
// a line that cannot be run its number.
void run_requests(const Engine& engine, const std::string& file, const OutputArguments& output);

}  // namespace pali::cli
