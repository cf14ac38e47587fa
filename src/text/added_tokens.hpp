// Whole strings that stand for one token and are found before a text is taken to pieces.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace pali {

// One of tokenizer.json's "added_tokens".
struct AddedToken {
  std::string text;
  int32_t id = 0;
  bool special = true;      // left out of decoded text
  bool strip_left = false;  // swallows the white space before it
  bool strip_right = false;
  bool normalized = false;  // found in the text after normalisation, not before
};

// Finds the leftmost, then longest token, as the AddedVocabulary of Hugging Face's tokenizers does.
// Immutable.
class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens);

  // Calls on_text(segment) and on_token(id) in the order of the text; no empty segments.
  template <class OnText, class OnToken>
  void split(std::string_view text, OnText on_text, OnToken on_token) const {
    size_t done = 0;
    for (size_t at = 0; at < text.size();) {
      const AddedToken* token = find(text, at);
      if (token == nullptr) {
        ++at;
        continue;
      }
      const size_t begin = token->strip_left ? space_begin(text, done, at) : at;
      at += token->text.size();
      if (token->strip_right) at = space_end(text, at);
      if (begin > done) on_text(text.substr(done, begin - done));
      on_token(token->id);
      done = at;
    }
    if (done < text.size()) on_text(text.substr(done));
  }

 private:
  const AddedToken* find(std::string_view text, size_t at) const;
  static size_t space_begin(std::string_view text, size_t lowest, size_t at);
  static size_t space_end(std::string_view text, size_t at);

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string_view, size_t> by_text_;  // views into tokens_, which never moves
  std::array<std::vector<uint16_t>, 256> lengths_;        // by first byte: longest first
};

}  // namespace pali
