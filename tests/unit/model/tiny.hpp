// Tiny models made in memory from a config.json's text: random weights, no files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "exec/context.hpp"
#include "model/assemble.hpp"
#include "support/temp_folder.hpp"

namespace pali::test {

// Odd sizes on purpose: no width is a multiple of a vector register.
std::string t5_json(const std::string& extra = "");      // 2 + 3 layers, width 18, heads 3 x 10
std::string siglip_json(const std::string& extra = "");  // two towers, width 12 and 10
std::string pali3_json();
// SigLIP tower, Gemma 2 of 3 layers, width 12, heads 4 x 6 over 2 of keys, window 3, both soft
// caps.
std::string paligemma_json(const std::string& text_extra = "");

Checkpoint tiny_checkpoint(const std::string& config, uint64_t seed, DType dtype = DType::f32);
Model tiny_model(const std::string& config, uint64_t seed);

// Scalar kernels on `threads` threads.
struct TestContext {
  explicit TestContext(int threads = 1);
  ThreadPool pool;
  KernelTable kernels;
  Tracer tracer;
  Context context;
};

Tensor random_matrix(int64_t rows, int64_t cols, uint64_t seed, float scale = 1.0f);
std::vector<float> flat(ConstMat values);

void write_text(const std::filesystem::path& file, const std::string& text);

// The one line of an Error thrown by `body`, checked to be one line that says what to do.
struct Caught {
  ErrorCode code;
  std::string what;
};
template <class Body>
Caught caught(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {ErrorCode::internal, "nothing was thrown"};
}

}  // namespace pali::test
