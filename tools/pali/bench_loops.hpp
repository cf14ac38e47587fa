// The loops that measure what a machine can do at best: products on registers alone, and plain
// reading. Not the engine's kernels: those are held against them.
#pragma once

#include <cstdint>
#include <span>

#include "pali/options.hpp"

namespace pali::bench {

// What a product's operands are, the widest first; sums are f32 or i32. int4: of the weights, times
// int8.
enum class Operands { f32, bf16, int16, int8, int4 };
constexpr const char* operands_name(Operands operands) {
  constexpr const char* kNames[] = {"f32", "bf16", "int16", "int8", "int4"};
  return kNames[static_cast<int>(operands)];
}

// The instruction sets that the loops need, as the CPU and the operating system have them. Asking
// requests AMX's tile registers from the system, once for the process.
enum class Unit { baseline, avx2, avx_vnni, avx512, avx512_vnni, avx512_bf16, amx_bf16, amx_int8 };
bool has_unit(Unit unit);
const char* unit_name(Unit unit);

// Multiplies registers that depend on nothing but themselves: enough of them to fill the pipelines.
struct ProductLoop {
  Unit unit;
  Operands operands;
  const char* instruction;
  double operations;  // of one turn; a multiply-add counts two
  void (*run)(int64_t turns);
};
std::span<const ProductLoop> product_loops();

// Reads every cache line of [data, data + bytes); bytes is a multiple of kReadBlock.
inline constexpr int64_t kReadBlock = 4096;
struct ReadLoop {
  Unit unit;
  const char* how;
  void (*run)(const std::byte* data, int64_t bytes);
};
std::span<const ReadLoop> read_loops();

}  // namespace pali::bench
