// Reads boxes out of whatever a model wrote. Each group between semicolons is words and numbers;
// four numbers in a row are a box, the words behind them its label (before them, where the group
// begins with words). A model that forgets a semicolon is understood.
#include "tasks/parse.hpp"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

namespace pali {
namespace {

constexpr int kLargest = 999;     // coordinates are quantised to 0..999
constexpr int kTooLarge = 10000;  // stands for any number beyond

// A word or a number of the text; `begin` and `end` are byte offsets.
struct Piece {
  size_t begin = 0, end = 0;
  int number = -1;  // -1: a word
  bool is_number() const { return number >= 0; }
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_bracket_or_comma(char c) {
  return c == ',' || c == '[' || c == ']' || c == '(' || c == ')';
}

// "12", "12," and "[12,34" are numbers; "7up", "1.5" and "-3" are words.
void add_chunk(std::string_view text, size_t begin, size_t end, std::vector<Piece>& pieces) {
  const std::string_view chunk = text.substr(begin, end - begin);
  const bool numeric = std::all_of(chunk.begin(), chunk.end(),
                                   [](char c) { return is_digit(c) || is_bracket_or_comma(c); }) &&
                       std::any_of(chunk.begin(), chunk.end(), is_digit);
  if (!numeric) {
    if (chunk.front() != '<' || chunk.back() != '>') pieces.push_back({begin, end, -1});
    return;  // <mask_token_7> and its like are no label
  }
  for (size_t at = begin; at < end;) {
    if (!is_digit(text[at])) {
      ++at;
      continue;
    }
    Piece piece{at, at, 0};
    while (piece.end < end && is_digit(text[piece.end])) {
      piece.number = std::min(piece.number * 10 + (text[piece.end++] - '0'), kTooLarge);
    }
    at = piece.end;
    pieces.push_back(piece);
  }
}

class Parser {
 public:
  Parser(std::string_view text, int width, int height, std::string_view fallback_label,
         std::span<const size_t> token_ends, std::span<const float> token_logprobs)
      : text_(text),
        width_(width),
        height_(height),
        fallback_label_(fallback_label),
        tokens_(std::min(token_ends.size(), token_logprobs.size())),
        token_ends_(token_ends),
        token_logprobs_(token_logprobs) {}

  Detections parse() {
    for (size_t begin = 0; begin <= text_.size();) {
      const size_t end = std::min(text_.find(';', begin), text_.size());
      parse_group(begin, end);
      begin = end + 1;
    }
    return std::move(found_);
  }

 private:
  void parse_group(size_t begin, size_t end) {
    std::vector<Piece> pieces;
    for (size_t at = begin; at < end;) {
      if (is_space(text_[at])) {
        ++at;
        continue;
      }
      const size_t first = at;
      while (at < end && !is_space(text_[at])) ++at;
      add_chunk(text_, first, at, pieces);
    }
    if (pieces.empty()) return;
    const bool label_first = !pieces[0].is_number();
    std::vector<Piece> words;
    size_t open = std::string::npos;  // the box that the words behind it belong to
    bool numbers = false, group_counted = false;
    for (size_t at = 0; at < pieces.size();) {
      size_t run = 0;
      while (at + run < pieces.size() && pieces[at + run].is_number()) ++run;
      numbers |= run > 0;
      // "5 10 20 30 40" behind words: the first number is theirs.
      const size_t belong_to_words = run < 4 ? std::max<size_t>(run, 1) : at > 0 ? run % 4 : 0;
      for (size_t i = 0; i < belong_to_words; ++i) words.push_back(pieces[at++]);
      if (run < 4) continue;
      std::optional<Box> box = box_of({&pieces[at], 4});
      if (!box && group_counted && !label_first) {  // four numbers that belong to a label
        words.insert(words.end(), pieces.begin() + at, pieces.begin() + at + 4);
        at += 4;
        continue;
      }
      at += 4;
      group_counted = true;
      if (!label_first) label(open, words);
      open = box ? found_.boxes.size() : std::string::npos;
      if (box) {
        if (label_first) box->label = label_of(words);
        found_.boxes.push_back(std::move(*box));
      } else {
        ++found_.invalid;
      }
      words.clear();
    }
    if (!label_first) label(open, words);
    if (numbers && !group_counted) ++found_.invalid;
  }

  void label(size_t box, const std::vector<Piece>& words) {
    if (box < found_.boxes.size()) found_.boxes[box].label = label_of(words);
  }

  std::string label_of(const std::vector<Piece>& words) const {
    std::string label;
    for (const Piece& word : words) {
      if (!label.empty()) label += ' ';
      label.append(text_.substr(word.begin, word.end - word.begin));
    }
    while (!label.empty() && (label.back() == ',' || label.back() == ':')) label.pop_back();
    return label.empty() ? std::string(fallback_label_) : label;
  }

  std::optional<Box> box_of(std::span<const Piece> yxyx) const {
    for (const Piece& piece : yxyx) {
      if (piece.number > kLargest) return std::nullopt;
    }
    if (yxyx[0].number > yxyx[2].number || yxyx[1].number > yxyx[3].number) return std::nullopt;
    const auto pixel = [](const Piece& piece, int side) {
      return static_cast<double>(piece.number) / kLargest * side;
    };
    Box box;
    box.y0 = pixel(yxyx[0], height_);
    box.x0 = pixel(yxyx[1], width_);
    box.y1 = pixel(yxyx[2], height_);
    box.x1 = pixel(yxyx[3], width_);
    box.score = score(yxyx);
    return box;
  }

  // Geometric mean over the tokens that share a byte with the digits.
  std::optional<double> score(std::span<const Piece> numbers) const {
    double sum = 0;
    int count = 0;
    const auto* first =
        std::upper_bound(token_ends_.data(), token_ends_.data() + tokens_, numbers.front().begin);
    for (size_t i = static_cast<size_t>(first - token_ends_.data()); i < tokens_; ++i) {
      const size_t begin = i == 0 ? 0 : token_ends_[i - 1], end = token_ends_[i];
      if (begin >= numbers.back().end) break;
      const bool shares = std::any_of(numbers.begin(), numbers.end(), [&](const Piece& number) {
        return begin < number.end && number.begin < end;
      });
      if (!shares) continue;
      sum += token_logprobs_[i];
      ++count;
    }
    if (count == 0 || !std::isfinite(sum)) return std::nullopt;
    return std::exp(std::min(sum / count, 0.0));
  }

  std::string_view text_;
  int width_, height_;
  std::string_view fallback_label_;
  size_t tokens_;
  std::span<const size_t> token_ends_;
  std::span<const float> token_logprobs_;
  Detections found_;
};

}  // namespace

Detections parse_detections(std::string_view text, int width, int height,
                            std::string_view fallback_label, std::span<const size_t> token_ends,
                            std::span<const float> token_logprobs) {
  return Parser(text, width, height, fallback_label, token_ends, token_logprobs).parse();
}

}  // namespace pali
