#include "tasks/prompt.hpp"

#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "pali/error.hpp"

namespace pali {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == text.npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

// "cat;dog ;" -> "cat ; dog": the separator that the models were trained on.
std::string normalised_objects(std::string_view text) {
  std::string objects;
  while (!text.empty()) {
    const size_t end = text.find(';');
    const std::string_view object = trimmed(text.substr(0, end));
    if (!object.empty()) objects.append(objects.empty() ? "" : " ; ").append(object);
    text = end == text.npos ? std::string_view() : text.substr(end + 1);
  }
  return objects;
}

// Ref: PROMPT_SEP in big_vision's configs/proj/paligemma/transfers/aokvqa_mc.py.
std::string joined_choices(const std::vector<std::string>& choices) {
  std::string joined;
  for (const std::string& choice : choices) {
    const std::string_view one = trimmed(choice);
    if (!one.empty()) joined.append(joined.empty() ? "" : " \t ").append(one);
  }
  return joined;
}

using Field = std::pair<std::string_view, std::string_view>;

// One pass from left to right: braces in what is filled in stay what they are.
std::string filled_in(std::string_view text, const std::array<Field, 4>& fields) {
  std::string out;
  while (!text.empty()) {
    const size_t brace = text.find('{');
    out.append(text.substr(0, brace));
    if (brace == text.npos) break;
    text.remove_prefix(brace);
    size_t taken = 1;
    std::string_view value = text.substr(0, 1);
    for (const auto& [name, replacement] : fields) {
      if (text.starts_with(name)) {
        value = replacement;
        taken = name.size();
      }
    }
    out.append(value);
    text.remove_prefix(taken);
  }
  return out;
}

[[noreturn]] void fail(const std::string& message) {
  throw Error(ErrorCode::invalid_argument, message);
}

}  // namespace

std::string render_prompt(const PromptTemplates& templates, const Request& request) {
  const std::string& prompt = request.prompt;
  if (request.task == Task::run) return prompt;
  std::string_view text, name, question;
  std::string objects;
  switch (request.task) {
    case Task::caption:
      text = templates.caption, name = "caption";
      break;
    case Task::ocr:
      text = templates.ocr, name = "ocr";
      break;
    case Task::vqa:
      text = templates.vqa, name = "vqa";
      question = trimmed(prompt);
      if (question.empty()) fail("empty question (vqa); ask something, as in \"what is this?\"");
      break;
    default:
      text = templates.detect, name = "detect";
      if (request.task == Task::segment) text = templates.segment, name = "segment";
      objects = normalised_objects(prompt);
      if (objects.empty()) {
        fail("no objects to find (" + std::string(name) + "); name some, as in \"cat ; dog\"");
      }
  }
  if (text.empty()) {
    fail("the model has no prompt for the task " + std::string(name) +
         " (its prompts); give the whole prompt with: pali run -p PROMPT");
  }
  const std::string choices = joined_choices(request.choices);
  const bool wants_choices = text.find("{choices}") != text.npos;
  if (wants_choices && choices.empty()) {
    fail(
        "this model picks one of several answers, and none are given (vqa); name them with: "
        "--choices \"a ; b ; c\"");
  }
  if (!wants_choices && !choices.empty()) {
    fail("this model's prompt of " + std::string(name) +
         " has no place for choices (--choices); leave them out, or ask them in the question");
  }
  const std::string_view language =
      request.lang.empty() ? templates.default_lang : std::string_view(request.lang);
  return filled_in(text, {Field{"{lang}", language}, Field{"{question}", question},
                          Field{"{objects}", objects}, Field{"{choices}", choices}});
}

int default_max_tokens(Task task) {
  switch (task) {
    case Task::caption:
      return 64;
    case Task::vqa:
      return 32;
    default:
      return 256;
  }
}

}  // namespace pali
