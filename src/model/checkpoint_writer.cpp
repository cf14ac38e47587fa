// Writing a pali checkpoint: canonical names and shapes, everything the model needs to run alone.
#include <algorithm>
#include <cstring>

#include "io/safetensors.hpp"
#include "model/checkpoint.hpp"
#include "model/configs/shared_files.hpp"

namespace pali {
namespace {

// What a tensor is stored as: its own type unless told; never narrower than its row allows, so that
// norms, biases and bias tables are not rounded.
DType target_dtype(const BoundTensor& tensor, std::optional<DType> dtype) {
  const DType own = tensor.ref.dtype;
  if (!dtype) return own;
  return tensor.rule.least == Precision::f32 && *dtype != DType::f32 ? own : *dtype;
}

// The tensor row by row in `type`; widening is exact, f32_to_bf16 rounds to nearest even.
void write_values(const WeightRef& ref, DType type, std::span<std::byte> out) {
  std::byte* to = out.data();
  const int64_t row_bytes = ref.in * dtype_bytes(type);
  for (int64_t o = 0; o < ref.out; ++o, to += row_bytes) {
    if (ref.dtype == type && ref.rows_contiguous()) {
      std::memcpy(to, ref.row(o), static_cast<size_t>(row_bytes));
      continue;
    }
    for (int64_t i = 0; i < ref.in; ++i) {
      const float value = ref.at(o, i);
      if (type == DType::f32) {
        std::memcpy(to + i * 4, &value, 4);
      } else {
        const uint16_t bits = f32_to_bf16(value);
        std::memcpy(to + i * 2, &bits, 2);
      }
    }
  }
}

}  // namespace

void write_checkpoint(const Checkpoint& checkpoint, std::optional<DType> dtype,
                      const std::filesystem::path& path) {
  if (dtype && *dtype != DType::f32 && *dtype != DType::bf16) {
    throw Error(ErrorCode::unsupported, std::string("weights of dtype ") + dtype_name(*dtype) +
                                            " are not written by this version (" + path.string() +
                                            "); use f32 or bf16");
  }
  std::vector<SafetensorsOutput> tensors;
  for (const auto& [name, tensor] : checkpoint.table.bound()) {
    const DType type = target_dtype(tensor, dtype);
    const WeightRef& ref = tensor.ref;
    tensors.push_back({name, type, tensor.rule.shape,
                       [&ref, type](std::span<std::byte> out) { write_values(ref, type, out); }});
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
  metadata[metadata_key::kVersion] = kFormatVersion;
  metadata[metadata_key::kConfig] = checkpoint.config.json;
  if (checkpoint.config.vision) {
    metadata[metadata_key::kPreprocessor] =
        preprocessing_json(checkpoint.config.preprocessing).dump();
  }
  metadata[metadata_key::kGeneration] = generation_json(checkpoint.config).dump();
  if (checkpoint.tokenizer) {
    metadata[metadata_key::kTokenizer] =
        Json{{"extra_ids", checkpoint.tokenizer->extra_ids()}}.dump();
  }
  // Where the weights came from first: a copy of a copy is the same file.
  const auto source = checkpoint.store.metadata().find(metadata_key::kSource);
  metadata[metadata_key::kSource] =
      source == checkpoint.store.metadata().end() ? last_name(checkpoint.path) : source->second;
  write_safetensors(path, tensors, metadata);
}

}  // namespace pali
