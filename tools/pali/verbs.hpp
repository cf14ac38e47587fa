// The verbs of the command line: each adds itself to the program.
#pragma once

#include <CLI/CLI.hpp>

namespace pali::cli {

void add_generate(CLI::App& app);  // caption, vqa, ocr, detect, run
void add_score(CLI::App& app);
void add_classify(CLI::App& app);
void add_embed(CLI::App& app);
void add_batch(CLI::App& app);
void add_convert(CLI::App& app);
void add_inspect(CLI::App& app);
void add_doctor(CLI::App& app);

}  // namespace pali::cli
