// Whole models of random weights, stage by stage.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "bench_rows.hpp"

namespace pali::bench {

struct ModelBench {
  std::filesystem::path config;
  std::string stage = "model";  // vision, encode, decode, or model: all of them
  int64_t resolution = 0;       // 0: the config's own
  int tokens = 16;              // decoded, after the first step
  int prompt_tokens = 16;
  int beams = 1;
  int runs = 3;
  EngineOptions options;  // threads, isa, matmul, dtype (f32 or bf16), compute
  std::function<void(const std::string&)> on_progress;
};

// Rows vision, encode, prefill (cross-attention keys and values), decode_step, total; those that
// the config has and the stage asks for. Throws pali::Error.
std::vector<Row> bench_model(const ModelBench& bench);

}  // namespace pali::bench
