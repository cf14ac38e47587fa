#include "parity/golden.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <stdexcept>

#include "support/paths.hpp"

namespace pali::parity {
namespace {

std::map<std::string, double>& figures() {
  static std::map<std::string, double> table;
  return table;
}

class Figures : public ::testing::Environment {
 public:
  void TearDown() override {
    if (figures().empty()) return;
    std::printf("largest errors (stages: of the largest element; logprob: absolute)\n");
    for (const auto& [name, error] : figures()) std::printf("  %-28s %.2e\n", name.c_str(), error);
  }
};
const auto* const kFigures = ::testing::AddGlobalTestEnvironment(new Figures);

// "image0/vision.block.3" -> "vision.block.3": one line of the table a stage.
std::string without_prefix(const std::string& stage) {
  const auto slash = stage.rfind('/');
  return slash == std::string::npos ? stage : stage.substr(slash + 1);
}

}  // namespace

std::filesystem::path data_dir() { return test::data(""); }
std::filesystem::path model_dir(const std::string& name) { return data_dir() / "models" / name; }
std::filesystem::path image_file(const std::string& name) { return data_dir() / "images" / name; }

Golden Golden::of_model(const std::string& name) {
  Json json = read_json_file(model_dir(name) / "golden.json");
  if (json.contains("golden_of")) return of_model(json["golden_of"].get<std::string>());
  if (json.at("format").get<int>() != 1) throw std::runtime_error("unknown format of " + name);
  Golden golden;
  golden.json_ = std::move(json);
  golden.tensors_ = WeightStore::open_safetensors(model_dir(name) / "golden.safetensors");
  return golden;
}

Golden Golden::of_files(const std::string& json, const std::string& tensors) {
  Golden golden;
  if (!json.empty()) golden.json_ = read_json_file(data_dir() / json);
  if (!tensors.empty()) golden.tensors_ = WeightStore::open_safetensors(data_dir() / tensors);
  return golden;
}

const StoredTensor& Golden::tensor(const std::string& name) const {
  const StoredTensor* found = tensors_.find(name);
  if (found == nullptr) throw std::runtime_error("no golden tensor " + name);
  return *found;
}

std::span<const float> Golden::values(const std::string& name) const {
  const StoredTensor& t = tensor(name);
  if (t.dtype != DType::f32) throw std::runtime_error(name + " is not f32");
  // The writer of the goldens aligns the data to 8 bytes.
  return {reinterpret_cast<const float*>(t.data), static_cast<size_t>(t.elements())};
}

std::span<const uint8_t> Golden::bytes(const std::string& name) const {
  const StoredTensor& t = tensor(name);
  if (t.dtype != DType::u8) throw std::runtime_error(name + " is not u8");
  return {reinterpret_cast<const uint8_t*>(t.data), static_cast<size_t>(t.bytes)};
}

std::vector<std::string> Golden::names(const std::string& prefix) const {
  std::vector<std::string> out;
  for (const auto& [name, tensor] : tensors_.tensors()) {
    if (name.starts_with(prefix)) out.push_back(name.substr(prefix.size()));
  }
  return out;
}

std::vector<int32_t> ids(const Json& list) { return list.get<std::vector<int32_t>>(); }

double relative_error(std::span<const float> found, std::span<const float> expected) {
  constexpr double kInfinite = std::numeric_limits<double>::infinity();
  if (found.size() != expected.size()) return kInfinite;
  double worst = 0, largest = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double difference = std::abs(double{found[i]} - double{expected[i]});
    if (!(difference <= worst)) worst = std::isnan(difference) ? kInfinite : difference;
    largest = std::max(largest, std::abs(double{expected[i]}));
  }
  return largest > 0 ? worst / largest : worst;
}

std::vector<float> flat(ConstMat values) {
  std::vector<float> out;
  out.reserve(static_cast<size_t>(values.rows * values.cols));
  for (int64_t i = 0; i < values.rows; ++i) {
    const auto row = values.row_span(i);
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

double stage_bound(std::string_view stage) {
  if (stage.ends_with("pixels")) return kPixelBound;
  if (stage.ends_with("pooled")) return kEmbeddingBound;
  return kStageBound;
}

void record(const std::string& figure, double error) {
  double& worst = figures()[figure];
  worst = std::max(worst, error);
}

void expect_stage(const std::string& where, const std::string& stage, std::span<const float> found,
                  std::span<const float> expected) {
  ASSERT_EQ(found.size(), expected.size()) << where << ": elements of stage " << stage;
  const double error = relative_error(found, expected);
  record(without_prefix(stage), error);
  EXPECT_LE(error, stage_bound(stage)) << where << ": stage " << stage;
}

void expect_logprob(const std::string& where, const std::string& what, double found,
                    double expected) {
  const double error = std::abs(found - expected);
  record("logprob", std::isnan(error) ? std::numeric_limits<double>::infinity() : error);
  EXPECT_NEAR(found, expected, kLogprobBound) << where << ": " << what;
}

}  // namespace pali::parity
