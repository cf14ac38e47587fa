// Files that appear whole or not at all: written beside their place, then renamed.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace pali {

class OutputFile {
 public:
  // Opens a temporary file in the folder of `path`. Throws Error(invalid_argument).
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();  // removes the temporary where commit() was not reached
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text);
  void commit();  // flush, rename

 private:
  std::filesystem::path path_, temporary_;
  int fd_ = -1;
};

}  // namespace pali
