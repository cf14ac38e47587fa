#include "engine/cast.hpp"

#include <cstring>
#include <utility>
#include <vector>

namespace pali {
namespace {

// `ref` in row-major order as bf16 (weights) or f32 (what needs it) into `out`.
void store(const WeightRef& ref, DType type, std::byte* out) {
  for (int64_t o = 0; o < ref.out; ++o) {
    for (int64_t i = 0; i < ref.in; ++i) {
      const float value = ref.at(o, i);
      if (type == DType::f32) {
        std::memcpy(out, &value, 4);
        out += 4;
      } else {
        const uint16_t bits = f32_to_bf16(value);
        std::memcpy(out, &bits, 2);
        out += 2;
      }
    }
  }
}

}  // namespace

Checkpoint cast_checkpoint(Checkpoint checkpoint, WeightType type) {
  if (type == WeightType::automatic || type == WeightType::f32) return checkpoint;
  if (type != WeightType::bf16) {
    throw Error(ErrorCode::unsupported,
                "int8 and int4 weights are not in this version (--dtype); use f32 or bf16");
  }
  WeightStore store_bf16;
  std::vector<TensorRule> rules;
  for (const auto& [name, bound] : checkpoint.table.bound()) {
    const DType target = bound.rule.least == Precision::f32 ? DType::f32 : DType::bf16;
    const std::span<std::byte> out = store_bf16.add_owned(name, target, bound.rule.shape);
    store(bound.ref, target, out.data());
    TensorRule rule = bound.rule;
    rule.transform = Transform::none;
    rules.push_back(std::move(rule));
  }
  checkpoint.table = TensorTable::bind(store_bf16, std::move(rules));
  checkpoint.store = std::move(store_bf16);
  return checkpoint;
}

}  // namespace pali
