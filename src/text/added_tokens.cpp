#include "text/added_tokens.hpp"

#include <algorithm>
#include <functional>
#include <utility>

#include "text/lower_case.hpp"

namespace pali {
namespace {

size_t space_at(std::string_view text, size_t at) {
  return text[at] == '\v' ? 1 : white_space_at(text, at);
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& text = tokens_[i].text;
    if (text.empty() || !by_text_.emplace(text, i).second) continue;
    std::vector<uint16_t>& lengths = lengths_[static_cast<uint8_t>(text[0])];
    const auto length = static_cast<uint16_t>(text.size());
    const auto place =
        std::lower_bound(lengths.begin(), lengths.end(), length, std::greater<uint16_t>());
    if (place == lengths.end() || *place != length) lengths.insert(place, length);
  }
}

const AddedToken* AddedTokens::find(std::string_view text, size_t at) const {
  for (const uint16_t length : lengths_[static_cast<uint8_t>(text[at])]) {
    if (length > text.size() - at) continue;
    const auto found = by_text_.find(text.substr(at, length));
    if (found != by_text_.end()) return &tokens_[found->second];
  }
  return nullptr;
}

size_t AddedTokens::space_begin(std::string_view text, size_t lowest, size_t at) {
  // White space has at most three bytes; none of its characters ends another.
  const auto before = [&](size_t end) -> size_t {
    for (size_t size = 1; size <= 3 && size <= end - lowest; ++size) {
      if (space_at(text, end - size) == size) return size;
    }
    return 0;
  };
  for (size_t size = before(at); size > 0; size = before(at)) at -= size;
  return at;
}

size_t AddedTokens::space_end(std::string_view text, size_t at) {
  while (at < text.size()) {
    const size_t size = space_at(text, at);
    if (size == 0) break;
    at += size;
  }
  return at;
}

}  // namespace pali
