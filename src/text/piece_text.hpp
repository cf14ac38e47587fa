// Decoded text in the making, where characters may come byte by byte.
#pragma once

#include <string>

namespace pali {

// Ids into text, one by one: what Tokenizer::decode does to all of them.
struct PieceText {
  std::string text;   // grows only at its end
  std::string bytes;  // byte pieces that may still become a character
  bool first = true;  // no piece with text seen yet
};

// Moves what is settled of byte pieces into the text: whole characters, and U+FFFD for bytes that
// can become none. `at_end` settles the rest.
void settle_bytes(PieceText& decoded, bool at_end);

}  // namespace pali
