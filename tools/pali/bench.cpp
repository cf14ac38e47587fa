#include "bench.hpp"

#include <unistd.h>

#include <cstdio>
#include <memory>

#include "arguments.hpp"
#include "bench_model.hpp"
#include "kernels/isa.hpp"
#include "pali/checkpoint.hpp"
#include "pali/error.hpp"

namespace {

namespace bench = pali::bench;

// A file, or a name of models/configs.
std::filesystem::path find_config(const std::string& name) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(name, ignored)) return name;
  const std::filesystem::path folder = pali::models_folder() / "configs";
  const std::filesystem::path named = folder / (name + ".json");
  if (name.find('/') == std::string::npos && std::filesystem::exists(named, ignored)) return named;
  std::string known;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    known += (known.empty() ? "" : ", ") + entry.path().stem().string();
  }
  throw pali::Error(pali::ErrorCode::not_found, "no config of that name (" + name +
                                                    "); give a config.json, or one of: " + known);
}

using pali::cli::Json;
using pali::cli::rounded;

std::string roofline(const pali::EngineOptions& options, bool json) {
  const pali::Isa isa = pali::resolve_isa(options.isa);
  const pali::KernelTable kernels = pali::kernel_table(isa);
  pali::ThreadPool pool(options.threads == 0 ? pali::default_thread_count() : options.threads);
  const bench::Peaks peaks = bench::measure_peaks(pool, kernels);
  if (json) {
    const auto row = [&](const char* name, const char* unit, double value) {
      return Json{{"name", name},
                  {"isa", pali::isa_name(isa)},
                  {"threads", pool.size()},
                  {unit, rounded(value, 2)}};
    };
    return pali::cli::to_line(Json::array({row("peak_f32", "gflops", peaks.gflops_f32),
                                           row("peak_bf16", "gflops", peaks.gflops_bf16),
                                           row("read", "gbps", peaks.read_gbps)}));
  }
  return pali::cpu_name() + ", " + pali::isa_name(isa) + ", " + std::to_string(pool.size()) +
         " threads\nf32 tile    " + pali::cli::format("%8.1f GFLOP/s", peaks.gflops_f32) +
         "\nbf16 tile   " + pali::cli::format("%8.1f GFLOP/s", peaks.gflops_bf16) +
         "\nread        " + pali::cli::format("%8.1f GB/s\n", peaks.read_gbps);
}

struct Arguments {
  bench::ModelBench model;
  std::string what = "model", config = "pali3-5b";
  pali::cli::OutputArguments output;
};

std::string report(Arguments& arguments) {
  if (arguments.what == "roofline") {
    return roofline(arguments.model.options, arguments.output.json);
  }
  arguments.model.stage = arguments.what;
  arguments.model.config = find_config(arguments.config);
  if (::isatty(STDERR_FILENO) != 0 && !arguments.output.quiet) {
    arguments.model.on_progress = [](const std::string& what) {
      std::fprintf(stderr, "\r\x1b[K%s", what.c_str());
    };
  }
  const std::vector<bench::Row> rows = bench::bench_model(arguments.model);
  if (arguments.model.on_progress) std::fputs("\r\x1b[K", stderr);
  return arguments.output.json ? bench::to_json(rows) : bench::to_text(rows);
}

void run(Arguments& arguments) {
  pali::cli::Output output(arguments.output.path);  // a place that cannot be written: said first
  output.write(report(arguments));
  output.finish();
}

}  // namespace

void add_bench(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  bench::ModelBench& model = arguments->model;
  CLI::App* verb = app.add_subcommand("bench", "Measure stages on random weights");
  verb->footer(
      "Example:\n  pali bench --config pali3-5b --dtype bf16\n"
      "Random weights are made in memory; the peak resident size is the last row.");
  const auto known = [](const std::string& word) {
    for (const char* stage : {"model", "vision", "encode", "decode", "roofline"}) {
      if (word == stage) return std::string();
    }
    return "'" + word + "' is none of model, vision, encode, decode, roofline";
  };
  verb->add_option("[STAGE]", arguments->what,
                   "model (all stages), vision, encode, decode, or roofline (the machine's peaks)")
      ->check(CLI::Validator(known, "", "stage"))
      ->type_name("");
  verb->add_option("--config", arguments->config, "A config.json, or a name of models/configs")
      ->type_name("NAME|FILE")
      ->capture_default_str();
  const auto count = [&](const char* name, int& value, int most, const char* help) {
    verb->add_option(name, value, help)
        ->check(pali::cli::whole_number(1, most))
        ->type_name("N")
        ->capture_default_str();
  };
  verb->add_option("--resolution", model.resolution, "Side of the image in pixels")
      ->check(pali::cli::whole_number(1, 16384))
      ->type_name("N");
  count("--tokens", model.tokens, 4096, "Tokens to decode");
  count("--prompt-tokens", model.prompt_tokens, 16384, "Tokens of the prompt");
  count("--beams", model.beams, 64, "Sequences decoded together");
  count("--runs", model.runs, 1000, "Repetitions; medians are reported");
  pali::cli::add_machine_options(*verb, model.options);
  pali::cli::add_output_options(*verb, arguments->output);
  verb->callback([arguments] { run(*arguments); });
}
