#include "tasks/prompt.hpp"

#include <gtest/gtest.h>

#include "support/expect_error.hpp"

namespace pali {
namespace {

PromptTemplates templates() {
  PromptTemplates t;
  t.caption = "Generate the alt_text in {lang} at 0";
  t.vqa = "Answer in {lang}: {question}";
  t.ocr = "Generate the ocr_text in {lang}:";
  t.detect = "detect: {objects}";
  return t;
}

std::string prompt_of(const PromptTemplates& t, Task task, const std::string& prompt,
                      const std::string& lang, const std::vector<std::string>& choices = {}) {
  Request request;
  request.task = task;
  request.prompt = prompt;
  request.lang = lang;
  request.choices = choices;
  return render_prompt(t, request);
}

TEST(Prompt, TemplatesAreFilledIn) {
  const PromptTemplates t = templates();
  EXPECT_EQ(prompt_of(t, Task::caption, "", ""), "Generate the alt_text in EN at 0");
  EXPECT_EQ(prompt_of(t, Task::caption, "", "DE"), "Generate the alt_text in DE at 0");
  EXPECT_EQ(prompt_of(t, Task::ocr, "", "EN"), "Generate the ocr_text in EN:");
  EXPECT_EQ(prompt_of(t, Task::vqa, " what is this?\n", ""), "Answer in EN: what is this?");
}

TEST(Prompt, RunIsTakenAsItIs) {
  EXPECT_EQ(prompt_of({}, Task::run, "  {lang} x\n", "DE"), "  {lang} x\n");
  EXPECT_EQ(prompt_of({}, Task::run, "", ""), "");
}

TEST(Prompt, ObjectsAreSeparatedAsInTraining) {
  const PromptTemplates t = templates();
  for (const char* objects : {"cat ; dog", "cat;dog", " cat ;; dog ; ", ";cat ;\tdog"}) {
    EXPECT_EQ(prompt_of(t, Task::detect, objects, ""), "detect: cat ; dog") << objects;
  }
  EXPECT_EQ(prompt_of(t, Task::detect, "hot dog", ""), "detect: hot dog");
}

TEST(Prompt, BracesInWhatIsFilledInStay) {
  PromptTemplates t = templates();
  EXPECT_EQ(prompt_of(t, Task::vqa, "what is {lang}?", ""), "Answer in EN: what is {lang}?");
  t.vqa = "{question}{question} {other} {";
  EXPECT_EQ(prompt_of(t, Task::vqa, "{question}", ""), "{question}{question} {other} {");
}

TEST(Prompt, NothingToAskOrToFindIsAnError) {
  const auto message = [](const PromptTemplates& t, Task task, const std::string& prompt) {
    try {
      prompt_of(t, task, prompt, "");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message(templates(), Task::vqa, " \n").find("vqa"), std::string::npos);
  EXPECT_NE(message(templates(), Task::detect, " ; ; ").find("detect"), std::string::npos);
  PromptTemplates no_ocr = templates();
  no_ocr.ocr.clear();
  EXPECT_NE(message(no_ocr, Task::ocr, "").find("pali run -p"), std::string::npos);
}

TEST(Prompt, ChoicesStandBetweenTabs) {
  PromptTemplates t = templates();
  t.vqa = "answer {lang}  {question} choose from: {choices}";
  EXPECT_EQ(prompt_of(t, Task::vqa, "What is it?", "en", {" a cat", "", "dog ", "{lang}"}),
            "answer en  What is it? choose from: a cat \t dog \t {lang}");
  test::expect_error(ErrorCode::invalid_argument, {"--choices", "none are given"},
                     [&] { prompt_of(t, Task::vqa, "What?", "", {" "}); });
  test::expect_error(ErrorCode::invalid_argument, {"no place for choices"}, [&] {
    prompt_of(templates(), Task::vqa, "What?", "", {"a", "b"});
  });
}

TEST(Prompt, SegmentTakesObjectsAsDetectDoes) {
  PromptTemplates t = templates();
  t.segment = "segment {objects}";
  EXPECT_EQ(prompt_of(t, Task::segment, "cat;dog", ""), "segment cat ; dog");
  test::expect_error(ErrorCode::invalid_argument, {"(segment)"},
                     [&] { prompt_of(t, Task::segment, " ; ", ""); });
  test::expect_error(ErrorCode::invalid_argument, {"no prompt for the task segment"},
                     [&] { prompt_of(templates(), Task::segment, "cat", ""); });
}

TEST(Prompt, DefaultLengths) {
  EXPECT_EQ(default_max_tokens(Task::caption), 64);
  EXPECT_EQ(default_max_tokens(Task::vqa), 32);
  for (const Task task : {Task::run, Task::ocr, Task::detect, Task::segment}) {
    EXPECT_EQ(default_max_tokens(task), 256);
  }
}

}  // namespace
}  // namespace pali
