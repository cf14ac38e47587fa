#include "text/model_check.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "pali/error.hpp"

namespace pali {
namespace {

constexpr int64_t kLongestModel = 64 << 20;
constexpr int32_t kMostPieces = 4 << 20;
constexpr size_t kLongestPiece = 4096;       // bytes; real ones stay under 100
constexpr size_t kLongestReplacement = 256;  // bytes; nmt_nfkc's longest has 33
// sentencepiece collects the prefixes of a text that it knows in arrays of these sizes, and reads
// beyond them where there are more. Ref: normalizer.cc, kMaxTrieResultsSize and PrefixMatch().
constexpr size_t kMostNormalised = 32;
constexpr size_t kMostUserDefined = 64;

[[noreturn]] void corrupt(const std::string& what, const std::string& where) {
  throw Error(ErrorCode::corrupt_file, "not a usable SentencePiece model: " + what + " (" + where +
                                           "); download the tokenizer again");
}

// Walks over the fields of one protocol buffer message.
// Ref: protobuf.dev, "Encoding"; the fields are those of sentencepiece_model.proto.
class Message {
 public:
  Message(std::string_view bytes, const std::string& where) : rest_(bytes), where_(where) {}

  // Steps to the next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    number = static_cast<int64_t>(key >> 3);
    kind = static_cast<int>(key & 7);
    if (number == 0 || number >= int64_t{1} << 29) corrupt("field number out of range", where_);
    switch (kind) {
      case 0:
        value = varint();
        return true;
      case 1:
        text = take(8);
        return true;
      case 2:
        text = take(varint());
        return true;
      case 5:
        text = take(4);
        return true;
      default:
        corrupt("unknown wire type " + std::to_string(kind), where_);
    }
  }

  float as_float() const {
    uint32_t bits = 0;
    for (int i = 3; i >= 0; --i) bits = bits << 8 | static_cast<uint8_t>(text[i]);
    return std::bit_cast<float>(bits);
  }

  void expect(int wanted, const char* field) const {
    if (kind != wanted) corrupt(std::string("wrong type of field ") + field, where_);
  }

  int64_t number = 0;
  int kind = 0;
  uint64_t value = 0;     // kind 0
  std::string_view text;  // other kinds

 private:
  uint64_t varint() {
    uint64_t result = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      result |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return result;
    }
    corrupt("a number without an end", where_);
  }

  std::string_view take(uint64_t count) {
    if (count > rest_.size()) corrupt("a field reaches beyond the end", where_);
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }

  std::string_view rest_;
  const std::string& where_;
};

// Words of a darts-clone double array: a node's children lie at its base, XOR their label.
bool is_value(uint32_t unit) { return (unit & 0x80000000u) != 0; }
bool has_value(uint32_t unit) { return (unit & 0x100u) != 0; }
size_t base_of(size_t id, uint32_t unit) { return id ^ ((unit >> 10) << ((unit & 0x200u) >> 6)); }

// Nodes may share what follows them, but no path from the root comes back to a node or meets too
// many values. A depth-first search: a node is closed with the most values on a path from it on.
template <class Word>
void check_paths(size_t units, const Word& unit_at, const std::string& where) {
  constexpr uint8_t kNew = 255, kOpen = 254;
  static_assert(kMostNormalised < kOpen);
  struct Step {
    size_t id, label;
    uint8_t most;  // values on a path from here on, as far as seen
  };
  std::vector<uint8_t> state(units, kNew);
  std::vector<Step> path = {{0, 0, 0}};
  state[0] = kOpen;
  while (!path.empty()) {
    Step& step = path.back();
    const uint32_t unit = unit_at(step.id);
    if (step.label == 256) {
      const size_t values = step.most + size_t{has_value(unit) && step.id != 0};
      if (values > kMostNormalised) corrupt("the normalisation table is too deep", where);
      state[step.id] = static_cast<uint8_t>(values);
      path.pop_back();
      if (!path.empty()) path.back().most = std::max(path.back().most, state[step.id]);
      continue;
    }
    const size_t label = step.label++;
    const size_t next = base_of(step.id, unit) ^ label;
    if (is_value(unit_at(next)) || (unit_at(next) & 0xff) != label) continue;
    if (state[next] == kOpen) corrupt("the normalisation table has no end", where);
    if (state[next] == kNew) {
      state[next] = kOpen;
      path.push_back({next, 0, 0});
    } else {
      step.most = std::max(step.most, state[next]);
    }
  }
}

// The compiled normalisation table: u32 size, a darts-clone double array of that many bytes, then
// replacement texts, each ended by a zero byte. Whatever node a search can stand on, all its 256
// children must lie inside, and every value must be an offset into the texts.
// Ref: sentencepiece's normalizer.cc; DoubleArrayUnit in darts-clone's darts.h.
void check_charsmap(std::string_view blob, const std::string& where) {
  if (blob.empty()) return;
  const auto word = [&](size_t index) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(blob.data()) + index * 4;
    return static_cast<uint32_t>(bytes[0]) | static_cast<uint32_t>(bytes[1]) << 8 |
           static_cast<uint32_t>(bytes[2]) << 16 | static_cast<uint32_t>(bytes[3]) << 24;
  };
  const uint32_t trie_bytes = blob.size() < 4 ? 0 : word(0);
  if (trie_bytes < 1024 || trie_bytes % 1024 != 0 || trie_bytes >= blob.size() - 4) {
    corrupt("the normalisation table has a wrong size", where);
  }
  const size_t units = trie_bytes / 4;
  const std::string_view texts = blob.substr(4 + trie_bytes);
  if (texts.back() != '\0') corrupt("the normalisation texts have no end", where);
  for (size_t begin = 0; begin < texts.size();) {
    const size_t end = texts.find('\0', begin);
    if (end - begin > kLongestReplacement) corrupt("a normalisation text is too long", where);
    begin = end + 1;
  }
  for (size_t id = 0; id < units; ++id) {
    const uint32_t unit = word(1 + id);
    // No label equals a value's; but the root is read whatever its label.
    if (id != 0 && is_value(unit)) continue;
    const size_t base = base_of(id, unit);
    if (base >= units) corrupt("the normalisation table points outside itself", where);
    if (has_value(unit) && (word(1 + base) & 0x7fffffffu) >= texts.size()) {
      corrupt("the normalisation table points outside its texts", where);
    }
  }
  check_paths(
      units, [&](size_t id) { return word(1 + id); }, where);
}

void check_normalizer(std::string_view spec, const std::string& where, SentencePieceFacts* facts) {
  Message message(spec, where);
  while (message.next()) {
    switch (message.number) {
      case 2:
        message.expect(2, "precompiled_charsmap");
        check_charsmap(message.text, where);
        break;
      case 3:
      case 4:
      case 5:
        message.expect(0, "normalizer_spec");
        if (facts != nullptr && message.number == 3) facts->add_dummy_prefix = message.value != 0;
        if (facts != nullptr && message.number == 4) {
          facts->remove_extra_whitespaces = message.value != 0;
        }
        if (facts != nullptr && message.number == 5 && message.value == 0) {
          corrupt("spaces are not written as U+2581", where);
        }
        break;
      default:
        break;
    }
  }
}

struct Piece {
  std::string_view text;
  uint64_t kind = 1;
};

Piece check_piece(std::string_view bytes, const std::string& where) {
  Piece piece;
  Message message(bytes, where);
  while (message.next()) {
    if (message.number == 1) {
      message.expect(2, "piece");
      piece.text = message.text;
    } else if (message.number == 2) {
      message.expect(5, "score");
      if (!std::isfinite(message.as_float())) corrupt("a score is not finite", where);
    } else if (message.number == 3) {
      message.expect(0, "type");
      piece.kind = message.value;
    }
  }
  if (piece.text.empty() || piece.text.size() > kLongestPiece ||
      piece.text.find('\0') != std::string_view::npos) {
    corrupt("an empty piece, or one that no text can hold", where);
  }
  if (piece.kind < 1 || piece.kind > 6) corrupt("a piece of unknown type", where);
  const auto is_byte_piece = [&] {
    const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F'); };
    return piece.text.size() == 6 && piece.text.substr(0, 3) == "<0x" && is_hex(piece.text[3]) &&
           is_hex(piece.text[4]) && piece.text[5] == '>';
  };
  if (piece.kind == 6 && !is_byte_piece()) corrupt("a byte piece that names no byte", where);
  return piece;
}

void check_user_defined(std::vector<std::string_view> texts, const std::string& where) {
  std::sort(texts.begin(), texts.end());
  std::vector<std::string_view> prefixes;  // of the text at hand, each of the next
  for (const std::string_view text : texts) {
    while (!prefixes.empty() && !text.starts_with(prefixes.back())) prefixes.pop_back();
    prefixes.push_back(text);
    if (prefixes.size() > kMostUserDefined) {
      corrupt("more than " + std::to_string(kMostUserDefined) +
                  " user-defined pieces, each the beginning of the next",
              where);
    }
  }
}

void check_trainer(std::string_view spec, const std::string& where) {
  Message message(spec, where);
  while (message.next()) {
    if (message.number != 3) continue;
    message.expect(0, "model_type");
    if (message.value < 1 || message.value > 4) corrupt("an unknown model type", where);
  }
}

}  // namespace

SentencePieceFacts check_sentencepiece_model(std::span<const std::byte> model,
                                             const std::string& where) {
  if (model.size() > static_cast<size_t>(kLongestModel)) {
    corrupt("expected at most " + std::to_string(kLongestModel) + " bytes, found " +
                std::to_string(model.size()),
            where);
  }
  SentencePieceFacts facts;
  std::unordered_set<std::string_view> names;
  std::vector<std::string_view> user_defined;
  int unknown_pieces = 0;
  int normalizers = 0;
  Message message({reinterpret_cast<const char*>(model.data()), model.size()}, where);
  while (message.next()) {
    if (message.number >= 1 && message.number <= 5) message.expect(2, "of the model");
    if (message.number == 1) {
      const Piece piece = check_piece(message.text, where);
      if (!names.insert(piece.text).second) corrupt("a piece stands twice", where);
      if (++facts.pieces > kMostPieces) corrupt("too many pieces", where);
      if (piece.kind == 2) ++unknown_pieces;
      if (piece.kind == 4) user_defined.push_back(piece.text);
    } else if (message.number == 2) {
      check_trainer(message.text, where);
    } else if (message.number == 3) {
      // Two would be merged field by field: the checks below see each alone.
      if (++normalizers > 1) corrupt("two normalisers", where);
      check_normalizer(message.text, where, &facts);
    } else if (message.number == 5) {
      check_normalizer(message.text, where, nullptr);
    }
  }
  if (facts.pieces == 0) corrupt("it has no pieces", where);
  if (unknown_pieces != 1) corrupt("it needs one piece for the unknown", where);
  check_user_defined(std::move(user_defined), where);
  return facts;
}

}  // namespace pali
