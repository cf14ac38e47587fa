#include "bench.hpp"

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <set>

#include "arguments.hpp"
#include "bench_model.hpp"
#include "bench_products.hpp"
#include "bench_roofline.hpp"
#include "pali/checkpoint.hpp"
#include "pali/error.hpp"
#include "usage.hpp"

namespace {

namespace bench = pali::bench;

// A file, or a name of models/configs.
std::filesystem::path find_config(const std::string& name) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(name, ignored)) return name;
  const std::filesystem::path folder = pali::models_folder() / "configs";
  const std::filesystem::path named = folder / (name + ".json");
  if (name.find('/') == std::string::npos && std::filesystem::exists(named, ignored)) return named;
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    names.insert(entry.path().stem().string());
  }
  std::string known;
  for (const std::string& each : names) known += (known.empty() ? "" : ", ") + each;
  throw pali::Error(pali::ErrorCode::not_found, "no config of that name (" + name +
                                                    "); give a config.json, or one of: " + known);
}

struct Arguments {
  bench::ModelBench model;
  std::string what = "model", config = "pali3-5b";
  std::vector<std::string> shapes;
  int runs = 0;  // 0: 9, of whole models 3
  bool csv = false;
  pali::cli::OutputArguments output;

  bench::Format format() const {
    return csv ? bench::Format::csv : output.json ? bench::Format::json : bench::Format::text;
  }
};

std::string products(const Arguments& arguments) {
  bench::ProductBench product;
  product.shapes = arguments.shapes;
  if (arguments.runs > 0) product.runs = arguments.runs;
  product.options = arguments.model.options;
  product.on_progress = arguments.model.on_progress;
  const std::vector<bench::Row> rows =
      arguments.what == "matmul" ? bench::bench_matmul(product) : bench::bench_attention(product);
  if (product.on_progress) product.on_progress("");
  // Who asks for a backend, or for packing, is told what became of it.
  const bool asked =
      product.options.prepack || product.options.matmul != pali::MatmulBackend::automatic;
  if (asked || arguments.output.verbose) pali::cli::warn(arguments.output, product.remarks);
  return bench::to_report(rows, bench::peak_rss_bytes(), arguments.format());
}

std::string roofline(const Arguments& arguments) {
  const bench::Roofline result =
      bench::bench_roofline(arguments.model.options, arguments.runs > 0 ? arguments.runs : 9);
  if (arguments.format() == bench::Format::text) return result.text;
  return bench::to_report(result.rows, bench::peak_rss_bytes(), arguments.format());
}

// Refuses the shapes of products to whole models, and the sizes of these to products and peaks.
void check_options(const CLI::App& verb, const std::string& stage) {
  const bool products = stage == "matmul" || stage == "attention";
  const auto refuse = [&](const char* name) {
    if (verb.count(name) > 0) throw pali::cli::UsageError(std::string(name) + " with " + stage);
  };
  if (!products) refuse("--shape");
  if (!products && stage != "roofline") return;
  for (const char* name : {"--config", "--resolution", "--tokens", "--prompt-tokens", "--beams"}) {
    refuse(name);
  }
}

std::string report(Arguments& arguments) {
  if (::isatty(STDERR_FILENO) != 0 && !arguments.output.quiet) {
    arguments.model.on_progress = [](const std::string& what) {
      std::fprintf(stderr, "\r\x1b[K%s", what.c_str());
    };
  }
  if (arguments.what == "roofline") return roofline(arguments);
  if (arguments.what == "matmul" || arguments.what == "attention") return products(arguments);
  arguments.model.stage = arguments.what;
  arguments.model.config = find_config(arguments.config);
  if (arguments.runs > 0) arguments.model.runs = arguments.runs;
  int64_t rss_bytes = 0;
  const std::vector<bench::Row> rows = bench::bench_model(arguments.model, rss_bytes);
  if (arguments.model.on_progress) arguments.model.on_progress("");
  pali::cli::warn(arguments.output, arguments.model.remarks);
  return bench::to_report(rows, rss_bytes, arguments.format());
}

void run(Arguments& arguments) {
  pali::cli::Output output(arguments.output.path);  // a place that cannot be written: said first
  output.write(report(arguments));
  output.finish();
}

constexpr const char* kStages[] = {"model",  "vision",    "encode",  "decode",
                                   "matmul", "attention", "roofline"};

}  // namespace

void add_bench(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  bench::ModelBench& model = arguments->model;
  CLI::App* verb = app.add_subcommand("bench", "Measure stages on random weights");
  verb->footer(
      "Examples:\n  pali bench --config pali3-5b --dtype bf16\n"
      "  pali bench matmul --shape 256x8192x1664 --dtype bf16 --json\n"
      "Medians and spread, and the share of the peak that binds, measured in the same run. Random\n"
      "weights are made in memory; the peak resident size is the last row. Target of a stage of\n"
      "many tokens: products at 86 % of their peak (integers: 80 %), attention at 70 % of its own\n"
      "(55 % below 512 tokens).");
  const auto known = [](const std::string& word) {
    std::string names;
    for (const char* stage : kStages) {
      if (word == stage) return std::string();
      names += (names.empty() ? "" : ", ") + std::string(stage);
    }
    return "'" + word + "' is none of " + names;
  };
  verb->add_option(
          "[STAGE]", arguments->what,
          "model (all stages), vision, encode, decode; single products: matmul, attention; or "
          "roofline (the machine's peaks)")
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
  verb->add_option("--runs", arguments->runs, "Repetitions; medians are reported [9, of models 3]")
      ->check(pali::cli::whole_number(1, 1000))
      ->type_name("N");
  verb->add_option("--shape", arguments->shapes,
                   "Of matmul: MxNxK; of attention: tokens x heads x head width; repeatable")
      ->check(CLI::Validator(
          [](const std::string& text) {
            return bench::parse_shape(text).empty()
                       ? "'" + text +
                             "' is no shape: three whole numbers with x between, as 256x8192x1664"
                       : std::string();
          },
          "", "shape"))
      ->type_name("SHAPE");
  verb->add_flag("--csv", arguments->csv, "Comma-separated values");
  pali::cli::add_machine_options(*verb, model.options);
  pali::cli::add_output_options(*verb, arguments->output);
  verb->callback([arguments, verb] {
    check_options(*verb, arguments->what);
    run(*arguments);
  });
}
