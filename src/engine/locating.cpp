// Answers of boxes and masks: what the tokenizer says of location tokens, what a request may ask of
// them, and what an answer means.
#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "engine/state.hpp"
#include "image/image.hpp"
#include "tasks/location_grammar.hpp"
#include "tasks/mask.hpp"
#include "tasks/parse.hpp"

namespace pali {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// "a ; b" names two things, and no box can take both for its label.
std::string_view sole_object(std::string_view objects) {
  return objects.find(';') == objects.npos ? objects : std::string_view();
}

GrammarTokens grammar_tokens(const EngineState& engine) {
  const Tokenizer& tokenizer = engine.tokenizer();
  GrammarTokens tokens;
  tokens.locations = engine.locations;
  tokens.end = engine.model.language->end_token();
  for (int32_t id = 0; id < tokenizer.size(); ++id) {
    if (id == tokens.end || tokens.locations.location(id) || tokens.locations.code(id)) continue;
    const std::string text = tokenizer.decode({&id, 1});
    if (text.empty()) continue;
    if (text.find(';') != text.npos) {
      tokens.separators.push_back(id);
    } else if (std::all_of(text.begin(), text.end(), is_space)) {
      tokens.spaces.push_back(id);
    } else {
      tokens.words.push_back(id);
    }
  }
  return tokens;
}

// Boxes as if the whole image had been seen, moved onto the part that was; those of which the image
// has nothing are counted as invalid. Without codes where there are no masks.
void move_onto(const VisiblePart& part, const Image& image, std::vector<MaskCodes>& codes,
               std::vector<Box>& boxes, int& invalid) {
  const double width = image.width(), height = image.height();
  if (part.x == 0 && part.y == 0 && part.width == width && part.height == height) return;
  const auto moved = [](double value, double side, double begin, double length) {
    return std::clamp(begin + value / side * length, 0.0, side);
  };
  size_t kept = 0;
  for (size_t i = 0; i < boxes.size(); ++i) {
    Box& box = boxes[i];
    box.x0 = moved(box.x0, width, part.x, part.width);
    box.x1 = moved(box.x1, width, part.x, part.width);
    box.y0 = moved(box.y0, height, part.y, part.height);
    box.y1 = moved(box.y1, height, part.y, part.height);
    const double least = codes.empty() ? 0 : 1;  // a mask needs whole pixels
    if (std::floor(box.x1) - std::floor(box.x0) < least || box.x1 <= box.x0 ||
        std::floor(box.y1) - std::floor(box.y0) < least || box.y1 <= box.y0) {
      ++invalid;
      continue;
    }
    if (!codes.empty()) codes[kept] = codes[i];
    if (kept != i) boxes[kept] = std::move(box);
    ++kept;
  }
  boxes.resize(kept);
}

}  // namespace

LocationIds location_ids(const Tokenizer& tokenizer) {
  const auto run = [&](const char* first, const char* last, int count) -> int32_t {
    const auto begin = tokenizer.id_of(first), end = tokenizer.id_of(last);
    return begin && end && *end - *begin == count - 1 ? *begin : -1;
  };
  return {run("<loc0000>", "<loc1023>", kLocations), run("<seg000>", "<seg127>", kMaskCodes)};
}

void check_locating(const EngineState& engine, const Request& request, CheckedRequest& checked) {
  const bool locates = request.task == Task::detect || request.task == Task::segment;
  if (locates) checked.objects = request.prompt;
  if (request.task == Task::segment) {
    if (engine.locations.loc < 0 || engine.locations.seg < 0) {
      throw Error(ErrorCode::unsupported,
                  "the tokenizer has no <loc> and <seg> tokens to segment with (" +
                      engine.info.path + "); use a PaliGemma model");
    }
    if (!engine.mask_decoder) {
      throw Error(ErrorCode::not_found,
                  "no mask decoder to segment with (" + engine.info.path +
                      "); put vae-oid.npz beside the model, or give --mask-decoder FILE");
    }
  }
  GenerationOptions& options = checked.run.options;
  if (!options.constrain) return;
  if (!locates || engine.locations.loc < 0) {
    throw Error(ErrorCode::invalid_argument,
                "only detect and segment of a model with <loc> tokens can be constrained "
                "(--constrain); leave it out");
  }
  if (options.temperature > 0) {
    throw Error(ErrorCode::invalid_argument,
                "--constrain and --temp together: constrained answers are searched, not drawn");
  }
  const bool masks = request.task == Task::segment;
  if (options.max_tokens < LocationGrammar::shortest(masks)) {
    throw Error(ErrorCode::invalid_argument,
                "at least " + std::to_string(LocationGrammar::shortest(masks)) +
                    " tokens are needed for one well-formed answer, found " +
                    std::to_string(options.max_tokens) + " (--max-tokens); allow more");
  }
  const auto grammar =
      std::make_shared<LocationGrammar>(grammar_tokens(engine), masks, options.max_tokens);
  checked.run.allowed = [grammar](std::span<const int32_t> so_far) {
    return grammar->allowed(so_far);
  };
}

void find_boxes(const EngineState& engine, const CheckedRequest& request, const Image& image,
                std::span<const float> logprobs, Result& result) {
  const std::vector<size_t> ends = engine.tokenizer().decode_offsets(result.tokens);
  const Preprocessing how =
      engine.model.checkpoint.config.preprocessing.at(engine.model.vision->image_size());
  const VisiblePart part = visible_part(how, image.width(), image.height());
  if (engine.locations.loc < 0) {
    Detections found = parse_detections(result.text, image.width(), image.height(), request.objects,
                                        ends, logprobs);
    std::vector<MaskCodes> none;
    move_onto(part, image, none, found.boxes, found.invalid);
    result.boxes = std::move(found.boxes);
    result.invalid_boxes = found.invalid;
    return;
  }
  const bool masks = request.task == Task::segment;
  Located found =
      parse_locations({result.tokens, result.text, ends, logprobs}, engine.locations, image.width(),
                      image.height(), sole_object(request.objects), masks);
  move_onto(part, image, found.codes, found.boxes, found.invalid);
  for (size_t i = 0; masks && i < found.boxes.size(); ++i) {
    Box& box = found.boxes[i];
    box.mask =
        paste_mask(engine.mask_decoder->decode(found.codes[i]), box, image.width(), image.height());
  }
  result.boxes = std::move(found.boxes);
  result.invalid_boxes = found.invalid;
}

}  // namespace pali
