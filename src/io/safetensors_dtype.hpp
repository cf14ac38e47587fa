// Names of storage types in safetensors files.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <utility>

#include "base/dtype.hpp"

namespace pali {

inline constexpr std::array<std::pair<DType, std::string_view>, 10> kSafetensorsDTypes = {{
    {DType::f64, "F64"},
    {DType::f32, "F32"},
    {DType::bf16, "BF16"},
    {DType::f16, "F16"},
    {DType::i64, "I64"},
    {DType::i32, "I32"},
    {DType::i16, "I16"},
    {DType::i8, "I8"},
    {DType::u8, "U8"},
    {DType::boolean, "BOOL"},
}};

inline std::optional<DType> safetensors_dtype(std::string_view name) {
  for (const auto& [type, text] : kSafetensorsDTypes) {
    if (text == name) return type;
  }
  return std::nullopt;
}

inline std::string_view safetensors_dtype_name(DType type) {
  for (const auto& [each, text] : kSafetensorsDTypes) {
    if (each == type) return text;
  }
  return "?";
}

// Types of the format that nothing here computes with.
inline bool is_foreign_safetensors_dtype(std::string_view name) {
  return name == "U16" || name == "U32" || name == "U64" || name == "C64" ||
         name.substr(0, 3) == "F8_" || name.substr(0, 3) == "F6_" || name == "F4";
}

}  // namespace pali
