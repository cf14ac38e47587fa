// Tiny models of random weights and pictures made in memory.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "pali/pali.hpp"
#include "support/paths.hpp"
#include "support/temp_folder.hpp"

namespace pali::testing {

using test::TempFolder;

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

}  // namespace pali::testing
