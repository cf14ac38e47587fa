// Where the tests' files lie. One source knows the folder, so that all others compile the same in
// every clone (and a compiler cache serves them).
#pragma once

#include <filesystem>
#include <string_view>

namespace pali::test {

std::filesystem::path source(std::string_view name);  // in the source tree
std::filesystem::path data(std::string_view name);    // in tests/data

}  // namespace pali::test
