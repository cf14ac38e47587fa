// Hugging Face's tokenizer.json, read into what the families here need of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.hpp"
#include "text/bpe.hpp"

namespace pali {

// BPE with marks for spaces (Gemma's kind: PaliGemma, SigLIP 2, T5Gemma 2), or unigram with
// Metaspace (T5, mT5, umT5).
struct TokenizerJson {
  enum class Kind { bpe, unigram };
  Kind kind = Kind::bpe;
  std::vector<std::string> pieces;  // by id; empty: an id without a piece
  std::vector<AddedToken> added;
  // BPE
  std::vector<BpeMerge> merges;
  BpeOptions bpe;
  bool lower_case = false;  // before spaces become marks
  // Unigram
  std::vector<float> scores;
  int32_t unknown = 0;
  bool byte_fallback = false;
  std::string charsmap;  // sentencepiece's compiled normalisation table; may be empty
};

// Sizes, ids, texts and the steps around the model are checked. Throws Error: corrupt_file, or
// unsupported, which names the step that is not known here.
TokenizerJson read_tokenizer_json(std::string_view text, const std::string& where);

// The SentencePiece model of a unigram tokenizer.json: pieces with scores, the table, T5's
// treatment of spaces. Special tokens are control pieces in it, so that no text becomes one.
std::string unigram_model_bytes(const TokenizerJson& tokenizer);

}  // namespace pali
