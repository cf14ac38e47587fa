// Text to ids and back: SentencePiece models and Hugging Face's tokenizer.json, special tokens on
// top. tokenizer.cpp is the one file that knows sentencepiece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/piece_text.hpp"

namespace pali {

struct TokenizerOptions {
  // T5 appends 100 <extra_id_N> after the last piece, descending, unless the model has them inside.
  int extra_ids = 0;
};

// Immutable; const methods may run concurrently.
class Tokenizer {
 public:
  // A SentencePiece .model file, a tokenizer.json, or the bytes of either. A tokenizer.json of the
  // unigram kind is run by sentencepiece, one of the BPE kind by the ranks of its merges. Throws
  // Error: not_found, corrupt_file, unsupported (a tokenizer.json of another construction).
  static Tokenizer open(const std::filesystem::path& path, const TokenizerOptions& options = {});
  static Tokenizer from_bytes(std::span<const std::byte> model, const TokenizerOptions& options,
                              const std::string& where);
  // The tokenizer of a model folder, or of the folder a model file lies in: the first of
  // tokenizer.model, spiece.model, paligemma_tokenizer.model, tokenizer.json. Empty path where
  // there is none.
  static std::filesystem::path find_beside(const std::filesystem::path& model);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  int32_t size() const;    // pieces and extra ids
  int32_t pad_id() const;  // -1 where there is none, as the other three
  int32_t eos_id() const;
  int32_t bos_id() const;
  int32_t unk_id() const;

  // Ids of `text` without begin and end tokens. <extra_id_N>, the model's own pad, begin, end and
  // unknown strings ("</s>") and the added tokens of a tokenizer.json are found as whole strings,
  // as transformers does it; T5's swallow the spaces around them. Throws Error(internal).
  std::vector<int32_t> encode(std::string_view text) const;
  // The id whose piece has exactly this text.
  std::optional<int32_t> id_of(std::string_view piece) const;
  // Text of ids; special tokens (pad, eos, unknown, extra ids) and ids without a piece are left
  // out. Byte pieces that form no UTF-8 become U+FFFD.
  std::string decode(std::span<const int32_t> ids) const;
  // Byte offset in decode(ids) at which each id's own text ends: offsets.size() == ids.size(). A
  // byte piece in the middle of a character ends where that character begins.
  std::vector<size_t> decode_offsets(std::span<const int32_t> ids) const;
  // The file's bytes, to be put into a checkpoint.
  std::span<const std::byte> model_bytes() const;
  int extra_ids() const;

 private:
  friend std::vector<int32_t> siglip_encode(const Tokenizer& tokenizer, std::string_view text,
                                            int64_t length, int32_t pad);
  friend class StreamDecoder;
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// SigLIP's own text processing: lower-case,
// ASCII punctuation stripped, white space collapsed; then ids + end token, cut to `length` with the
// last one always the end token, padded with `pad`. Ref: SiglipTokenizer.canonicalize_text in
// transformers.
std::vector<int32_t> siglip_encode(const Tokenizer& tokenizer, std::string_view text,
                                   int64_t length, int32_t pad);

// Grows a decoded text by one id at a time and hands out what is new: bytes of an unfinished UTF-8
// character wait for the next call. The tokenizer must outlive it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string_view next(int32_t id);  // valid until the next call

 private:
  const Tokenizer& tokenizer_;
  PieceText decoded_;
  size_t shown_ = 0;
};

}  // namespace pali
