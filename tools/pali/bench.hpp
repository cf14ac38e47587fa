// `pali bench`: what this machine can do, and what share of it the engine takes.
#pragma once

#include <CLI/CLI.hpp>

void add_bench(CLI::App& app);
