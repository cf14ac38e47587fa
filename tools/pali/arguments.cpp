#include "arguments.hpp"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

namespace pali::cli {
namespace {

// CLI11 prints help in groups; these stand below each verb's own options.
constexpr const char* kModel = "Model and machine";
constexpr const char* kGeneration = "Generation";
constexpr const char* kImages = "Images";
constexpr const char* kOutput = "Output";

// Words and what they stand for, in the order of the help.
template <class Enum>
using Choices = std::vector<std::pair<std::string, Enum>>;

const Choices<Isa> kTiers = {{"scalar", Isa::scalar},
                             {"avx2", Isa::avx2},
                             {"avx_vnni", Isa::avx_vnni},
                             {"avx512", Isa::avx512},
                             {"avx512_vnni", Isa::avx512_vnni},
                             {"avx512_bf16", Isa::avx512_bf16},
                             {"amx", Isa::amx}};
const Choices<MatmulBackend> kBackends = {{"auto", MatmulBackend::automatic},
                                          {"native", MatmulBackend::native},
                                          {"onednn", MatmulBackend::onednn},
                                          {"reference", MatmulBackend::reference}};
const Choices<WeightType> kWeights = {{"auto", WeightType::automatic},
                                      {"f32", WeightType::f32},
                                      {"bf16", WeightType::bf16},
                                      {"int8", WeightType::int8},
                                      {"int4", WeightType::int4}};
const Choices<ComputeType> kComputes = {{"auto", ComputeType::automatic},
                                        {"f32", ComputeType::f32},
                                        {"bf16", ComputeType::bf16},
                                        {"int16", ComputeType::int16},
                                        {"int8", ComputeType::int8}};

const Choices<Preprocess> kPipelines = {
    {"hf", Preprocess::hf}, {"bv", Preprocess::bv}, {"bv-aa", Preprocess::bv_aa}};

// An option whose value is one of a few words; `Value` is the enum, or an optional of it.
template <class Value, class Enum>
void add_choice(CLI::App& verb, const std::string& name, Value& value, const Choices<Enum>& choices,
                const std::string& help) {
  std::string words;
  for (const auto& choice : choices) words += (words.empty() ? "" : "|") + choice.first;
  const auto find = [&choices](const std::string& word) {
    return std::find_if(choices.begin(), choices.end(),
                        [&](const auto& choice) { return choice.first == word; });
  };
  const auto set = [&value, find](const std::string& word) { value = find(word)->second; };
  const auto known = [&choices, find, words](const std::string& word) {
    return find(word) != choices.end() ? std::string() : "'" + word + "' is none of " + words;
  };
  verb.add_option_function<std::string>(name, set, help)
      ->check(CLI::Validator(known, "", "choice"))
      ->type_name(words)
      ->group(kModel);
}

bool parse(const std::string& text, double& value) {
  const char* const end = text.data() + text.size();
  const std::from_chars_result result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end;
}

}  // namespace

CLI::Validator whole_number(int64_t least, int64_t most) {
  const auto check = [least, most](const std::string& text) {
    int64_t value = 0;
    const char* const end = text.data() + text.size();
    const std::from_chars_result result = std::from_chars(text.data(), end, value);
    const bool parsed = result.ec == std::errc() && result.ptr == end;
    // CLI11 takes a leading zero for octal.
    const bool octal = parsed && text.size() > 1 && text[text.front() == '-' ? 1 : 0] == '0';
    if (parsed && !octal && value >= least && value <= most) return std::string();
    return "'" + text + "' is no whole number from " + std::to_string(least) + " to " +
           std::to_string(most);
  };
  return CLI::Validator(check, "", "whole number");
}

CLI::Validator positive_or_zero() {
  const auto check = [](const std::string& text) {
    double value = 0;
    const bool good = parse(text, value) && std::isfinite(value) && value >= 0;
    return good ? std::string() : "'" + text + "' is no number from 0 up";
  };
  return CLI::Validator(check, "", "from 0 up");
}

CLI::Validator probability() {
  const auto check = [](const std::string& text) {
    double value = 0;
    const bool good = parse(text, value) && value > 0 && value <= 1;
    return good ? std::string() : "'" + text + "' is no number above 0, at most 1";
  };
  return CLI::Validator(check, "", "probability");
}

CLI::Validator finite_number() {
  const auto check = [](const std::string& text) {
    double value = 0;
    const bool good = parse(text, value) && std::isfinite(value);
    return good ? std::string() : "'" + text + "' is no number";
  };
  return CLI::Validator(check, "", "number");
}

CLI::Validator not_empty() {
  const auto check = [](const std::string& text) {
    return text.empty() ? std::string("an empty value; is a variable of the shell unset?")
                        : std::string();
  };
  return CLI::Validator(check, "", "not empty");
}

CLI::Option* add_task_style_option(CLI::App& verb, std::string& style) {
  return verb
      .add_option("--task-style", style,
                  "Whose prompts to use (pt, mix, ft-vqav2, ...); else by the model's name")
      ->check(not_empty())
      ->type_name("STYLE");
}

void add_model_options(CLI::App& verb, ModelArguments& arguments) {
  EngineOptions& engine = arguments.engine;
  verb.add_option("-m,--model", arguments.path,
                  "Model folder, .npz or pali checkpoint; else PALI_MODEL, else the built-in model")
      ->check(not_empty())
      ->type_name("PATH")
      ->group(kModel);
  verb.add_option("--tokenizer", arguments.tokenizer,
                  "SentencePiece model or tokenizer.json to use")
      ->check(not_empty())
      ->type_name("FILE")
      ->group(kModel);
  verb.add_option("--mask-decoder", arguments.mask_decoder,
                  "vae-oid.npz, which makes masks of <seg> tokens; else the one beside the model")
      ->check(not_empty())
      ->type_name("FILE")
      ->group(kModel);
  add_task_style_option(verb, engine.task_style)->group(kModel);
  verb.add_option("--resolution", engine.resolution,
                  "Side in pixels that images are resized to; position embeddings follow")
      ->check(whole_number(1, 16384))
      ->type_name("N")
      ->group(kModel);
  add_choice(verb, "--preprocess", engine.preprocess, kPipelines,
             "How pictures are resized; else as where the model comes from does");
  add_machine_options(verb, engine);
  verb.add_flag("--no-mmap", arguments.no_mmap, "Read files into memory instead of mapping them")
      ->group(kModel);
}

void add_machine_options(CLI::App& verb, EngineOptions& engine) {
  verb.add_option("-t,--threads", engine.threads, "Threads; else the physical cores")
      ->check(whole_number(1, 1024))
      ->type_name("N")
      ->group(kModel);
  add_choice(verb, "--isa", engine.isa, kTiers, "Kernel tier; else the best of this CPU");
  add_choice(verb, "--matmul", engine.matmul, kBackends, "Who multiplies matrices");
  if (verb.get_option_no_throw("--dtype") == nullptr) {
    add_dtype_option(verb, engine.dtype, "Type of the weights");
  }
  add_choice(verb, "--compute", engine.compute, kComputes, "Type of the products");
  verb.add_flag("--prepack", engine.prepack,
                "Arrange float weights once, when the model is opened: more memory, little gained")
      ->group(kModel);
}

void accept_machine_options(CLI::App& verb, EngineOptions& engine, const char* group) {
  const std::vector<CLI::Option*> shown = verb.get_options();
  add_machine_options(verb, engine);
  for (CLI::Option* option : verb.get_options()) {
    if (std::find(shown.begin(), shown.end(), option) == shown.end()) {
      option->group(group);
    }
  }
}

void add_dtype_option(CLI::App& verb, WeightType& dtype, const char* help) {
  add_choice(verb, "--dtype", dtype, kWeights, help);
}

void add_image_options(CLI::App& verb, ImageArguments& arguments) {
  verb.add_option("--image", arguments.named, "An image, '-' for stdin; may be repeated")
      ->type_name("PATH")
      ->allow_extra_args(false)
      ->group(kImages);
  verb.add_option("--max-pixels", arguments.options.max_pixels, "Refuse larger images")
      ->check(whole_number(1, INT64_MAX))
      ->type_name("N")
      ->capture_default_str()
      ->group(kImages);
  const auto set = [&arguments](const std::string&) { arguments.options.white_background = true; };
  const auto known = [](const std::string& word) {
    return word == "white" ? std::string() : "'" + word + "' is not white";
  };
  verb.add_option_function<std::string>("--background", set,
                                        "Put transparent images on white; else alpha is dropped")
      ->check(CLI::Validator(known, "", "background"))
      ->type_name("white")
      ->group(kImages);
}

void add_generation_options(CLI::App& verb, GenerationArguments& arguments,
                            const char* stream_help) {
  GenerationOptions& options = arguments.options;
  const auto add = [&](const char* name, auto& value, const char* help) {
    return verb.add_option(name, value, help)->group(kGeneration);
  };
  add("-n,--max-tokens", options.max_tokens, "Tokens at most, the end token counted")
      ->check(whole_number(1, 1 << 20))
      ->type_name("N");
  add("--beams", options.beams, "Beam search of this width")
      ->check(whole_number(1, 1024))
      ->type_name("N");
  add("--n-best", options.n_best, "Hypotheses of the beam search in --json")
      ->check(whole_number(1, 1024))
      ->type_name("N");
  add("--length-penalty", options.length_penalty, "Score: logprob / length^PENALTY")
      ->check(finite_number())
      ->type_name("PENALTY")
      ->capture_default_str();
  add("--temp", options.temperature, "Sample at this temperature; 0: greedy")
      ->check(positive_or_zero())
      ->type_name("T");
  add("--top-k", options.top_k, "Sample among the K best tokens; 0: all")
      ->check(whole_number(0, INT32_MAX))
      ->type_name("K");
  add("--top-p", options.top_p, "Sample among the best tokens that hold P together")
      ->check(probability())
      ->type_name("P");
  add("-s,--seed", options.seed, "Seed of sampling")
      ->check(whole_number(0, INT64_MAX))
      ->type_name("N");
  add("--lang", arguments.lang, "Language of the answer, where the prompt has a place for it")
      ->type_name("LANG");
  verb.add_flag("--stream", arguments.stream, stream_help)->group(kGeneration);
}

void add_output_options(CLI::App& verb, OutputArguments& arguments, const char* what) {
  verb.add_flag("--json", arguments.json, "One JSON object a line")->group(kOutput);
  verb.add_option("-o,--output", arguments.path, "Write the answer to a file")
      ->check(not_empty())
      ->type_name(what)
      ->group(kOutput);
  verb.add_flag("-v,--verbose", arguments.verbose, "Model and timings on stderr")->group(kOutput);
  verb.add_flag("-q,--quiet", arguments.quiet, "No warnings, no progress")->group(kOutput);
}

std::string model_path(const ModelArguments& arguments) {
  if (!arguments.path.empty()) return arguments.path;
  const char* const named = std::getenv("PALI_MODEL");
  if (named != nullptr && *named != '\0') return named;
  return builtin_model().string();
}

Engine open_engine(const ModelArguments& arguments, const OutputArguments& how) {
  EngineOptions options = arguments.engine;
  options.mmap = !arguments.no_mmap;
  options.tokenizer = arguments.tokenizer;
  options.mask_decoder = arguments.mask_decoder;
  Progress progress(how, "loading");
  options.on_progress = [&progress](double fraction) { progress.update(fraction); };
  Engine engine = Engine::open(model_path(arguments), options);
  progress.clear();
  const ModelInfo& info = engine.info();
  warn(how, info.warnings);
  if (how.verbose) {
    std::fprintf(stderr,
                 "pali: %s, %s, %.1f M parameters, weights %s, products %s, %s, matmul %s, %d "
                 "thread%s; loaded in %.0f ms\n",
                 info.path.c_str(), info.family.c_str(), static_cast<double>(info.parameters) / 1e6,
                 info.dtype.c_str(), info.compute.c_str(), info.isa.c_str(), info.matmul.c_str(),
                 info.threads, info.threads == 1 ? "" : "s", info.load_ms);
  }
  return engine;
}

}  // namespace pali::cli
