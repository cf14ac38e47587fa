#include "bench.hpp"

#include <unistd.h>

#include <cstdio>
#include <map>
#include <memory>

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

void roofline(const pali::EngineOptions& options, bool json) {
  const pali::Isa isa = pali::resolve_isa(options.isa);
  const pali::KernelTable kernels = pali::kernel_table(isa);
  pali::ThreadPool pool(options.threads == 0 ? pali::default_thread_count() : options.threads);
  const bench::Peaks peaks = bench::measure_peaks(pool, kernels);
  if (json) {
    std::printf(
        "[{\"name\":\"peak_f32\",\"isa\":\"%s\",\"threads\":%d,\"gflops\":%.1f},"
        "{\"name\":\"peak_bf16\",\"isa\":\"%s\",\"threads\":%d,\"gflops\":%.1f},"
        "{\"name\":\"read\",\"isa\":\"%s\",\"threads\":%d,\"gbps\":%.2f}]\n",
        pali::isa_name(isa), pool.size(), peaks.gflops_f32, pali::isa_name(isa), pool.size(),
        peaks.gflops_bf16, pali::isa_name(isa), pool.size(), peaks.read_gbps);
    return;
  }
  std::printf(
      "%s, %s, %d threads\nf32 tile    %8.1f GFLOP/s\nbf16 tile   %8.1f GFLOP/s\n"
      "read        %8.1f GB/s\n",
      pali::cpu_name().c_str(), pali::isa_name(isa), pool.size(), peaks.gflops_f32,
      peaks.gflops_bf16, peaks.read_gbps);
}

struct Arguments {
  bench::ModelBench model;
  std::string what = "model", config = "pali3-5b", isa;
  bool json = false;
};

void run(Arguments& arguments) {
  if (!arguments.isa.empty()) arguments.model.options.isa = pali::parse_isa(arguments.isa);
  if (arguments.what == "roofline") return roofline(arguments.model.options, arguments.json);
  arguments.model.stage = arguments.what;
  arguments.model.config = find_config(arguments.config);
  if (::isatty(STDERR_FILENO) != 0) {
    arguments.model.on_progress = [](const std::string& what) {
      std::fprintf(stderr, "\r\x1b[K%s", what.c_str());
    };
  }
  const std::vector<bench::Row> rows = bench::bench_model(arguments.model);
  if (arguments.model.on_progress) std::fputs("\r\x1b[K", stderr);
  const std::string report = arguments.json ? bench::to_json(rows) : bench::to_text(rows);
  std::fputs(report.c_str(), stdout);
}

}  // namespace

void add_bench(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  bench::ModelBench& model = arguments->model;
  CLI::App* verb = app.add_subcommand("bench", "Measure stages on random weights");
  verb->footer(
      "Example: pali bench --config pali3-5b --dtype bf16\n"
      "Random weights are made in memory; the peak resident size is the last row.");
  verb->add_option("stage", arguments->what, "What to measure")
      ->check(CLI::IsMember({"model", "vision", "encode", "decode", "roofline"}))
      ->capture_default_str();
  verb->add_option("--config", arguments->config, "A config.json, or a name of models/configs")
      ->capture_default_str();
  verb->add_option("--resolution", model.resolution, "Side of the image in pixels")
      ->check(CLI::Range(1, 16384));
  verb->add_option("--tokens", model.tokens, "Tokens to decode")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  verb->add_option("--prompt-tokens,--prompt_tokens", model.prompt_tokens, "Tokens of the prompt")
      ->check(CLI::Range(1, 16384))
      ->capture_default_str();
  verb->add_option("--beams", model.beams, "Sequences decoded together")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  verb->add_option("--runs", model.runs, "Repetitions; medians are reported")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  verb->add_option("-t,--threads", model.options.threads, "Threads")->check(CLI::Range(1, 1024));
  verb->add_option("--isa", arguments->isa, "Kernel tier");
  static const std::map<std::string, pali::WeightType> kTypes = {
      {"auto", pali::WeightType::automatic},
      {"f32", pali::WeightType::f32},
      {"bf16", pali::WeightType::bf16},
      {"int8", pali::WeightType::int8},
      {"int4", pali::WeightType::int4}};
  static const std::map<std::string, pali::ComputeType> kComputes = {
      {"auto", pali::ComputeType::automatic},
      {"f32", pali::ComputeType::f32},
      {"bf16", pali::ComputeType::bf16}};
  static const std::map<std::string, pali::MatmulBackend> kBackends = {
      {"auto", pali::MatmulBackend::automatic},
      {"native", pali::MatmulBackend::native},
      {"onednn", pali::MatmulBackend::onednn},
      {"reference", pali::MatmulBackend::reference}};
  verb->add_option("--dtype", model.options.dtype, "Type of the random weights: bf16 (auto), f32")
      ->transform(CLI::CheckedTransformer(kTypes));
  verb->add_option("--compute", model.options.compute, "Type of the products: auto, f32, bf16")
      ->transform(CLI::CheckedTransformer(kComputes));
  verb->add_option("--matmul", model.options.matmul, "auto, native, onednn, reference")
      ->transform(CLI::CheckedTransformer(kBackends));
  verb->add_flag("--json", arguments->json, "One JSON array");
  verb->callback([arguments] { run(*arguments); });
}
