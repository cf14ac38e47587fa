#include "engine/cast.hpp"

#include <optional>
#include <utility>
#include <vector>

#include "model/storage.hpp"

namespace pali {

std::optional<DType> storage_of(WeightType type) {
  switch (type) {
    case WeightType::automatic:
      return std::nullopt;
    case WeightType::f32:
      return DType::f32;
    case WeightType::bf16:
      return DType::bf16;
    case WeightType::int8:
      return DType::i8;
    case WeightType::int4:
      return DType::i4;
  }
  return std::nullopt;
}

Checkpoint cast_checkpoint(Checkpoint checkpoint, WeightType type) {
  if (type == WeightType::automatic || type == WeightType::f32) return checkpoint;
  checkpoint.table.load(checkpoint.store);
  WeightStore cast;
  std::vector<TensorRule> rules;
  for (const auto& [name, bound] : checkpoint.table.bound()) {
    const StoredForm form(bound, storage_of(type));
    form.write(cast.add_owned(name, form.container_type(), form.shape()));
    if (form.has_scales()) {
      form.write_scales(
          cast.add_owned(name + std::string(kScaleSuffix), form.scale_type(), form.scale_shape()));
    }
    TensorRule rule = bound.rule;
    rule.transform = Transform::none;
    rules.push_back(std::move(rule));
  }
  checkpoint.table = TensorTable::bind(cast, std::move(rules));
  checkpoint.store = std::move(cast);
  return checkpoint;
}

}  // namespace pali
