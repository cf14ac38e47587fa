// What opening, composing and making up checkpoints have in common.
#pragma once

#include <string>

#include "model/assemble.hpp"
#include "model/configs/family.hpp"

namespace pali {

// Binds a family's rows to a store: config, table and warnings of the Checkpoint. No tokenizer yet.
Checkpoint bind_checkpoint(Family family, WeightStore store, std::string format,
                           std::filesystem::path path);

// Keys of a pali checkpoint's __metadata__ (models/FORMAT.md).
namespace metadata_key {
inline constexpr const char* kFormat = "format";           // "pali"
inline constexpr const char* kVersion = "format_version";  // "1", "2"
inline constexpr const char* kConfig = "config";
inline constexpr const char* kPreprocessor = "preprocessor_config";
inline constexpr const char* kGeneration = "generation_config";
inline constexpr const char* kTokenizer = "tokenizer_config";
inline constexpr const char* kTaskStyle = "task_style";  // "mix", "ft-vqav2"
inline constexpr const char* kSource = "source";
inline constexpr const char* kInt4Shapes = "int4_shapes";  // {"NAME": [out, in], ...}
}  // namespace metadata_key
inline constexpr const char* kFormatVersion = "1";
inline constexpr const char* kQuantisedVersion = "2";  // with int8 or int4 tensors

}  // namespace pali
