// Goldens of tests/data: loading, comparing, and a table of the largest errors seen.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor.hpp"
#include "io/json.hpp"
#include "io/weight_store.hpp"

namespace pali::parity {

std::filesystem::path data_dir();                          // tests/data
std::filesystem::path model_dir(const std::string& name);  // tests/data/models/NAME
std::filesystem::path image_file(const std::string& name);

// golden.json and golden.safetensors of a folder; `golden_of` in the JSON leads to another one.
class Golden {
 public:
  static Golden of_model(const std::string& name);
  // tests/data/PATH.json and .safetensors; an empty one is left out.
  static Golden of_files(const std::string& json, const std::string& tensors);

  const Json& json() const { return json_; }
  bool has(const std::string& name) const { return tensors_.find(name) != nullptr; }
  const StoredTensor& tensor(const std::string& name) const;  // throws std::runtime_error
  std::span<const float> values(const std::string& name) const;
  std::span<const uint8_t> bytes(const std::string& name) const;
  // Names that start with `prefix`, the prefix taken off.
  std::vector<std::string> names(const std::string& prefix) const;

 private:
  Json json_;
  WeightStore tensors_;
};

std::vector<int32_t> ids(const Json& list);

// Largest |a - b| over the largest |b|. NaN counts as infinite.
double relative_error(std::span<const float> found, std::span<const float> expected);
std::vector<float> flat(ConstMat values);

// Bounds, relative to the largest element of the reference.
// f32 sums of at most 768 terms in another order: sqrt(768) * 2^-24 = 1.7e-6 a product in the mean;
// the deepest stage here is behind some 30 of them, and norms and softmax pass errors on at about
// their relative size. Measured: see the table that this program prints.
inline constexpr double kPixelBound = 1e-6;      // one multiplication and one division
inline constexpr double kStageBound = 2e-5;      // hidden states
inline constexpr double kEmbeddingBound = 2e-4;  // pooled embeddings: the project's promise
inline constexpr double kLogprobBound = 1e-4;    // absolute, of one token or of a sum: the promise

double stage_bound(std::string_view stage);

// Compares and records; `where` names model and case in messages. The figures are printed at exit.
void expect_stage(const std::string& where, const std::string& stage, std::span<const float> found,
                  std::span<const float> expected);
void expect_logprob(const std::string& where, const std::string& what, double found,
                    double expected);
void record(const std::string& figure, double error);

}  // namespace pali::parity
