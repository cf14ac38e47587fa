// A read-only file in memory: mapped, or read where mapping is not wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace pali {

class MappedFile {
 public:
  // Throws Error: not_found, invalid_argument (a folder), corrupt_file (empty file).
  static MappedFile open(const std::filesystem::path& path, bool use_mmap = true);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  bool mapped_ = false;
};

// The whole of a small file (configs, tokenizers). Throws as MappedFile::open, and corrupt_file
// where it is larger than max_bytes.
std::vector<std::byte> read_file(const std::filesystem::path& path, int64_t max_bytes);
std::string read_text_file(const std::filesystem::path& path, int64_t max_bytes);

}  // namespace pali
