// Results as the command line prints them: `--json` objects and lines of text.
#pragma once

#include <string>
#include <vector>

#include "output.hpp"
#include "pali/engine.hpp"

namespace pali::cli {

// null, a path, or a list of paths.
Json image_field(const std::vector<std::string>& paths);
// What every answer of a model echoes: the types of its weights and products, how it sees pictures.
void echo_settings(Json& object, const ModelInfo& info);
// The object of caption, vqa, ocr, run; detect's and segment's have the image's size and the boxes
// too, segment's boxes their masks as COCO's run lengths.
Json to_json(const std::vector<std::string>& image_paths, const Request& request,
             const Result& result, const ModelInfo& info);
// A line a box: label<TAB>x0 y0 x1 y1.
std::string box_lines(const Result& result);
// One image's boxes as a COCO data set: "images", "categories", "annotations".
Json to_coco(const std::string& image_path, const Image& image, const Result& result);
// With -v, on stderr.
void print_timing(const Result& result);

}  // namespace pali::cli
