// Single products and attentions of given shapes on random operands.
#pragma once

#include <string>
#include <vector>

#include "bench_setup.hpp"

namespace pali::bench {

struct ProductBench {
  std::vector<std::string> shapes;  // empty: those of the models
  int runs = 9;
  EngineOptions options;  // dtype and matmul automatic: all of them, side by side
  Progress on_progress;
  std::vector<std::string> remarks;  // out: what was left out, and why
};

// Rows gemm_f32, gemm_bf16, gemm_int8 (by what is multiplied), or gemv for up to eight rows of x;
// shape MxNxK, dtype of the weights. Backends take turns within each round, the peaks with them,
// and weights are read from memory: copies of them pass by, a gigabyte together. Throws Error.
std::vector<Row> bench_matmul(ProductBench& bench);

// Rows attention: shape is tokens x heads x head width.
std::vector<Row> bench_attention(ProductBench& bench);

}  // namespace pali::bench
