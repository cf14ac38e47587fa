#include "model/configs/task_style.hpp"

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "support/temp_folder.hpp"

namespace pali {
namespace {

TEST(TaskStyle, InTheNamesOfTheHub) {
  const std::pair<const char*, const char*> names[] = {
      {"google/paligemma-3b-pt-224", "pt"},
      {"paligemma-3b-mix-448/", "mix"},
      {"paligemma-3b-pt-224.npz", "pt"},
      {"x/paligemma-3b-pt-896.bf16.npz", "pt"},
      {"pt_224.npz", "pt"},
      {"paligemma-3b-ft-aokvqa-mc-448-jax/paligemma-3b-ft-aokvqa-mc-448.npz", "ft-aokvqa-mc"},
      {"paligemma-3b-ft-textcaps-224.npz", "ft-textcaps"},
      {"paligemma-3b-ft-widgetcap-448.npz", "ft-widgetcap"},
      {"paligemma-3b-ft-vqav2-448.npz", "ft-vqav2"},
      {"paligemma-3b-ft-refcoco-seg-448.npz", "ft-refcoco-seg"},
      {"paligemma-3b-ft-scienceqa-224", "ft-science-qa"},
      {"paligemma2-10b-ft-docci-448", "ft-docci"},
      {"paligemma-3b-mix-448-jax/model.npz", "mix"},
      {"hub/models--google--paligemma-3b-mix-448/snapshots/0123abcd", "mix"},
      {"my-optimised-model", ""},
      {"mixture/a/b/model", ""},
      {"script.safetensors", ""},
      {"", ""},
  };
  for (const auto& [name, style] : names) EXPECT_EQ(task_style_of(name), style) << name;
}

TEST(TaskStyle, OfALinkAsOfWhatItNames) {
  const test::TempFolder folder;
  const std::filesystem::path model = folder / "paligemma-3b-mix-224";
  std::filesystem::create_directory(model);
  std::filesystem::create_directory_symlink(model, folder / "current");
  std::filesystem::create_directory_symlink(model, folder / "paligemma-3b-ft-docci-224");
  EXPECT_EQ(task_style_of(folder / "current"), "mix");
  EXPECT_EQ(task_style_of(folder / "current" / "."), "mix");
  EXPECT_EQ(task_style_of(folder / "paligemma-3b-ft-docci-224"), "ft-docci");
}

// Prefixes of big_vision's transfer configurations.
TEST(TaskStyle, PromptsOfTheCheckpoints) {
  EXPECT_EQ(prompts_of_style("pt").segment, "segment {objects}");
  EXPECT_EQ(prompts_of_style("mix").vqa, "answer {lang} {question}");
  EXPECT_EQ(prompts_of_style("ft-aokvqa-mc").vqa,
            "answer {lang}  {question} choose from: {choices}");
  EXPECT_EQ(prompts_of_style("FT_DocVQA").vqa, "{question}");
  EXPECT_EQ(prompts_of_style("ft-textcaps").caption, "caption {lang}");
  EXPECT_TRUE(prompts_of_style("ft-textcaps").vqa.empty());
  EXPECT_TRUE(prompts_of_style("ft-widgetcap").caption_region);
  EXPECT_FALSE(prompts_of_style("ft-textcaps").caption_region);
  EXPECT_EQ(prompts_of_style("ft-refcoco-seg").segment, "{objects}");
  EXPECT_EQ(prompts_of_style("pt").default_lang, "en");
  for (const std::string& name : task_style_names()) {
    EXPECT_EQ(task_style_of("paligemma-3b-" + name + "-448"), name);
  }
  test::expect_error(ErrorCode::invalid_argument, {"'ft-x'", "ft-vqav2"},
                     [] { prompts_of_style("ft-x"); });
}

TEST(TaskStyle, TheOptionGoesBeforeTheName) {
  ModelConfig config;
  config.family = std::string("paligemma");
  config.task_style = task_style_of("pt");
  apply_task_style("", "model", config);
  EXPECT_EQ(config.task_style, "pt");
  apply_task_style("", "paligemma-3b-ft-vqav2-448", config);
  EXPECT_EQ(config.task_style, "ft-vqav2");
  apply_task_style("mix", "paligemma-3b-ft-vqav2-448", config);
  EXPECT_EQ(config.prompts.ocr, "ocr");
  ModelConfig other;
  other.family = "pali3";
  apply_task_style("", "paligemma-3b-mix-448", other);
  EXPECT_TRUE(other.task_style.empty());
  test::expect_error(ErrorCode::invalid_argument, {"'pali3'", "--task-style"},
                     [&] { apply_task_style("mix", "x", other); });
}

}  // namespace
}  // namespace pali
