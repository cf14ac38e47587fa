// Options that several verbs share, and what they become.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "output.hpp"
#include "pali/pali.hpp"

namespace pali::cli {

struct ModelArguments {
  std::string path;  // -m; empty: PALI_MODEL, else the built-in model
  EngineOptions engine;
  std::string tokenizer, mask_decoder;
  bool no_mmap = false;
};

struct ImageArguments {
  std::vector<std::string> named;  // --image
  ImageOptions options;
};

struct GenerationArguments {
  GenerationOptions options;
  std::string lang;
  bool stream = false;
};

void add_model_options(CLI::App& verb, ModelArguments& arguments);
void add_image_options(CLI::App& verb, ImageArguments& arguments);
void add_generation_options(CLI::App& verb, GenerationArguments& arguments,
                            const char* stream_help = "Print tokens as they come");
void add_output_options(CLI::App& verb, OutputArguments& arguments, const char* what = "FILE");
// -t, --isa, --matmul, --dtype, --compute.
void add_machine_options(CLI::App& verb, EngineOptions& engine);
// The same for verbs that compute little or nothing: scripts may give these options everywhere;
// they are checked. `group` says in the help what effect they have, if any. --dtype only where the
// verb has none of its own.
void accept_machine_options(CLI::App& verb, EngineOptions& engine,
                            const char* group = "Accepted as everywhere, without effect here");
// --task-style alone, for inspect.
CLI::Option* add_task_style_option(CLI::App& verb, std::string& style);
// --dtype alone, for convert.
void add_dtype_option(CLI::App& verb, WeightType& dtype, const char* help);

// The model path that counts: -m, PALI_MODEL or the built-in one.
std::string model_path(const ModelArguments& arguments);
// Opens the model; warnings and progress go to stderr, with -v what was opened.
Engine open_engine(const ModelArguments& arguments, const OutputArguments& how);

// Checks of option values, on their text: an empty string, or what is wrong.
CLI::Validator whole_number(int64_t least, int64_t most);
CLI::Validator positive_or_zero();
CLI::Validator probability();
CLI::Validator finite_number();
CLI::Validator not_empty();

}  // namespace pali::cli
