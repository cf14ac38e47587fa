// What must hold for the bytes of a SentencePiece model before sentencepiece itself may see them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace pali {

struct SentencePieceFacts {
  int32_t pieces = 0;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
};

// sentencepiece follows the offsets of the normaliser's compiled table, and the table may print
// and throw on odd pieces, without checking them (0.1.97). Here they are checked: the protocol
// buffer's structure, pieces (text, finite score, known kind), and every link of the table. Throws
// Error(corrupt_file).
SentencePieceFacts check_sentencepiece_model(std::span<const std::byte> model,
                                             const std::string& where);

}  // namespace pali
