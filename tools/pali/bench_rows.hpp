// Rows of a benchmark's report, and the machine's peaks that they are held against.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "exec/context.hpp"
#include "pali/options.hpp"

namespace pali::bench {

// Attainable peaks of one tier at one thread count, measured in this run.
struct Peaks {
  double gflops_f32 = 0;   // the tier's own f32 tile kernel on operands that stay in L1
  double gflops_bf16 = 0;  // the same in bf16; 0 where the tier has none
  double read_gbps = 0;    // reading 512 MB once
};
Peaks measure_peaks(ThreadPool& pool, const KernelTable& kernels);

// What a piece of work costs, from its shapes alone.
struct Cost {
  double flops = 0;  // two a multiply-add
  double bytes = 0;  // weights and caches that must be read
};

struct Row {
  std::string name, shape, dtype, isa, backend;
  int threads = 1;
  std::vector<double> times_ms;
  Cost cost;
  double peak_gflops = 0, peak_gbps = 0;

  double median_ms() const;
  double gflops() const;
  double gbps() const;
  // The figure over the peak that binds it.
  double share() const;
};

// A table for people, or an array of objects (cli.md); the peak resident size is the last row.
std::string to_text(const std::vector<Row>& rows);
std::string to_json(const std::vector<Row>& rows);
int64_t peak_rss_bytes();

}  // namespace pali::bench
