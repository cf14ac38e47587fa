// A unigram tokenizer.json as the SentencePiece model that it was once made from.
#include <bit>
#include <unordered_set>

#include "text/tokenizer_json.hpp"

namespace pali {
namespace {

// Protocol buffers. Ref: protobuf.dev, "Encoding".
std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out += static_cast<char>(value);
}
std::string number_field(uint64_t field, uint64_t value) {
  return varint(field << 3) + varint(value);
}
std::string bytes_field(uint64_t field, std::string_view bytes) {
  return (varint(field << 3 | 2) + varint(bytes.size())).append(bytes);
}
std::string float_field(uint64_t field, float value) {
  std::string out = varint(field << 3 | 5);
  const auto bits = std::bit_cast<uint32_t>(value);
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(bits >> shift & 0xff);
  return out;
}

}  // namespace

// Ref: sentencepiece_model.proto: pieces (1: text, score, type), trainer_spec (2: model_type 3,
// byte_fallback 35, unk_piece 45), normalizer_spec (3: table 2, dummy prefix 3, extra white space
// 4, spaces as U+2581 5).
std::string unigram_model_bytes(const TokenizerJson& tokenizer) {
  enum : uint64_t { kNormal = 1, kUnknown = 2, kControl = 3, kUnused = 5, kByte = 6 };
  std::unordered_set<int32_t> added;
  for (const AddedToken& token : tokenizer.added) {
    // mT5's sentinels are ordinary pieces with a score of 0, found where their space is.
    const bool scored = static_cast<size_t>(token.id) < tokenizer.scores.size();
    if (token.special || !scored) added.insert(token.id);
  }
  std::string model;
  for (size_t i = 0; i < tokenizer.pieces.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const std::string& piece = tokenizer.pieces[i];
    const bool byte = tokenizer.byte_fallback && piece.size() == 6 && piece.starts_with("<0x");
    const uint64_t type = id == tokenizer.unknown ? kUnknown
                          : added.contains(id)    ? kControl
                          : piece.empty()         ? kUnused
                          : byte                  ? kByte
                                                  : kNormal;
    const float score = i < tokenizer.scores.size() ? tokenizer.scores[i] : 0;
    const std::string text = piece.empty() ? "<id_" + std::to_string(i) + ">" : piece;
    model += bytes_field(1, bytes_field(1, text) + float_field(2, score) + number_field(3, type));
  }
  model +=
      bytes_field(2, number_field(3, 1) + number_field(35, tokenizer.byte_fallback ? 1 : 0) +
                         bytes_field(45, tokenizer.pieces[static_cast<size_t>(tokenizer.unknown)]));
  std::string normalizer = bytes_field(1, "tokenizer.json");
  if (!tokenizer.charsmap.empty()) normalizer += bytes_field(2, tokenizer.charsmap);
  normalizer += number_field(3, 1) + number_field(4, 1) + number_field(5, 1);
  return model + bytes_field(3, normalizer);
}

}  // namespace pali
