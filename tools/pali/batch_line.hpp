// One line of `batch` input: what it asks for.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "arguments.hpp"

namespace pali::cli {

struct BatchDefaults {
  GenerationArguments generation;
  ImageOptions images;
  std::filesystem::path root;  // of relative image paths
};

struct BatchLine {
  Json id;  // null where there is none
  std::vector<std::string> paths;
  Request request;
  std::set<std::string> unknown;  // fields that mean nothing here
};

// Fills `line` as far as it gets, the id first; all but the images. Throws Error.
void read_words(const std::string& text, const BatchDefaults& defaults, BatchLine& line);
void load_images(const BatchDefaults& defaults, BatchLine& line);
// Both.
void read_line(const std::string& text, const BatchDefaults& defaults, BatchLine& line);

}  // namespace pali::cli
