// Storage types of tensors, the 16-bit floats, and how 4-bit integers lie in bytes.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pali {

// i4 is no type of a container: such a tensor is stored as u8, two values a byte, and known for
// what it is by its scales (models/FORMAT.md).
enum class DType : uint8_t { f64, f32, bf16, f16, i64, i32, i16, i8, u8, boolean, i4 };

// Bytes of a value; of i4, which has none of its own, of a pair.
constexpr int64_t dtype_bytes(DType type) {
  switch (type) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
    case DType::i16:
      return 2;
    default:
      return 1;
  }
}

constexpr const char* dtype_name(DType type) {
  switch (type) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f16:
      return "f16";
    case DType::i64:
      return "i64";
    case DType::i32:
      return "i32";
    case DType::i16:
      return "i16";
    case DType::i8:
      return "i8";
    case DType::u8:
      return "u8";
    case DType::boolean:
      return "bool";
    case DType::i4:
      return "i4";
  }
  return "?";
}

// What people call the storage of a weight: "int8" and "int4", else as above.
constexpr const char* weight_name(DType type) {
  return type == DType::i8 ? "int8" : type == DType::i4 ? "int4" : dtype_name(type);
}

// f32, bf16 and f16: what weights of a product may be stored in.
constexpr bool is_float_weight(DType type) {
  return type == DType::f32 || type == DType::bf16 || type == DType::f16;
}

// Integers with scales: int8 one scale a row, int4 one a group of 32 along the row.
constexpr bool is_quantised(DType type) { return type == DType::i8 || type == DType::i4; }

inline constexpr int64_t kInt4Group = 32;
constexpr int64_t int4_groups(int64_t n) { return (n + kInt4Group - 1) / kInt4Group; }
// Bytes of a row of n weights, its scales not counted.
constexpr int64_t row_bytes(DType type, int64_t n) {
  return type == DType::i4 ? (n + 1) / 2 : n * dtype_bytes(type);
}

// Value `index` of a row of n int4 weights, -8 to 7. Byte j of a group of c values holds value j in
// its low half and value j + ceil(c / 2) in its high half, each plus 8.
inline int int4_value(const std::byte* row, int64_t n, int64_t index) {
  const int64_t first = index / kInt4Group * kInt4Group;
  const int64_t count = n - first < kInt4Group ? n - first : kInt4Group;
  const int64_t half = (count + 1) / 2, at = index - first;
  const int byte = std::to_integer<int>(row[first / 2 + (at < half ? at : at - half)]);
  return (at < half ? byte & 15 : byte >> 4) - 8;
}

inline float bf16_to_f32(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// Round to nearest even; NaN stays NaN (quiet).
inline uint16_t f32_to_bf16(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  bits += 0x7fffu + ((bits >> 16) & 1u);
  return static_cast<uint16_t>(bits >> 16);
}

// IEEE binary16, subnormals, infinities and NaN included.
inline float f16_to_f32(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  const uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0x1fu) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

// Round to nearest even; beyond the largest half infinity, NaN stays NaN (quiet).
inline uint16_t f32_to_f16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 2^16 and more
  if (magnitude < 0x38800000u) {  // below 2^-14: units of 2^-24, rounded by the addition
    const float unit = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(unit) - 0x3f000000u));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

// Value `index` of an array of float weights, of whatever type; the bytes need not be aligned.
inline float load_weight(const std::byte* data, DType type, int64_t index) {
  if (type == DType::f32) {
    float value;
    std::memcpy(&value, data + index * 4, 4);
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, data + index * 2, 2);
  return type == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

}  // namespace pali
