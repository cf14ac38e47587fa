#include "text/bpe.hpp"

#include <algorithm>
#include <functional>
#include <queue>

#include "text/lower_case.hpp"

namespace pali {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

uint64_t pair_of(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

std::optional<uint8_t> byte_of(std::string_view piece) {
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : piece.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9', letter = c >= 'A' && c <= 'F';
    if (!digit && !letter) return std::nullopt;
    value = value * 16 + (digit ? c - '0' : c - 'A' + 10);
  }
  return static_cast<uint8_t>(value);
}

}  // namespace

// A piece in the making; a list, linked by indices. id -1: merged into the one before.
struct Bpe::Symbol {
  int32_t id = -1;
  int32_t previous = -1, next = -1;
};

Bpe::Bpe(const std::vector<std::string>& pieces, const std::vector<BpeMerge>& merges,
         const BpeOptions& options)
    : options_(options) {
  bytes_.fill(-1);
  for (size_t id = 0; id < pieces.size(); ++id) {
    const std::string& piece = pieces[id];
    if (piece.empty()) continue;
    if (const auto byte = byte_of(piece)) bytes_[*byte] = static_cast<int32_t>(id);
    if (piece.size() > 4) continue;
    size_t end = 0;
    const uint32_t character = next_code_point(piece, end);
    if (end == piece.size() && character != kInvalid) {
      characters_.emplace(character, static_cast<int32_t>(id));
    }
  }
  rules_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    rules_.push_back({pair_of(merges[rank].left, merges[rank].right), static_cast<int32_t>(rank),
                      merges[rank].merged});
  }
  // A pair listed twice: the later one counts, as in the reference's map.
  std::sort(rules_.begin(), rules_.end(), [](const Rule& a, const Rule& b) {
    return a.pair != b.pair ? a.pair < b.pair : a.rank > b.rank;
  });
  rules_.erase(std::unique(rules_.begin(), rules_.end(),
                           [](const Rule& a, const Rule& b) { return a.pair == b.pair; }),
               rules_.end());
}

const Bpe::Rule* Bpe::rule(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  const auto found =
      std::lower_bound(rules_.begin(), rules_.end(), pair,
                       [](const Rule& rule, uint64_t wanted) { return rule.pair < wanted; });
  return found != rules_.end() && found->pair == pair ? &*found : nullptr;
}

// Ref: merge_word in tokenizers' models/bpe/model.rs: characters, else bytes, else the unknown.
std::vector<Bpe::Symbol> Bpe::symbols(std::string_view text) const {
  std::vector<Symbol> list;
  const auto add = [&](int32_t id) {
    const auto at = static_cast<int32_t>(list.size());
    if (at > 0) list.back().next = at;
    list.push_back({id, at - 1, -1});
  };
  bool unknown = false;  // one is waiting for its run to end
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    uint32_t character = next_code_point(text, at);
    std::string_view bytes = text.substr(begin, at - begin);
    if (character == kInvalid) character = 0xfffd, bytes = kReplacement;
    if (const auto known = characters_.find(character); known != characters_.end()) {
      if (unknown) add(*options_.unknown);
      unknown = false;
      add(known->second);
      continue;
    }
    const bool by_bytes = options_.byte_fallback &&
                          std::all_of(bytes.begin(), bytes.end(),
                                      [&](char c) { return bytes_[static_cast<uint8_t>(c)] >= 0; });
    if (by_bytes) {
      for (const char c : bytes) add(bytes_[static_cast<uint8_t>(c)]);
    } else if (options_.unknown) {
      if (unknown && !options_.fuse_unknown) add(*options_.unknown);
      unknown = true;
    }
  }
  if (unknown) add(*options_.unknown);
  return list;
}

// Ref: Word::merge_all in tokenizers' models/bpe/word.rs: lowest rank first, then leftmost.
void Bpe::encode(std::string_view text, std::vector<int32_t>& ids) const {
  std::vector<Symbol> list = symbols(text);
  struct Candidate {
    int32_t rank, at, merged;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](int32_t at) {
    if (at < 0 || list[static_cast<size_t>(at)].next < 0) return;
    const Symbol& left = list[static_cast<size_t>(at)];
    const Rule* found = rule(left.id, list[static_cast<size_t>(left.next)].id);
    if (found != nullptr) queue.push({found->rank, at, found->merged});
  };
  for (size_t at = 0; at < list.size(); ++at) offer(static_cast<int32_t>(at));
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Symbol& left = list[static_cast<size_t>(best.at)];
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = list[static_cast<size_t>(left.next)];
    // Either half may have changed since; as in the reference, what counts is what they become.
    const Rule* now = rule(left.id, right.id);
    if (now == nullptr || now->merged != best.merged) continue;
    left.id = best.merged;
    right.id = -1;
    left.next = right.next;
    if (left.next >= 0) list[static_cast<size_t>(left.next)].previous = best.at;
    offer(left.previous);
    offer(best.at);
  }
  for (const Symbol& symbol : list) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
}

}  // namespace pali
