// The safetensors container: a strict reader of headers, and a writer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.hpp"

namespace pali {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // offsets into the data part
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  // by ascending offset
  std::map<std::string, std::string> metadata;
  int64_t data_offset = 0;  // of the data part in the file
};

// Strict: header length within the file and 100 MB, offsets cover the data exactly once (no gap, no
// overlap, no trailing byte), shapes times dtype match, no unknown dtype, no name twice. Throws
// Error(corrupt_file) naming file, tensor, expected and found.
SafetensorsHeader parse_safetensors(std::span<const std::byte> file, const std::string& where);

// One tensor to write: `bytes()` is called when its turn comes, so that not all need be in memory.
struct SafetensorsOutput {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::function<void(std::span<std::byte> out)> fill;
};

// Writes beside `path` and renames; data of every tensor 64-byte aligned in the file (the header is
// padded with spaces; tensors are ordered so that no gap is needed, see models/FORMAT.md). A
// failure leaves nothing behind. Throws Error.
void write_safetensors(const std::filesystem::path& path,
                       const std::vector<SafetensorsOutput>& tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace pali
