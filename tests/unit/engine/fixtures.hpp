// Tiny models of random weights and pictures made in memory.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pali/pali.hpp"
#include "support/paths.hpp"

namespace pali::testing {

inline std::filesystem::path model(const std::string& name) { return test::data("models") / name; }

// A picture with some structure, different for each seed.
inline Image picture(int seed, int width = 40, int height = 30) {
  std::vector<uint8_t> rgb(static_cast<size_t>(width) * height * 3);
  uint32_t state = static_cast<uint32_t>(seed) * 2654435761u + 1u;
  for (uint8_t& value : rgb) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<uint8_t>(state >> 24);
  }
  return Image::from_rgb(width, height, rgb, "picture" + std::to_string(seed));
}

inline Request ask(int seed, const std::string& prompt = "what is this", int max_tokens = 8) {
  Request request;
  request.images = {picture(seed)};
  request.prompt = prompt;
  request.generation.max_tokens = max_tokens;
  return request;
}

inline EngineOptions threads(int count) {
  EngineOptions options;
  options.threads = count;
  return options;
}

// A folder that goes away with the test.
class ScratchFolder {
 public:
  explicit ScratchFolder(const std::string& name)
      : path_(std::filesystem::temp_directory_path() / ("pali_" + name)) {
    std::filesystem::remove_all(path_);
    std::filesystem::create_directories(path_);
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace pali::testing
