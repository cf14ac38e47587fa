#include "answers.hpp"

#include <algorithm>
#include <cstdio>

#include "tasks/mask.hpp"

namespace pali::cli {
namespace {

Json to_json(const Candidate& candidate) {
  return {{"text", candidate.text},
          {"tokens", candidate.tokens},
          {"logprob", rounded(candidate.logprob)},
          {"score", rounded(candidate.score)}};
}

Json to_json(const Mask& mask) {
  return {{"size", {mask.height, mask.width}}, {"counts", coco_counts(mask)}};
}

Json to_json(const Box& box) {
  Json corners = Json::array();
  for (const double corner : {box.x0, box.y0, box.x1, box.y1}) {
    corners.push_back(rounded(corner, 2));
  }
  Json object = {{"label", box.label}, {"box", std::move(corners)}};
  object["score"] = box.score ? Json(rounded(*box.score)) : Json(nullptr);
  if (box.mask) object["mask"] = to_json(*box.mask);
  return object;
}

Json to_json(const Timing& timing) {
  return {{"load_ms", rounded(timing.load_ms, 3)},
          {"vision_ms", rounded(timing.vision_ms, 3)},
          {"prefill_ms", rounded(timing.prefill_ms, 3)},
          {"decode_ms", rounded(timing.decode_ms, 3)},
          {"tokens_per_s", rounded(timing.tokens_per_s, 3)}};
}

}  // namespace

Json image_field(const std::vector<std::string>& paths) {
  if (paths.empty()) return nullptr;
  return paths.size() == 1 ? Json(paths.front()) : Json(paths);
}

void echo_settings(Json& object, const ModelInfo& info) {
  object["dtype"] = info.dtype;
  object["compute"] = info.compute;
  if (info.has_vision) object["preprocess"] = info.preprocess;
}

Json to_json(const std::vector<std::string>& image_paths, const Request& request,
             const Result& result, const ModelInfo& info) {
  Json object = {{"image", image_field(image_paths)},
                 {"prompt", result.prompt},
                 {"text", result.text},
                 {"tokens", result.tokens},
                 {"logprob", rounded(result.logprob)},
                 {"finish_reason", to_string(result.finish)}};
  const bool locates = request.task == Task::detect || request.task == Task::segment;
  if (locates && !request.images.empty()) {
    object["width"] = request.images.front().width();
    object["height"] = request.images.front().height();
    object["boxes"] = Json::array();
    for (const Box& box : result.boxes) object["boxes"].push_back(to_json(box));
    object["invalid"] = result.invalid_boxes;
  }
  if (!result.candidates.empty()) {
    object["candidates"] = Json::array();
    for (const Candidate& candidate : result.candidates) {
      object["candidates"].push_back(to_json(candidate));
    }
  }
  echo_settings(object, info);
  object["timing"] = to_json(result.timing);
  return object;
}

std::string box_lines(const Result& result) {
  std::string lines;
  for (const Box& box : result.boxes) {
    lines += one_line(box.label) + "\t" + format("%.1f", box.x0) + " " + format("%.1f", box.y0) +
             " " + format("%.1f", box.x1) + " " + format("%.1f", box.y1) + "\n";
  }
  return lines;
}

Json to_coco(const std::string& image_path, const Image& image, const Result& result) {
  std::vector<std::string> names;
  Json categories = Json::array(), annotations = Json::array();
  for (const Box& box : result.boxes) {
    const auto known = std::find(names.begin(), names.end(), box.label);
    const int64_t category = known - names.begin() + 1;
    if (known == names.end()) {
      names.push_back(box.label);
      categories.push_back({{"id", category}, {"name", box.label}});
    }
    const double width = box.x1 - box.x0, height = box.y1 - box.y0;
    double area = width * height;
    if (box.mask) {
      area = 0;
      for_each_run(*box.mask, [&](int, int, int count) { area += count; });
    }
    Json annotation = {{"id", annotations.size() + 1},
                       {"image_id", 1},
                       {"category_id", category},
                       {"bbox", Json::array({rounded(box.x0, 2), rounded(box.y0, 2),
                                             rounded(width, 2), rounded(height, 2)})},
                       {"area", rounded(area, 2)},
                       {"iscrowd", 0}};
    if (box.mask) annotation["segmentation"] = to_json(*box.mask);
    if (box.score) annotation["score"] = rounded(*box.score);
    annotations.push_back(std::move(annotation));
  }
  const Json picture = {
      {"id", 1}, {"file_name", image_path}, {"width", image.width()}, {"height", image.height()}};
  return {{"images", Json::array({picture})},
          {"categories", std::move(categories)},
          {"annotations", std::move(annotations)}};
}

void print_timing(const Result& result) {
  const Timing& timing = result.timing;
  std::fprintf(stderr,
               "pali: vision %.1f ms, prefill %.1f ms, decode %.1f ms (%zu tokens, %.1f a second), "
               "logprob %.4f, %s\n",
               timing.vision_ms, timing.prefill_ms, timing.decode_ms, result.tokens.size(),
               timing.tokens_per_s, result.logprob, to_string(result.finish));
}

}  // namespace pali::cli
