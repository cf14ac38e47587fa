// Ref: big_vision's configs/proj/paligemma/transfers/*.py, "prefix" of each; PaliGemma
// (2407.07726), section 3.2.5, for the pre-training tasks.
#include "model/configs/task_style.hpp"

#include <algorithm>
#include <optional>

#include "base/quote.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

// What a kind of checkpoint answers to.
enum class Form {
  all,              // the tasks of the pre-training
  caption,          // "caption en"
  region,           // "caption en", of what a red frame surrounds
  answer,           // "answer en QUESTION"
  bare,             // the question alone
  multiple_choice,  // "answer en  QUESTION choose from: A \t B"
  refer,            // the phrase alone: box and mask of what it means
  own               // a format of its own: the whole prompt by `pali run -p`
};

struct Style {
  std::string_view name;
  Form form;
};

constexpr Style kStyles[] = {
    {"pt", Form::all},
    {"mix", Form::all},
    {"ft-activitynet-cap", Form::caption},
    {"ft-activitynet-qa", Form::answer},
    {"ft-ai2d", Form::multiple_choice},
    {"ft-aokvqa-da", Form::answer},
    {"ft-aokvqa-mc", Form::multiple_choice},
    {"ft-chartqa", Form::bare},
    {"ft-coco35l", Form::caption},
    {"ft-cococap", Form::caption},
    {"ft-docci", Form::caption},
    {"ft-docvqa", Form::bare},
    {"ft-gqa", Form::answer},
    {"ft-infovqa", Form::answer},
    {"ft-msrvtt-cap", Form::caption},
    {"ft-msrvtt-qa", Form::answer},
    {"ft-msvd-qa", Form::answer},
    {"ft-nlvr2", Form::answer},
    {"ft-ocrvqa", Form::answer},
    {"ft-okvqa", Form::answer},
    {"ft-pope", Form::bare},
    {"ft-refcoco-seg", Form::refer},
    {"ft-rsvqa-hr", Form::answer},
    {"ft-rsvqa-lr", Form::answer},
    {"ft-scicap", Form::caption},
    {"ft-science-qa", Form::own},
    {"ft-screen2words", Form::caption},
    {"ft-stvqa", Form::answer},
    {"ft-tallyqa", Form::answer},
    {"ft-textcaps", Form::caption},
    {"ft-textvqa", Form::answer},
    {"ft-vatex-cap", Form::caption},
    {"ft-vizwizvqa", Form::answer},
    {"ft-vqav2", Form::answer},
    {"ft-widgetcap", Form::region},
};

// Other spellings of the same.
std::string canonical(std::string_view name) {
  std::string out(name);
  for (char& c : out) {
    if (c == '_') c = '-';
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  if (out == "ft-scienceqa") return "ft-science-qa";
  return out;
}

PromptTemplates prompts_of(Form form) {
  PromptTemplates prompts;
  prompts.default_lang = "en";
  switch (form) {
    case Form::all:
      prompts.caption = "caption {lang}";
      prompts.vqa = "answer {lang} {question}";
      prompts.ocr = "ocr";
      prompts.detect = "detect {objects}";
      prompts.segment = "segment {objects}";
      break;
    case Form::region:
      prompts.caption_region = true;
      [[fallthrough]];
    case Form::caption:
      prompts.caption = "caption {lang}";
      break;
    case Form::answer:
      prompts.vqa = "answer {lang} {question}";
      break;
    case Form::bare:
      prompts.vqa = "{question}";
      break;
    case Form::multiple_choice:
      // Two spaces: the reference's prefix ends with one, and its format has another.
      prompts.vqa = "answer {lang}  {question} choose from: {choices}";
      break;
    case Form::refer:
      prompts.segment = "{objects}";
      break;
    case Form::own:
      break;
  }
  return prompts;
}

// The style whose name stands in `text` at `at`, with nothing or a separator behind it; the
// longest.
std::string_view style_at(std::string_view text, size_t at) {
  std::string_view best;
  for (const Style& style : kStyles) {
    if (text.substr(at, style.name.size()) != style.name) continue;
    const size_t end = at + style.name.size();
    const bool ends = end == text.size() || text[end] == '-' || text[end] == '.';
    if (ends && style.name.size() > best.size()) best = style.name;
  }
  return best;
}

// Where the name of a style may begin: at the front, or behind a separator.
std::string_view style_in(std::string_view text) {
  for (size_t at = 0; at < text.size(); ++at) {
    if (at > 0 && text[at - 1] != '-' && text[at - 1] != '.') continue;
    const std::string_view found = style_at(text, at);
    if (!found.empty()) return found;
  }
  return {};
}

}  // namespace

std::vector<std::string> task_style_names() {
  std::vector<std::string> names;
  for (const Style& style : kStyles) names.emplace_back(style.name);
  return names;
}

bool is_task_style(std::string_view style) {
  return std::any_of(std::begin(kStyles), std::end(kStyles),
                     [name = canonical(style)](const Style& each) { return each.name == name; });
}

PromptTemplates prompts_of_style(std::string_view style) {
  const std::string wanted = canonical(style);
  const auto* found = std::find_if(std::begin(kStyles), std::end(kStyles),
                                   [&](const Style& each) { return each.name == wanted; });
  if (found != std::end(kStyles)) return prompts_of(found->form);
  std::string names;
  for (const Style& each : kStyles) names.append(names.empty() ? "" : ", ").append(each.name);
  throw Error(ErrorCode::invalid_argument,
              "unknown task style " + quote(std::string(style)) + " (--task-style); give " + names);
}

namespace {

std::string style_of_names(const std::filesystem::path& model) {
  // From the end: the file or folder itself, then the folders it lies in, of which the hub's cache
  // names one after the model ("models--google--paligemma-3b-mix-448/snapshots/...").
  std::filesystem::path rest = model.lexically_normal();
  if (!rest.has_filename()) rest = rest.parent_path();
  for (int depth = 0; rest.has_filename(); ++depth, rest = rest.parent_path()) {
    std::string name = canonical(rest.filename().string());
    if (depth > 1 && !name.starts_with("models--")) continue;
    for (size_t at = name.find("ft-scienceqa"); at != name.npos; at = name.find("ft-scienceqa")) {
      name.replace(at, 12, "ft-science-qa");
    }
    const std::string_view found = style_in(name);
    if (!found.empty()) return std::string(found);
  }
  return {};
}

}  // namespace

std::string task_style_of(const std::filesystem::path& model) {
  const std::string named = style_of_names(model);
  if (!named.empty() || model.empty()) return named;
  // ".", or a link: the name that it stands for.
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(model, error);
  return error ? named : style_of_names(real);
}

void apply_task_style(const std::string& style, const std::filesystem::path& model,
                      ModelConfig& config) {
  if (config.task_style.empty()) {
    if (style.empty()) return;
    throw Error(ErrorCode::invalid_argument, "a model of family " + quote(config.family) +
                                                 " has one set of prompts (--task-style); leave "
                                                 "the option out");
  }
  const std::string named = style.empty() ? task_style_of(model) : canonical(style);
  if (named.empty()) return;
  config.prompts = prompts_of_style(named);
  config.task_style = named;
}

}  // namespace pali
