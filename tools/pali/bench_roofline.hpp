// The machine's own peaks.
#pragma once

#include <string>
#include <vector>

#include "bench_setup.hpp"

namespace pali::bench {

struct Roofline {
  std::vector<Row> rows;
  std::string text;  // the same for people
};

// Rows `peak` (shape: the instruction; isa: the unit) and `read` (shape: how; read on ordinary and
// on huge pages), of one thread and of all; and `fork_join`. Every unit the CPU has, whatever the
// tier.
Roofline bench_roofline(const EngineOptions& options, int runs);

}  // namespace pali::bench
