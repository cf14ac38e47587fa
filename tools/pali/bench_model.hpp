// Whole models of random weights, stage by stage.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "bench_setup.hpp"

namespace pali::bench {

struct ModelBench {
  std::filesystem::path config;
  std::string stage = "model";  // vision, encode, decode, or model: all of them
  int64_t resolution = 0;       // 0: the config's own
  int tokens = 16;              // decoded, after the first step
  int prompt_tokens = 16;
  int beams = 1;
  int runs = 3;
  EngineOptions options;  // threads, isa, matmul, dtype (bf16 where automatic), compute
  Progress on_progress;
  std::vector<std::string> remarks;  // out: what the backend asked for does not multiply, and why
};

// Rows vision, encode, prefill (cross-attention keys and values), decode_step, total; those that
// the config has and the stage asks for. The peaks are measured before and after the runs, without
// holding memory meanwhile: `rss_bytes` receives what the model and its runs took. Throws
// pali::Error.
std::vector<Row> bench_model(ModelBench& bench, int64_t& rss_bytes);

}  // namespace pali::bench
