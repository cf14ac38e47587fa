// Files that appear whole or not at all: written beside their place, then renamed.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string_view>

namespace pali {

class OutputFile {
 public:
  // Where `path` leads: links are followed, and what they point to is replaced, not they.
  static std::filesystem::path place_of(const std::filesystem::path& path);

  // Opens a temporary file in the folder of place_of(path). Throws Error(invalid_argument), also
  // where a device or a pipe stands there.
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
