// Looking into checkpoints, writing them, and finding the built-in one.
#include "pali/checkpoint.hpp"

#include <dlfcn.h>

#include <optional>
#include <utility>

#include "engine/calibrate.hpp"
#include "engine/cast.hpp"
#include "engine/state.hpp"
#include "model/assemble.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

// The folder of the program or shared library that this code was linked into.
std::filesystem::path own_folder() {
  Dl_info info = {};
  if (::dladdr(reinterpret_cast<const void*>(&builtin_model), &info) == 0) return {};
  std::error_code ignored;
  return std::filesystem::canonical(info.dli_fname, ignored).parent_path();
}

}  // namespace

CheckpointInfo inspect(const std::filesystem::path& model, const std::string& task_style) {
  const Checkpoint checkpoint = open_checkpoint(model, {true, {}, task_style});
  CheckpointInfo info;
  info.format = checkpoint.format;
  info.family = checkpoint.config.family;
  info.parameters = checkpoint.table.parameters();
  info.dtypes = checkpoint.table.parameters_by_dtype();
  info.config_json = checkpoint.config.json;
  info.task_style = checkpoint.config.task_style;
  info.prompts = prompt_list(checkpoint.config.prompts);
  info.warnings = checkpoint.warnings;
  for (const auto& [name, tensor] : checkpoint.store.tensors()) {
    // Quantised tensors as what they are, not as the bytes they lie in.
    const auto bound = checkpoint.table.bound().find(name);
    const bool quantised =
        bound != checkpoint.table.bound().end() && is_quantised(bound->second.ref.dtype);
    info.tensors.push_back(
        {name, quantised ? weight_name(bound->second.ref.dtype) : dtype_name(tensor.dtype),
         quantised ? bound->second.rule.shape : tensor.shape, tensor.bytes});
  }
  const int64_t weights = checkpoint.store.bytes();
  const int64_t tokenizer =
      checkpoint.tokenizer ? static_cast<int64_t>(checkpoint.tokenizer->model_bytes().size()) : 0;
  info.memory_bytes = {
      {"weights", weights}, {"tokenizer", tokenizer}, {"total", weights + tokenizer}};
  return info;
}

std::map<std::string, std::string> prompt_list(const PromptTemplates& prompts) {
  std::map<std::string, std::string> list;
  const auto add = [&](const char* task, const std::string& text) {
    if (!text.empty()) list[task] = text;
  };
  add("caption", prompts.caption);
  add("vqa", prompts.vqa);
  add("ocr", prompts.ocr);
  add("detect", prompts.detect);
  add("segment", prompts.segment);
  return list;
}

ConvertReport convert(const ConvertOptions& options) {
  const std::optional<DType> dtype = storage_of(options.dtype);
  const bool parts = !options.vision.empty() || !options.language.empty();
  if (parts != options.source.empty() || (parts && options.vision.empty()) ||
      (parts && options.language.empty())) {
    throw Error(ErrorCode::invalid_argument,
                "convert takes either one model, or --vision and --language together (convert); "
                "see pali convert --help");
  }
  if (!parts && options.resolution != 0) {
    throw Error(ErrorCode::invalid_argument,
                "a resolution for a model that is not composed (--resolution); leave it out, and "
                "give it where the model is opened");
  }
  if (options.output.empty()) {
    throw Error(ErrorCode::invalid_argument,
                "no output file (convert); name one with -o OUT.safetensors");
  }
  const bool integers = dtype && is_quantised(*dtype);
  if (options.calibrate && !integers) {
    throw Error(ErrorCode::invalid_argument,
                "a calibration serves int8 and int4 weights only (--calibrate); add --dtype int4");
  }
  if (options.calibrate && !(options.max_product_error >= 0)) {
    throw Error(ErrorCode::invalid_argument, "the error of products must be 0 or more, found " +
                                                 std::to_string(options.max_product_error) +
                                                 " (--max-error); 0.02 serves small models");
  }
  const auto open = [&] {
    return parts ? compose_checkpoint({options.vision, options.language, options.projector,
                                       options.tokenizer, options.resolution, options.seed})
                 : open_checkpoint(options.source, {true, options.tokenizer});
  };
  Checkpoint checkpoint = open();
  checkpoint.table.load(checkpoint.store);
  StoredForms forms;
  if (options.calibrate) forms = calibrated_forms(checkpoint, *dtype, options, open);
  const QuantisationReport rounding =
      write_checkpoint(checkpoint, dtype, options.output, std::move(forms));
  ConvertReport report;
  for (const TensorError& tensor : rounding.rounded) {
    report.quantised.push_back({tensor.name, weight_name(tensor.dtype), tensor.error.rms,
                                tensor.error.max, tensor.error.products});
  }
  for (const TensorKept& tensor : rounding.kept) {
    report.kept.push_back({tensor.name, weight_name(tensor.dtype), weight_name(tensor.refused),
                           tensor.error.rms, tensor.error.products});
  }
  report.tensors = static_cast<int64_t>(checkpoint.table.bound().size());
  report.bytes = static_cast<int64_t>(std::filesystem::file_size(options.output));
  report.warnings = checkpoint.warnings;
  return report;
}

std::filesystem::path models_folder() {
  const std::filesystem::path candidates[] = {own_folder() / PALI_INSTALLED_MODELS,
                                              PALI_SOURCE_MODELS};
  for (const std::filesystem::path& path : candidates) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path / "configs", ignored)) {
      return std::filesystem::weakly_canonical(path, ignored);
    }
  }
  throw Error(ErrorCode::not_found, "the folder of models is not where it was installed (" +
                                        candidates[0].string() +
                                        "); name a model with -m, or install again");
}

std::filesystem::path builtin_model() {
  const std::filesystem::path path = models_folder() / "pali-mini";
  std::error_code ignored;
  if (std::filesystem::exists(path / "config.json", ignored)) return path;
  throw Error(ErrorCode::not_found,
              "no built-in model (" + path.string() + "); name a model with -m, or install again");
}

}  // namespace pali
