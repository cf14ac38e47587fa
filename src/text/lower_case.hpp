// Unicode lower case without a locale, as Python's str.lower(): SigLIP's text processing needs it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pali {

// Invalid bytes stay as they are.
std::string lower_case(std::string_view text);

// Reads one code point at text[position] and steps over it; an invalid byte is returned as
// kInvalid, one byte at a time.
inline constexpr uint32_t kInvalid = 0xffffffffu;
uint32_t next_code_point(std::string_view text, size_t& position);

}  // namespace pali
