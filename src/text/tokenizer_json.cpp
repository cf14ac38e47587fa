#include "text/tokenizer_json.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <utility>

#include "base/quote.hpp"
#include "io/json.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

constexpr int64_t kMostPieces = 4 << 20, kMostMerges = 16 << 20;
constexpr size_t kLongestPiece = 4096;  // bytes
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

[[noreturn]] void corrupt(const std::string& what, const std::string& where) {
  throw Error(ErrorCode::corrupt_file, "not a usable tokenizer.json: " + what + " (" + where +
                                           "); download the tokenizer again");
}

[[noreturn]] void unsupported(const std::string& what, const std::string& where) {
  throw Error(ErrorCode::unsupported,
              "tokenizer.json with " + what + " (" + where +
                  "); those of PaliGemma, SigLIP 2, T5Gemma 2 (BPE) and of T5, mT5, umT5 (unigram) "
                  "are read: put tokenizer.model or spiece.model beside the model");
}

// The two long lists, taken out of the text while it is parsed: as JSON values they would need
// several times the file's size.
struct Lists {
  std::vector<std::pair<std::string, int64_t>> vocabulary;  // BPE: {"piece": id}
  std::vector<std::pair<std::string, double>> scored;       // unigram: [["piece", score], ...]
  std::vector<std::pair<std::string, std::string>> merges;  // "left right" or ["left", "right"]
};

class Reader {
 public:
  Reader(Lists& lists, const std::string& where) : lists_(lists), where_(where) {}

  // nlohmann's parser callback: false leaves a value out of the tree.
  bool operator()(int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    if (event == Event::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (depth == 1) root_ = key;
      if (depth == 2) field_ = key;
      const bool in_vocabulary = depth == 3 && root_ == "model" && field_ == "vocab";
      if (in_vocabulary) piece_ = key;
      return !in_vocabulary;
    }
    if (root_ != "model" || depth < 3 || (field_ != "vocab" && field_ != "merges")) return true;
    if (depth > 4) corrupt("a list of lists in model." + field_, where_);
    if (event == Event::value) {
      take(depth, value);
      return false;
    }
    if (event == Event::array_start && depth == 3) parts_ = 0, number_.reset();
    if (event == Event::array_end && depth == 3) end_of_pair();
    return event == Event::array_start || event == Event::object_start;
  }

 private:
  void take(int depth, const Json& value) {
    if (depth == 3 && field_ == "vocab") {
      const double id = value.is_number_integer() ? value.get<double>() : -1;
      if (!(id >= 0 && id < static_cast<double>(kMostPieces))) {
        corrupt("an id of model.vocab is no number from 0 to " + std::to_string(kMostPieces - 1),
                where_);
      }
      lists_.vocabulary.emplace_back(std::move(piece_), value.get<int64_t>());
      return;
    }
    if (depth == 3) {
      const std::string* text = value.get_ptr<const std::string*>();
      const size_t space = text == nullptr ? std::string::npos : text->find(' ');
      if (space == std::string::npos || text->find(' ', space + 1) != std::string::npos) {
        corrupt("a merge that is no pair", where_);
      }
      add_merge(text->substr(0, space), text->substr(space + 1));
      return;
    }
    if (value.is_string() && parts_ < 2) {
      pair_[parts_++] = value.get<std::string>();
    } else if (value.is_number() && parts_ == 1 && !number_) {
      number_ = value.get<double>();
    } else {
      corrupt("an entry of model." + field_ + " is no pair", where_);
    }
  }

  void end_of_pair() {
    if (field_ == "vocab") {
      if (parts_ != 1 || !number_ || !std::isfinite(static_cast<float>(*number_))) {
        corrupt("an entry of model.vocab is no pair of a piece and a finite score", where_);
      }
      if (lists_.scored.size() >= static_cast<size_t>(kMostPieces))
        corrupt("too many pieces", where_);
      lists_.scored.emplace_back(std::move(pair_[0]), *number_);
    } else {
      if (parts_ != 2 || number_) corrupt("a merge that is no pair", where_);
      add_merge(std::move(pair_[0]), std::move(pair_[1]));
    }
  }

  void add_merge(std::string left, std::string right) {
    if (lists_.merges.size() >= static_cast<size_t>(kMostMerges))
      corrupt("too many merges", where_);
    lists_.merges.emplace_back(std::move(left), std::move(right));
  }

  Lists& lists_;
  const std::string& where_;
  std::string root_, field_, piece_;
  std::string pair_[2];
  size_t parts_ = 0;
  std::optional<double> number_;
};

void check_piece(const std::string& piece, const std::string& where) {
  if (piece.empty() || piece.size() > kLongestPiece || piece.find('\0') != std::string::npos) {
    corrupt("an empty piece, or one that no text can hold", where);
  }
}

std::vector<AddedToken> read_added(const Json& root, const std::string& where) {
  std::vector<AddedToken> added;
  const auto list = root.find("added_tokens");
  if (list == root.end() || list->is_null()) return added;
  if (!list->is_array()) corrupt("added_tokens is no list", where);
  for (const Json& entry : *list) {
    const JsonFields fields(entry, where + ", added_tokens");
    AddedToken token;
    token.text = fields.string("content");
    token.id = static_cast<int32_t>(fields.integer("id", 0, kMostPieces - 1));
    token.special = fields.boolean("special", false);
    token.strip_left = fields.boolean("lstrip", false);
    token.strip_right = fields.boolean("rstrip", false);
    token.normalized = fields.boolean("normalized", !token.special);
    if (fields.boolean("single_word", false)) {
      unsupported("the added token " + quote(token.text) + " matched as a single word", where);
    }
    check_piece(token.text, where);
    added.push_back(std::move(token));
  }
  return added;
}

// A step, or the steps of a Sequence; "Sequence" names its list after what it is a sequence of.
std::vector<Json> steps(const Json& root, const char* part, const char* list,
                        const std::string& where) {
  const auto found = root.find(part);
  if (found == root.end() || found->is_null()) return {};
  if (JsonFields(*found, where + ", " + part).string("type", "") != "Sequence") return {*found};
  const auto inner = found->find(list);
  if (inner == found->end() || !inner->is_array()) {
    corrupt(std::string(part) + " is a Sequence without a list", where);
  }
  return {inner->begin(), inner->end()};
}

std::string pattern_of(const JsonFields& step, const char* kind) {
  const Json* pattern = step.find("pattern");
  if (pattern == nullptr || !pattern->is_object()) return {};
  return JsonFields(*pattern, step.where()).string(kind, "");
}

// Gemma's: lower case perhaps (SigLIP 2), then spaces become marks. A split at spaces behind it
// finds none.
void read_bpe_steps(const Json& root, const std::string& where, TokenizerJson& tokenizer) {
  bool marks = false;
  for (const Json& json : steps(root, "normalizer", "normalizers", where)) {
    const JsonFields step(json, where + ", normalizer");
    const std::string type = step.string("type", "");
    const bool spaces = type == "Replace" && pattern_of(step, "String") == " " &&
                        step.string("content", "") == kSpaceMark;
    if (type == "Lowercase" && !marks && !tokenizer.lower_case) {
      tokenizer.lower_case = true;
    } else if (spaces && !marks) {
      marks = true;
    } else {
      unsupported("the normalizer step " + quote(type), where);
    }
  }
  if (!marks) unsupported("BPE whose spaces do not become U+2581", where);
  for (const Json& json : steps(root, "pre_tokenizer", "pretokenizers", where)) {
    const JsonFields step(json, where + ", pre_tokenizer");
    const std::string type = step.string("type", "");
    if (type != "Split" || pattern_of(step, "String") != " ") {
      unsupported("the pre_tokenizer step " + quote(type), where);
    }
  }
}

void read_bpe(const JsonFields& model, Lists& lists, TokenizerJson& tokenizer) {
  const std::string& where = model.where();
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.string(key, "").empty()) unsupported(std::string("a ") + key, where);
  }
  if (model.boolean("ignore_merges", false)) unsupported("ignore_merges", where);
  tokenizer.bpe.byte_fallback = model.boolean("byte_fallback", false);
  tokenizer.bpe.fuse_unknown = model.boolean("fuse_unk", false);

  std::unordered_map<std::string_view, int32_t> ids;
  ids.reserve(lists.vocabulary.size());
  int64_t highest = -1;
  for (const auto& [piece, id] : lists.vocabulary) highest = std::max(highest, id);
  // Holes cost memory: a tokenizer has few.
  if (highest >= 2 * static_cast<int64_t>(lists.vocabulary.size()) + 65536) {
    corrupt("ids far beyond the number of pieces", where);
  }
  tokenizer.pieces.resize(static_cast<size_t>(highest + 1));
  for (auto& [piece, id] : lists.vocabulary) {
    check_piece(piece, where);
    std::string& place = tokenizer.pieces[static_cast<size_t>(id)];
    if (!place.empty()) corrupt("two pieces with the id " + std::to_string(id), where);
    place = std::move(piece);
    if (!ids.emplace(place, static_cast<int32_t>(id)).second) {
      corrupt("the piece " + quote(place) + " stands twice", where);
    }
  }
  if (const std::string unknown = model.string("unk_token", ""); !unknown.empty()) {
    const auto found = ids.find(unknown);
    if (found == ids.end()) corrupt("unk_token is no piece", where);
    tokenizer.bpe.unknown = found->second;
  }
  tokenizer.merges.reserve(lists.merges.size());
  std::string joined;
  for (const auto& [left, right] : lists.merges) {
    joined.assign(left).append(right);
    const auto first = ids.find(left), second = ids.find(right), merged = ids.find(joined);
    if (first == ids.end() || second == ids.end() || merged == ids.end()) {
      corrupt("the merge of " + quote(left) + " and " + quote(right) + " with a piece that is none",
              where);
    }
    tokenizer.merges.push_back({first->second, second->second, merged->second});
  }
}

// T5's: the table, then words parted at white space, each with a mark before it. What converters
// put between (Strip, Replace of runs of spaces) is what sentencepiece does by itself.
void read_unigram_steps(const Json& root, const std::string& where, TokenizerJson& tokenizer) {
  for (const Json& json : steps(root, "normalizer", "normalizers", where)) {
    const JsonFields step(json, where + ", normalizer");
    const std::string type = step.string("type", "");
    if (type == "Precompiled" && tokenizer.charsmap.empty()) {
      tokenizer.charsmap = step.string("precompiled_charsmap", "");
    } else if (type == "Replace" && pattern_of(step, "Regex") == " {2,}") {
      continue;
    } else if (type != "Strip") {
      unsupported("the normalizer step " + quote(type), where);
    }
  }
  bool marks = false;
  for (const Json& json : steps(root, "pre_tokenizer", "pretokenizers", where)) {
    const JsonFields step(json, where + ", pre_tokenizer");
    const std::string type = step.string("type", "");
    const bool always = step.string("prepend_scheme", "always") == "always" &&
                        step.boolean("add_prefix_space", true);
    if (type == "Metaspace" && step.string("replacement", "") == kSpaceMark && always && !marks) {
      marks = true;
    } else if (type != "WhitespaceSplit") {
      unsupported("the pre_tokenizer step " + quote(type) +
                      (type == "Metaspace" ? " other than with a mark before every text" : ""),
                  where);
    }
  }
  if (!marks) unsupported("a unigram model without Metaspace", where);
}

std::string decoded_base64(const std::string& text, const std::string& where) {
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  size_t end = text.size();
  while (end > 0 && text.size() - end < 2 && text[end - 1] == '=') --end;
  for (const char c : std::string_view(text).substr(0, end)) {
    const int value = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+'             ? 62
                      : c == '/'             ? 63
                                             : -1;
    if (value < 0) corrupt("precompiled_charsmap is not base64", where);
    bits = bits << 6 | static_cast<uint32_t>(value);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>(bits >> count & 0xff);
  }
  return out;
}

void read_unigram(const JsonFields& model, Lists& lists, TokenizerJson& tokenizer) {
  const std::string& where = model.where();
  if (lists.scored.empty()) corrupt("model.vocab has no pieces", where);
  for (auto& [piece, score] : lists.scored) {
    check_piece(piece, where);
    tokenizer.pieces.push_back(std::move(piece));
    tokenizer.scores.push_back(static_cast<float>(score));
  }
  const auto highest = static_cast<int64_t>(tokenizer.pieces.size()) - 1;
  tokenizer.unknown = static_cast<int32_t>(model.integer("unk_id", 0, highest));
  tokenizer.byte_fallback = model.boolean("byte_fallback", false);
}

// Puts the added tokens among the pieces. They may go on a little behind the model's own.
void place_added(const std::string& where, TokenizerJson& tokenizer) {
  constexpr size_t kMostBehind = 1 << 16;
  const size_t own = tokenizer.pieces.size();
  for (const AddedToken& token : tokenizer.added) {
    const auto id = static_cast<size_t>(token.id);
    if (id >= own + kMostBehind) corrupt("an added token's id lies far behind the pieces", where);
    if (id >= tokenizer.pieces.size()) tokenizer.pieces.resize(id + 1);
    std::string& piece = tokenizer.pieces[id];
    if (!piece.empty() && piece != token.text) {
      corrupt("the added token " + quote(token.text) + " has the id of the piece " + quote(piece),
              where);
    }
    piece = token.text;
  }
}

}  // namespace

TokenizerJson read_tokenizer_json(std::string_view text, const std::string& where) {
  TokenizerJson tokenizer;
  Lists lists;
  const Json root = parse_json(text, where, Reader(lists, where));
  const JsonFields fields(root, where);
  const JsonFields model = fields.object("model");
  const std::string type = model.string("type", lists.merges.empty() ? "Unigram" : "BPE");
  tokenizer.added = read_added(root, where);
  if (type == "BPE") {
    read_bpe(model, lists, tokenizer);
    read_bpe_steps(root, where, tokenizer);
  } else if (type == "Unigram") {
    tokenizer.kind = TokenizerJson::Kind::unigram;
    read_unigram(model, lists, tokenizer);
    read_unigram_steps(root, where, tokenizer);
    tokenizer.charsmap = decoded_base64(tokenizer.charsmap, where);
  } else {
    unsupported("a model of type " + quote(type), where);
  }
  place_added(where, tokenizer);
  return tokenizer;
}

}  // namespace pali
