// SentencePiece models made by hand, right and wrong ones.
#pragma once

#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

#include "text/lower_case.hpp"
#include "text/tokenizer.hpp"

namespace pali::test {

inline std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out += static_cast<char>(value);
}
inline std::string number_field(int number, uint64_t value) {
  return varint(static_cast<uint64_t>(number) << 3) + varint(value);
}
inline std::string bytes_field(int number, std::string_view bytes) {
  return varint(static_cast<uint64_t>(number) << 3 | 2) + varint(bytes.size()) + std::string(bytes);
}
inline std::string float_field(int number, float value) {
  std::string out = varint(static_cast<uint64_t>(number) << 3 | 5);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int i = 0; i < 4; ++i) out += static_cast<char>(bits >> (8 * i) & 0xff);
  return out;
}

// type: 1 normal, 2 unknown, 3 control, 4 user defined, 6 byte.
inline std::string piece(std::string_view text, float score = 0, int type = 1) {
  return bytes_field(1, bytes_field(1, text) + float_field(2, score) +
                            number_field(3, static_cast<uint64_t>(type)));
}
inline std::string specials() {
  return piece("<pad>", 0, 3) + piece("</s>", 0, 3) + piece("<unk>", 0, 2);
}

// <pad> </s> <unk>, the 256 bytes, and three ordinary pieces.
inline constexpr int32_t kFirstByteId = 3;
inline std::string byte_model() {
  std::string model = specials();
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    model += piece(name, 0, 6);
  }
  model += piece("\xe2\x96\x81", -1) + piece("a", -2) + piece("b", -3);
  return model + bytes_field(2, number_field(35, 1));  // trainer_spec.byte_fallback
}

inline Tokenizer from_bytes(std::string_view model) {
  return Tokenizer::from_bytes(std::as_bytes(std::span(model.data(), model.size())), {},
                               "spiece.model");
}

}  // namespace pali::test
