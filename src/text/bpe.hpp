// Byte-pair encoding by the ranks of its merges, as Hugging Face's tokenizers runs it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace pali {

// "left right" of the list of merges, and the piece that they become; the list's order is the rank.
struct BpeMerge {
  int32_t left = 0, right = 0, merged = 0;
};

struct BpeOptions {
  std::optional<int32_t> unknown;
  bool fuse_unknown = false;   // a run of unknown characters is one token
  bool byte_fallback = false;  // a character without a piece becomes its bytes' pieces "<0xE2>"
};

// Why not sentencepiece: it merges any two neighbours whose joined text is a piece, leftmost first
// among equal scores; a list of merges names the pairs and ranks each. A list that is not the full
// set of splits of every piece, or ranks two splits of one piece apart, has no equal among scores.
// Immutable; const methods may run concurrently.
class Bpe {
 public:
  // pieces[id]: its text, empty where the id is unused. Ids in `merges` are inside `pieces`.
  Bpe(const std::vector<std::string>& pieces, const std::vector<BpeMerge>& merges,
      const BpeOptions& options);

  // Appends the ids of a normalised text. Bytes that are no UTF-8 count as U+FFFD each.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;

 private:
  struct Rule {
    uint64_t pair = 0;  // left << 32 | right
    int32_t rank = 0, merged = 0;
  };
  struct Symbol;
  const Rule* rule(int32_t left, int32_t right) const;
  std::vector<Symbol> symbols(std::string_view text) const;

  BpeOptions options_;
  std::unordered_map<uint32_t, int32_t> characters_;  // code point -> piece
  std::array<int32_t, 256> bytes_{};                  // "<0xNN>", -1 where absent
  std::vector<Rule> rules_;                           // by pair
};

}  // namespace pali
