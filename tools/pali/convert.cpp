// convert: any model, or the parts of a PaLI-3, as one file that runs alone.
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "arguments.hpp"
#include "calibration.hpp"
#include "interrupt.hpp"
#include "usage.hpp"
#include "verbs.hpp"

namespace pali::cli {
namespace {

struct Arguments {
  std::string source, vision, language, projector, tokenizer, calibration;
  std::optional<double> max_error;  // percent
  std::optional<uint64_t> seed;
  ConvertOptions options;
  OutputArguments output;
};

// Errors of products are a column where there was a calibration.
std::string product_column(bool calibrated, double error) {
  if (!calibrated) return "";
  return error > 0 ? format("%9.3f", 100 * error) + " %" : std::string(11, ' ');
}

// What rounding cost: a line a tensor, and the mean of each type.
void print_errors(const std::vector<QuantisedTensor>& tensors, bool calibrated) {
  if (tensors.empty()) return;
  std::map<std::string, std::pair<double, size_t>> by_type;  // sum of rms errors, tensors
  std::fprintf(stderr, "pali: rounded   rms error  max error%s  tensor\n",
               calibrated ? "   products" : "");
  for (const QuantisedTensor& tensor : tensors) {
    by_type[tensor.dtype].first += tensor.rms_error;
    ++by_type[tensor.dtype].second;
    std::fprintf(stderr, "pali: %-8s %8.3f %% %8.3f %%%s  %s\n", tensor.dtype.c_str(),
                 100 * tensor.rms_error, 100 * tensor.max_error,
                 product_column(calibrated, tensor.product_error).c_str(), tensor.name.c_str());
  }
  for (const auto& [dtype, sum] : by_type) {
    std::fprintf(stderr, "pali: %-8s %8.3f %%           %s  mean of %zu tensors\n", dtype.c_str(),
                 100 * sum.first / static_cast<double>(sum.second),
                 product_column(calibrated, 0).c_str(), sum.second);
  }
}

void print_kept(const std::vector<KeptTensor>& tensors, bool calibrated) {
  if (tensors.empty()) return;
  std::fprintf(stderr, "pali: kept     rms error%s                tensor\n",
               calibrated ? "  products" : "");
  for (const KeptTensor& tensor : tensors) {
    const bool measured = tensor.rms_error > 0;
    const std::string rms = measured ? format("%8.3f", 100 * tensor.rms_error) + " %" : "       -";
    const std::string cost = rms + product_column(calibrated, tensor.product_error) +
                             (measured ? " in " : " never ") + tensor.refused;
    std::fprintf(stderr, "pali: %-8s %-*s  %s\n", tensor.dtype.c_str(), calibrated ? 33 : 24,
                 cost.c_str(), tensor.name.c_str());
  }
}

void run(Arguments& arguments) {
  ConvertOptions& options = arguments.options;
  const bool parts = !arguments.vision.empty() || !arguments.language.empty();
  if (parts && !arguments.source.empty()) {
    throw UsageError("a source and --vision or --language together");
  }
  if (!parts && arguments.source.empty()) throw UsageError("nothing to convert");
  if (parts && (arguments.vision.empty() || arguments.language.empty())) {
    throw UsageError(arguments.vision.empty() ? "--language without --vision"
                                              : "--vision without --language");
  }
  if (!parts && !arguments.projector.empty()) throw UsageError("--projector without --vision");
  if (!parts && options.resolution != 0) throw UsageError("--resolution without --vision");
  if (arguments.seed && (!parts || !arguments.projector.empty())) {
    throw UsageError(parts ? "--seed and --projector together" : "--seed without --vision");
  }
  options.seed = arguments.seed.value_or(options.seed);
  if (arguments.output.path == "-") throw UsageError("--output names a file, not standard output");
  options.source = arguments.source;
  options.vision = arguments.vision;
  options.language = arguments.language;
  options.projector = arguments.projector;
  options.tokenizer = arguments.tokenizer;
  options.output = arguments.output.path;
  if (!arguments.calibration.empty()) {
    if (options.dtype != WeightType::int8 && options.dtype != WeightType::int4) {
      throw UsageError("--calibrate without --dtype int8 or int4");
    }
    if (arguments.max_error) options.max_product_error = *arguments.max_error / 100;
    options.calibrate = [&](const Engine& engine) {
      run_requests(engine, arguments.calibration, arguments.output);
    };
  }
  if (arguments.max_error && arguments.calibration.empty()) {
    throw UsageError("--max-error without --calibrate");
  }
  clean_up_on_interrupt(options.output);
  const ConvertReport report = convert(options);
  warn(arguments.output, report.warnings);
  if (arguments.output.json) {
    Output output("-");
    Json quantised = Json::array();
    for (const QuantisedTensor& tensor : report.quantised) {
      quantised.push_back({{"name", tensor.name},
                           {"dtype", tensor.dtype},
                           {"rms_error", tensor.rms_error},
                           {"max_error", tensor.max_error}});
      if (tensor.product_error > 0) quantised.back()["product_error"] = tensor.product_error;
    }
    Json kept = Json::array();
    for (const KeptTensor& tensor : report.kept) {
      kept.push_back({{"name", tensor.name},
                      {"dtype", tensor.dtype},
                      {"refused", tensor.refused},
                      {"rms_error", tensor.rms_error}});
      if (tensor.product_error > 0) kept.back()["product_error"] = tensor.product_error;
    }
    Json object = {
        {"output", options.output.string()}, {"tensors", report.tensors}, {"bytes", report.bytes}};
    if (!quantised.empty()) object["quantised"] = std::move(quantised);
    if (!kept.empty()) object["kept"] = std::move(kept);
    output.write(to_line(object));
    output.finish();
  } else if (!arguments.output.quiet) {
    const bool calibrated = options.calibrate != nullptr;
    print_errors(report.quantised, calibrated);
    print_kept(report.kept, calibrated);
    std::fprintf(stderr, "pali: wrote %s: %lld tensors, %.1f MB\n", options.output.c_str(),
                 static_cast<long long>(report.tensors), static_cast<double>(report.bytes) / 1e6);
  }
}

}  // namespace

void add_convert(CLI::App& app) {
  const auto arguments = std::make_shared<Arguments>();
  ConvertOptions& options = arguments->options;
  CLI::App& verb = *app.add_subcommand("convert", "Write a model as one file that runs alone");
  verb.add_option("[SRC]", arguments->source, "Model folder or pali checkpoint")->type_name("");
  verb.add_option("-o,--output", arguments->output.path, "The file to write")
      ->check(not_empty())
      ->type_name("OUT.safetensors")
      ->required();
  verb.add_option("--vision", arguments->vision, "Compose: SigLIP, ViT or CLIP folder")
      ->type_name("PATH");
  verb.add_option("--language", arguments->language, "Compose: T5 folder")->type_name("PATH");
  verb.add_option("--projector", arguments->projector,
                  "Compose: weight [D, Dv] and bias [D]; else random")
      ->type_name("FILE");
  verb.add_option("--resolution", options.resolution, "Resize the position embeddings")
      ->check(whole_number(1, 16384))
      ->type_name("N");
  verb.add_option("--tokenizer", arguments->tokenizer, "SentencePiece model to put inside")
      ->type_name("FILE");
  verb.add_option("-s,--seed", arguments->seed, "Seed of a random projector")
      ->check(whole_number(0, INT64_MAX))
      ->type_name("N");
  add_dtype_option(verb, options.dtype, "Type of the weights; else each keeps its own");
  verb.add_option("--calibrate", arguments->calibration,
                  "Requests, as batch has them, whose activations int8 and int4 are to serve")
      ->check(not_empty())
      ->type_name("IN.jsonl");
  verb.add_option("--max-error", arguments->max_error,
                  "With --calibrate: what errs by more percent in its products takes a wider type")
      ->check(positive_or_zero())
      ->type_name("X=" + format("%g", 100 * options.max_product_error));
  accept_machine_options(verb, options.engine, "Of --calibrate, which multiplies in f32");
  verb.add_flag("--json", arguments->output.json, "What was written, as a JSON object on stdout");
  verb.add_flag("-v,--verbose", arguments->output.verbose,
                "Accepted; there is nothing more to say");
  verb.add_flag("-q,--quiet", arguments->output.quiet, "No warnings, no summary");
  verb.footer(
      "Examples:\n  pali convert t5-folder -o t5.safetensors --dtype bf16\n"
      "  pali convert model -o int4.safetensors --dtype int4 --calibrate requests.jsonl\n"
      "  pali convert --vision siglip-folder --language ul2-folder -o pali3.safetensors");
  verb.callback([arguments] { run(*arguments); });
}

}  // namespace pali::cli
