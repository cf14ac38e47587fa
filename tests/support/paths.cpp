#include "support/paths.hpp"

namespace pali::test {

std::filesystem::path source(std::string_view name) {
  return std::filesystem::path(PALI_SOURCE_DIR) / name;
}

std::filesystem::path data(std::string_view name) { return source("tests/data") / name; }

}  // namespace pali::test
