// Which tokens may come next, so that an answer of boxes or masks is well-formed by construction.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tasks/locations.hpp"

namespace pali {

// Ids of the tokenizer by what they mean to the grammar; each list ascending.
struct GrammarTokens {
  LocationIds locations;
  int32_t end = 1;
  std::vector<int32_t> words;       // text without ";"
  std::vector<int32_t> separators;  // text with ";"
  std::vector<int32_t> spaces;      // white space alone; not among the words
};

// answer: [group {";" group}] end
// group:  y0 x0 y1 x1 with y0 < y1, x0 < x1, with masks 16 codes, then words
// A group is begun only where the tokens left suffice for it. Immutable but for the buffer that
// allowed() returns: one request at a time.
class LocationGrammar {
 public:
  LocationGrammar(GrammarTokens tokens, bool masks, int max_tokens);

  // The fewest tokens that an answer with one group takes, the end token included.
  static int shortest(bool masks);
  // Ids that may follow `so_far`, ascending; valid until the next call. so_far is a sequence that
  // this grammar allowed.
  std::span<const int32_t> allowed(std::span<const int32_t> so_far);

 private:
  std::span<const int32_t> range(int32_t first, int32_t last);  // ids first .. last

  GrammarTokens tokens_;
  bool masks_;
  size_t max_tokens_;
  std::vector<int32_t> buffer_;
  std::vector<int32_t> words_and_end_, all_text_and_end_;
};

}  // namespace pali
