// What tokenizers must know of Unicode: code points, white space, and lower case without a locale.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pali {

// Greek sigma at the end of a word: its own small letter, as Python's str.lower() gives it, or the
// common one, where each character is taken by itself (Hugging Face's Lowercase).
enum class FinalSigma { own, common };

// Invalid bytes stay as they are.
std::string lower_case(std::string_view text, FinalSigma sigma = FinalSigma::own);

// Reads one code point at text[position] and steps over it; an invalid byte is returned as
// kInvalid, one byte at a time.
inline constexpr uint32_t kInvalid = 0xffffffffu;
uint32_t next_code_point(std::string_view text, size_t& position);

// Length of the white space at text[position] that sentencepiece's own normalisers turn into a
// space, 0 where there is none. U+000B is none of it: they drop it.
size_t white_space_at(std::string_view text, size_t position);

}  // namespace pali
