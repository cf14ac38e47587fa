#include "batch_line.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "interrupt.hpp"
#include "json_lines.hpp"

namespace pali::cli {
namespace {

[[noreturn]] void refuse(const std::string& what) {
  throw Error(ErrorCode::invalid_argument, what);
}

std::string string_field(const Json& value, const std::string& name) {
  if (!value.is_string())
    refuse("not a string (field \"" + name + "\"); give one string in quotes");
  return value.get<std::string>();
}

double number_field(const Json& value, const std::string& name) {
  if (!value.is_number()) refuse("not a number (field \"" + name + "\"); leave quotes out");
  return value.get<double>();
}

int whole_field(const Json& value, const std::string& name) {
  const double number = number_field(value, name);
  if (number != std::floor(number) || std::abs(number) > std::numeric_limits<int>::max()) {
    refuse("not a whole number (field \"" + name + "\"); give one");
  }
  return static_cast<int>(number);
}

Task parse_task(const std::string& name) {
  if (name == "caption") return Task::caption;
  if (name == "vqa") return Task::vqa;
  if (name == "ocr") return Task::ocr;
  if (name == "detect") return Task::detect;
  if (name == "run") return Task::run;
  if (name == "segment") return Task::segment;
  refuse("unknown task '" + name +
         "' (field \"task\"); give caption, vqa, ocr, detect, segment or run");
}

// Options by their long names on the command line, with dashes or underscores.
bool read_option(const std::string& name, const Json& value, Request& request) {
  GenerationOptions& options = request.generation;
  if (name == "max_tokens" || name == "n") {
    options.max_tokens = whole_field(value, name);
    if (options.max_tokens < 1) refuse("less than 1 (field \"" + name + "\"); give 1 or more");
  } else if (name == "beams") {
    options.beams = whole_field(value, name);
  } else if (name == "n_best") {
    options.n_best = whole_field(value, name);
  } else if (name == "length_penalty") {
    options.length_penalty = number_field(value, name);
  } else if (name == "temp" || name == "temperature") {
    options.temperature = number_field(value, name);
  } else if (name == "top_k") {
    options.top_k = whole_field(value, name);
  } else if (name == "top_p") {
    options.top_p = number_field(value, name);
  } else if (name == "seed") {
    if (!value.is_number_unsigned()) {
      refuse("not a whole number from 0 up (field \"seed\"); give one");
    }
    options.seed = value.get<uint64_t>();
  } else if (name == "constrain") {
    if (!value.is_boolean()) refuse("not true or false (field \"constrain\"); give one");
    options.constrain = value.get<bool>();
  } else if (name == "choices") {
    if (!value.is_array()) refuse("not a list (field \"choices\"); give one of strings");
    for (const Json& choice : value) request.choices.push_back(string_field(choice, name));
  } else if (name == "box") {
    if (!value.is_array() || value.size() != 4) {
      refuse("not four numbers (field \"box\"); give [x0, y0, x1, y1]");
    }
    request.region = Region{number_field(value[0], name), number_field(value[1], name),
                            number_field(value[2], name), number_field(value[3], name)};
  } else if (name == "lang") {
    request.lang = string_field(value, name);
  } else {
    return false;
  }
  return true;
}

void read_images(const Json& value, BatchLine& line) {
  if (value.is_null()) return;
  if (value.is_array()) {
    for (const Json& path : value) line.paths.push_back(string_field(path, "image"));
  } else {
    line.paths.push_back(string_field(value, "image"));
  }
}

}  // namespace

void read_words(const std::string& text, const BatchDefaults& defaults, BatchLine& line) {
  constexpr int kDeepest = 64;  // no line needs more
  const Json object = parse_line(text, kDeepest);
  if (object.is_discarded()) {
    throw Error(ErrorCode::invalid_argument, "not a line of JSON; give one object a line");
  }
  if (!object.is_object()) refuse("not a JSON object; give {\"image\": ..., \"task\": ...}");
  if (object.contains("id")) line.id = object["id"];

  line.request.generation = defaults.generation.options;
  line.request.lang = defaults.generation.lang;
  line.request.stop = stop_token();
  bool has_task = false;
  std::string words;  // which field the prompt came from
  for (const auto& [key, value] : object.items()) {
    std::string name = key;
    std::replace(name.begin(), name.end(), '-', '_');
    if (name == "id") continue;
    if (name == "image") {
      read_images(value, line);
    } else if (name == "task") {
      line.request.task = parse_task(string_field(value, name));
      has_task = true;
    } else if (name == "prompt" || name == "question" || name == "objects") {
      if (!words.empty()) refuse("\"" + words + "\" and \"" + name + "\" together; give one");
      line.request.prompt = string_field(value, name);
      words = name;
    } else if (!read_option(name, value, line.request)) {
      line.unknown.insert(key);
    }
  }
  if (!has_task) {
    line.request.task = words == "question"  ? Task::vqa
                        : words == "objects" ? Task::detect
                        : words == "prompt"  ? Task::run
                                             : Task::caption;
  }
  // The templates of these have no place for words.
  if (!words.empty() && (line.request.task == Task::caption || line.request.task == Task::ocr)) {
    line.unknown.insert(words);
  }
}

void load_images(const BatchDefaults& defaults, BatchLine& line) {
  for (const std::string& path : line.paths) {
    line.request.images.push_back(
        Image::from_file(defaults.root / std::filesystem::path(path), defaults.images));
  }
}

void read_line(const std::string& text, const BatchDefaults& defaults, BatchLine& line) {
  read_words(text, defaults, line);
  load_images(defaults, line);
}

}  // namespace pali::cli
