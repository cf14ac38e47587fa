#include "io/tensor_table.hpp"

#include <algorithm>
#include <set>
#include <utility>

#include "base/assert.hpp"
#include "base/checked.hpp"
#include "base/quote.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

// Whether a tensor of the file, of shape `stored`, can be seen as the rule's canonical one.
bool shape_fits(const TensorRule& rule, const std::vector<int64_t>& stored) {
  switch (rule.transform) {
    case Transform::none:
      // A scalar may be stored without an axis.
      return stored == rule.shape || (stored.empty() && rule.shape == std::vector<int64_t>{1});
    case Transform::flatten_in: {
      if (stored.empty() || stored[0] != rule.shape[0]) return false;
      return checked_bytes(std::span(stored).subspan(1), 1) == rule.shape[1];
    }
    case Transform::rows_part: {
      if (stored.size() != rule.shape.size()) return false;
      if (checked_multiply(rule.shape[0], rule.parts) != stored[0]) return false;
      return std::equal(stored.begin() + 1, stored.end(), rule.shape.begin() + 1);
    }
  }
  return false;
}

std::string expected_shape(const TensorRule& rule) {
  if (rule.transform == Transform::flatten_in) {
    return "[" + std::to_string(rule.shape[0]) + ", ...] of " + std::to_string(rule.shape[1]) +
           " elements a row";
  }
  std::vector<int64_t> shape = rule.shape;
  if (rule.transform == Transform::rows_part) shape[0] *= rule.parts;
  return shape_text(shape);
}

const StoredTensor* find_source(const WeightStore& store, const TensorRule& rule) {
  if (const StoredTensor* own = store.find(rule.name)) return own;
  for (const std::string& source : rule.sources) {
    if (const StoredTensor* tensor = store.find(source)) return tensor;
  }
  return nullptr;
}

// The rule's tensor as a matrix over the bytes of the file.
WeightRef make_ref(const TensorRule& rule, const StoredTensor& tensor, bool canonical) {
  WeightRef ref;
  ref.name = rule.name;
  ref.dtype = tensor.dtype;
  ref.out = rule.shape.size() == 2 ? rule.shape[0] : 1;
  ref.in = rule.shape.back();
  ref.out_stride = ref.in;
  ref.data = tensor.data;
  if (rule.transform == Transform::rows_part && !canonical) {
    ref.data += ref.out * ref.in * rule.part * dtype_bytes(tensor.dtype);
  }
  return ref;
}

[[noreturn]] void throw_missing(const std::vector<std::string>& missing, const std::string& where) {
  std::string text = std::to_string(missing.size()) +
                     (missing.size() == 1 ? " tensor is missing: " : " tensors are missing: ");
  for (size_t i = 0; i < std::min<size_t>(missing.size(), 5); ++i) {
    text += (i > 0 ? ", " : "") + quote(missing[i]);
  }
  if (missing.size() > 5) text += ", ...";
  throw Error(ErrorCode::corrupt_file,
              text + " (" + where + "); check that weights and config.json belong together");
}

}  // namespace

TensorTable TensorTable::bind(const WeightStore& store, std::vector<TensorRule> rules) {
  TensorTable table;
  std::vector<std::string> missing;
  std::set<std::string_view> used;
  for (TensorRule& rule : rules) {
    PALI_ASSERT(rule.shape.size() == 1 || rule.shape.size() == 2);
    const StoredTensor* tensor = find_source(store, rule);
    if (tensor == nullptr) {
      if (!rule.optional) missing.push_back(rule.sources.empty() ? rule.name : rule.sources[0]);
      continue;
    }
    // Under its canonical name a tensor has its canonical shape: the transform is done already.
    const bool canonical = tensor->name == rule.name && tensor->shape == rule.shape;
    if (!canonical && !shape_fits(rule, tensor->shape)) {
      throw Error(ErrorCode::corrupt_file,
                  "tensor " + quote(tensor->name) + ": expected shape " + expected_shape(rule) +
                      ", found " + shape_text(tensor->shape) + " (" + store.where() +
                      "); check that weights and config.json belong together");
    }
    if (!is_float_weight(tensor->dtype)) {
      throw Error(ErrorCode::corrupt_file, "tensor " + quote(tensor->name) +
                                               ": expected dtype f32, bf16 or f16, found " +
                                               dtype_name(tensor->dtype) + " (" + store.where() +
                                               "); save the weights as F32 or BF16");
    }
    if (used.insert(tensor->name).second) {
      table.parameters_by_dtype_[dtype_name(tensor->dtype)] += tensor->elements();
    }
    BoundTensor bound;
    bound.ref = make_ref(rule, *tensor, canonical);
    bound.source = tensor->name;
    std::string name = rule.name;
    bound.rule = std::move(rule);
    const bool added = table.bound_.emplace(std::move(name), std::move(bound)).second;
    PALI_ASSERT(added);
  }
  if (!missing.empty()) throw_missing(missing, store.where());
  for (const auto& [name, tensor] : store.tensors()) {
    if (name != kTokenizerTensor && !used.contains(name)) table.unused_.push_back(name);
  }
  return table;
}

bool TensorTable::has(std::string_view name) const { return bound_.find(name) != bound_.end(); }

const WeightRef& TensorTable::matrix(std::string_view name) const {
  const auto it = bound_.find(name);
  if (it == bound_.end()) {
    throw Error(ErrorCode::internal,
                "no row of the tensor table is called " + quote(name) + "; please report this");
  }
  return it->second.ref;
}

std::vector<float> TensorTable::values(std::string_view name) const {
  const WeightRef& ref = matrix(name);
  std::vector<float> values(static_cast<size_t>(ref.out * ref.in));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = load_weight(ref.data, ref.dtype, static_cast<int64_t>(i));
  }
  return values;
}

std::map<std::string, int64_t> TensorTable::parameters_by_dtype() const {
  return parameters_by_dtype_;
}

int64_t TensorTable::parameters() const {
  int64_t total = 0;
  for (const auto& [type, count] : parameters_by_dtype_) total += count;
  return total;
}

}  // namespace pali
