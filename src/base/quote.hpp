// Names out of files, made fit for a one-line message: control characters escaped, long ones cut.
#pragma once

#include <string>
#include <string_view>

namespace pali {

inline std::string quote(std::string_view name) {
  constexpr size_t kLongest = 160;
  constexpr char kHex[] = "0123456789abcdef";
  std::string text = "'";
  for (const char c : name.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      text += "\\x";
      text += kHex[byte >> 4];
      text += kHex[byte & 15];
    } else {
      text += c;
    }
  }
  if (name.size() > kLongest) text += "...";
  return text + "'";
}

}  // namespace pali
