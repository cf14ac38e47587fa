// Safetensors files made by hand, right and wrong ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "io/safetensors.hpp"

namespace pali::test {

inline std::string with_length(uint64_t length, std::string_view header, std::string_view data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(length >> (8 * i) & 0xff);
  file += header;
  return file += data;
}

inline std::string safetensors(std::string_view header, size_t data_bytes) {
  return with_length(header.size(), header, std::string(data_bytes, '\x3f'));
}

inline SafetensorsHeader parse(std::string_view file) {
  return parse_safetensors(std::as_bytes(std::span(file.data(), file.size())), "w.safetensors");
}

}  // namespace pali::test
