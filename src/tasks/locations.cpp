#include "tasks/locations.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace pali {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

// A run of location tokens and the segmentation tokens behind it.
struct Place {
  std::vector<int> locations, codes;
  double logprob = 0;
  size_t scored = 0;  // locations with a log-probability
};

class Parser {
 public:
  Parser(const AnswerTokens& answer, const LocationIds& ids, int width, int height,
         std::string_view fallback_label, bool masks)
      : answer_(answer),
        ids_(ids),
        width_(width),
        height_(height),
        fallback_label_(fallback_label),
        masks_(masks) {}

  Located parse() {
    for (size_t i = 0; i < answer_.ids.size(); ++i) {
      if (const auto location = ids_.location(answer_.ids[i])) {
        if (!place_.codes.empty() || place_.locations.size() == 4) end_of_place();
        place_.locations.push_back(*location);
        if (i < answer_.logprobs.size()) {
          place_.logprob += answer_.logprobs[i];
          ++place_.scored;
        }
      } else if (const auto code = ids_.code(answer_.ids[i])) {
        place_.codes.push_back(*code);
      } else {
        words(text_of(i));
      }
    }
    end_of_place();
    end_of_group();
    return std::move(found_);
  }

 private:
  std::string_view text_of(size_t i) const {
    const size_t end = i < answer_.ends.size() ? std::min(answer_.ends[i], answer_.text.size())
                                               : answer_.text.size();
    const size_t begin = i == 0                        ? 0
                         : i - 1 < answer_.ends.size() ? std::min(answer_.ends[i - 1], end)
                                                       : end;
    return answer_.text.substr(begin, end - begin);
  }

  void words(std::string_view text) {
    if (text.empty()) return;
    // White space between two locations parts nothing.
    if (!trimmed(text).empty()) end_of_place();
    while (true) {
      const size_t semicolon = text.find(';');
      label_ += text.substr(0, semicolon);
      if (semicolon == std::string_view::npos) return;
      end_of_place();
      end_of_group();
      text.remove_prefix(semicolon + 1);
    }
  }

  // The run of tokens is over: a box, or none. What was said so far is the label of the box before,
  // or, at the beginning of the group, of this one.
  void end_of_place() {
    if (place_.locations.empty() && (place_.codes.empty() || !masks_)) {
      place_ = {};
      return;
    }
    take_label();
    std::optional<Box> box = box_of(place_);
    if (box) {
      open_ = found_.boxes.size();
      box->label = label_first_;
      found_.boxes.push_back(std::move(*box));
      if (masks_) {
        MaskCodes& codes = found_.codes.emplace_back();
        std::transform(place_.codes.begin(), place_.codes.end(), codes.begin(),
                       [](int code) { return static_cast<uint8_t>(code); });
      }
    } else {
      ++found_.invalid;
      open_.reset();
    }
    in_group_ = true;
    place_ = {};
  }

  void take_label() {
    const std::string_view label = trimmed(label_);
    if (!label.empty()) {
      if (!in_group_) {
        label_first_ = label;
      } else if (open_ && label_first_.empty()) {
        found_.boxes[*open_].label = label;
      } else {
        label_first_ = label;  // "cat <box> dog <box>"
      }
    }
    label_.clear();
  }

  void end_of_group() {
    const bool before = !label_first_.empty();
    if (!before) take_label();
    for (size_t i = group_begin_; i < found_.boxes.size(); ++i) {
      if (found_.boxes[i].label.empty()) found_.boxes[i].label = fallback_label_;
    }
    group_begin_ = found_.boxes.size();
    label_.clear();
    label_first_.clear();
    open_.reset();
    in_group_ = false;
  }

  std::optional<Box> box_of(const Place& place) const {
    if (place.locations.size() != 4) return std::nullopt;
    const int y0 = place.locations[0], x0 = place.locations[1];
    const int y1 = place.locations[2], x1 = place.locations[3];
    if (y0 >= y1 || x0 >= x1) return std::nullopt;
    const auto pixel = [](int location, int side) {
      return static_cast<double>(location) / (kLocations - 1) * side;
    };
    Box box;
    box.y0 = pixel(y0, height_);
    box.x0 = pixel(x0, width_);
    box.y1 = pixel(y1, height_);
    box.x1 = pixel(x1, width_);
    if (masks_) {
      const bool empty = static_cast<int>(box.x1) <= static_cast<int>(box.x0) ||
                         static_cast<int>(box.y1) <= static_cast<int>(box.y0);
      if (place.codes.size() != kCodesOfMask || empty) return std::nullopt;
    }
    if (place.scored == 4 && std::isfinite(place.logprob)) {
      box.score = std::exp(std::min(place.logprob / 4, 0.0));
    }
    return box;
  }

  const AnswerTokens& answer_;
  const LocationIds& ids_;
  int width_, height_;
  std::string_view fallback_label_;
  bool masks_;
  Located found_;
  Place place_;
  std::string label_;           // words since the last place
  std::string label_first_;     // words that stand before their box
  std::optional<size_t> open_;  // the box that the words behind it belong to
  size_t group_begin_ = 0;      // boxes from here on are this group's
  bool in_group_ = false;       // a place stood in this group
};

}  // namespace

Located parse_locations(const AnswerTokens& answer, const LocationIds& ids, int width, int height,
                        std::string_view fallback_label, bool masks) {
  return Parser(answer, ids, width, height, fallback_label, masks).parse();
}

}  // namespace pali
