// Writing a pali checkpoint: canonical names and shapes, everything the model needs to run alone.
#include <algorithm>

#include "io/safetensors.hpp"
#include "model/checkpoint.hpp"
#include "model/configs/shared_files.hpp"
#include "model/hub_cache.hpp"
#include "model/storage.hpp"

namespace pali {
QuantisationReport write_checkpoint(const Checkpoint& checkpoint, std::optional<DType> dtype,
                                    const std::filesystem::path& path, StoredForms forms) {
  if (dtype && *dtype != DType::f32 && *dtype != DType::bf16 && !is_quantised(*dtype)) {
    throw Error(ErrorCode::unsupported, std::string("weights of dtype ") + dtype_name(*dtype) +
                                            " are not written by this version (" + path.string() +
                                            "); use f32, bf16, int8 or int4");
  }
  std::vector<SafetensorsOutput> tensors;
  QuantisationReport report;
  Json int4_shapes = Json::object();
  bool quantised = false;
  for (const auto& [name, tensor] : checkpoint.table.bound()) {
    // Scales of all tensors, weights of one at a time.
    const StoredForm& form = forms.try_emplace(name, tensor, dtype).first->second;
    tensors.push_back({name, form.container_type(), form.shape(),
                       [&form](std::span<std::byte> out) { form.write(out); }});
    if (form.error()) report.rounded.push_back({name, form.type(), *form.error()});
    if (form.refusal()) {
      report.kept.push_back({name, form.type(), form.refusal()->type, form.refusal()->error});
    }
    if (!form.has_scales()) continue;
    quantised = true;
    tensors.push_back({name + std::string(kScaleSuffix), form.scale_type(), form.scale_shape(),
                       [&form](std::span<std::byte> out) { form.write_scales(out); }});
    if (form.type() == DType::i4) int4_shapes[name] = tensor.rule.shape;
  }
  if (checkpoint.tokenizer) {
    const std::span<const std::byte> model = checkpoint.tokenizer->model_bytes();
    tensors.push_back({std::string(kTokenizerTensor),
                       DType::u8,
                       {static_cast<int64_t>(model.size())},
                       [model](std::span<std::byte> out) {
                         std::copy(model.begin(), model.end(), out.begin());
                       }});
  }
  std::map<std::string, std::string> metadata;
  metadata[metadata_key::kFormat] = "pali";
  metadata[metadata_key::kVersion] = quantised ? kQuantisedVersion : kFormatVersion;
  if (!int4_shapes.empty()) metadata[metadata_key::kInt4Shapes] = int4_shapes.dump();
  metadata[metadata_key::kConfig] = checkpoint.config.json;
  if (checkpoint.config.vision) {
    metadata[metadata_key::kPreprocessor] =
        preprocessing_json(checkpoint.config.preprocessing).dump();
  }
  if (!checkpoint.config.task_style.empty()) {
    metadata[metadata_key::kTaskStyle] = checkpoint.config.task_style;
  }
  metadata[metadata_key::kGeneration] = generation_json(checkpoint.config).dump();
  if (checkpoint.tokenizer) {
    metadata[metadata_key::kTokenizer] =
        Json{{"extra_ids", checkpoint.tokenizer->extra_ids()}}.dump();
  }
  // Where the weights came from first: a copy of a copy is the same file.
  const auto source = checkpoint.store.metadata().find(metadata_key::kSource);
  metadata[metadata_key::kSource] =
      source == checkpoint.store.metadata().end() ? model_name(checkpoint.path) : source->second;
  write_safetensors(path, tensors, metadata);
  return report;
}

}  // namespace pali
