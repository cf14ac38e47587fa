// A small tree in place of "/", removed with the test.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "support/temp_folder.hpp"

namespace pali::test {

class SystemTree : public testing::Test {
 protected:
  void put(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

 private:
  TempFolder folder_;

 protected:
  const std::filesystem::path root_ = folder_.path();
};

}  // namespace pali::test
