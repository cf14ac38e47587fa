#include "io/tensor_table.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "base/assert.hpp"
#include "base/quote.hpp"
#include "io/tensor_view.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

const StoredTensor* find_source(const WeightStore& store, const TensorRule& rule) {
  if (const StoredTensor* own = store.find(rule.name)) return own;
  for (const std::string& source : rule.sources) {
    if (const StoredTensor* tensor = store.find(source)) return tensor;
  }
  return nullptr;
}

// The rule's tensor as a matrix over the bytes of the file, checked against the rule. Without data
// where load() has to make it: packed, or no strides describe it.
WeightRef make_float_ref(const TensorRule& rule, const StoredTensor& tensor,
                         const std::string& where) {
  const std::optional<TensorView> view = view_of(rule, tensor);
  if (!view) {
    throw Error(ErrorCode::corrupt_file,
                "tensor " + quote(tensor.name) + ": expected shape " + expected_shape(rule) +
                    ", found " + shape_text(tensor.shape) + " (" + where +
                    "); check that weights and config.json belong together");
  }
  if (!is_float_weight(tensor.dtype)) {
    throw Error(ErrorCode::corrupt_file,
                "tensor " + quote(tensor.name) + ": expected dtype f32, bf16 or f16, found " +
                    dtype_name(tensor.dtype) + " (" + where + "); save the weights as F32 or BF16");
  }
  WeightRef ref;
  ref.name = rule.name;
  ref.dtype = tensor.dtype;
  ref.out = rule.shape.size() == 2 ? rule.shape[0] : 1;
  ref.in = rule.shape.back();
  ref.out_stride = ref.in;
  const auto strides = view->strides();
  if (tensor.data == nullptr || !strides) return ref;
  ref.out_stride = strides->first;
  ref.in_stride = strides->second;
  ref.data = tensor.data + view->offset * dtype_bytes(tensor.dtype);
  return ref;
}

// The stored shape of a quantised tensor of the rule, in the container's type.
std::vector<int64_t> quantised_shape(const TensorRule& rule, DType stored) {
  return {rule.shape[0], stored == DType::u8 ? row_bytes(DType::i4, rule.shape[1]) : rule.shape[1]};
}

// Whether the tensor is one that `pali convert --dtype int8|int4` writes, scales not looked at yet.
bool is_quantised_tensor(const TensorRule& rule, const StoredTensor& tensor) {
  return (tensor.dtype == DType::i8 || tensor.dtype == DType::u8) && tensor.name == rule.name &&
         rule.shape.size() == 2 && rule.least != Precision::f32 && tensor.plain();
}

WeightRef make_quantised_ref(const TensorRule& rule, const StoredTensor& tensor,
                             const StoredTensor* scale, const std::string& where) {
  const auto refuse = [&](const std::string& name, const std::string& expected,
                          const std::string& found) {
    throw Error(ErrorCode::corrupt_file, "tensor " + quote(name) + ": expected " + expected +
                                             ", found " + found + " (" + where +
                                             "); convert the model again");
  };
  const bool int8 = tensor.dtype == DType::i8;
  const std::vector<int64_t> shape = quantised_shape(rule, tensor.dtype);
  if (tensor.shape != shape) {
    refuse(tensor.name, "shape " + shape_text(shape), shape_text(tensor.shape));
  }
  const std::string name = tensor.name + std::string(kScaleSuffix);
  const DType type = int8 ? DType::f32 : DType::f16;
  std::vector<int64_t> scales = {rule.shape[0]};
  if (!int8) scales.push_back(int4_groups(rule.shape[1]));
  const std::string expected = std::string(dtype_name(type)) + " " + shape_text(scales);
  if (scale == nullptr || !scale->plain()) refuse(name, expected, "none");
  if (scale->dtype != type || scale->shape != scales) {
    refuse(name, expected, std::string(dtype_name(scale->dtype)) + " " + shape_text(scale->shape));
  }
  WeightRef ref;
  ref.name = rule.name;
  ref.dtype = int8 ? DType::i8 : DType::i4;
  ref.out = rule.shape[0];
  ref.in = ref.out_stride = rule.shape[1];
  ref.data = tensor.data;
  ref.scales = scale->data;
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
    BoundTensor bound;
    if (is_quantised_tensor(rule, *tensor)) {
      const StoredTensor* scale = store.find(tensor->name + std::string(kScaleSuffix));
      bound.ref = make_quantised_ref(rule, *tensor, scale, store.where());
      used.insert(scale->name);
    } else {
      bound.ref = make_float_ref(rule, *tensor, store.where());
    }
    if (used.insert(tensor->name).second) {
      const bool quantised = is_quantised(bound.ref.dtype);
      table.parameters_by_dtype_[weight_name(bound.ref.dtype)] +=
          quantised ? bound.ref.out * bound.ref.in : tensor->elements();
    }
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

std::byte* TensorTable::own(int64_t bytes) { return owned_.emplace_back(bytes).data(); }

void TensorTable::load(const WeightStore& store) {
  check_scales(store.where());
  std::map<std::string_view, std::vector<BoundTensor*>> by_source;
  for (auto& [name, tensor] : bound_) by_source[tensor.source].push_back(&tensor);
  for (const auto& [source, users] : by_source) {
    const StoredTensor* stored = store.find(source);
    PALI_ASSERT(stored != nullptr);
    if (stored->check) stored->check();
    const bool ready = std::none_of(users.begin(), users.end(),
                                    [](const BoundTensor* user) { return user->ref.empty(); });
    if (ready) continue;
    // One packed tensor after another, so that no more than one is in memory twice.
    AlignedBuffer<std::byte> unpacked;
    StoredTensor plain = *stored;
    if (plain.data == nullptr) {
      unpacked = AlignedBuffer<std::byte>(plain.bytes);
      plain.unpack({unpacked.data(), static_cast<size_t>(plain.bytes)});
      plain.data = unpacked.data();
    }
    bool kept = false;
    for (BoundTensor* user : users) {
      WeightRef& ref = user->ref;
      if (!ref.empty()) continue;
      const TensorView view = *view_of(user->rule, plain);
      const int64_t element = dtype_bytes(ref.dtype);
      const auto strides = view.strides();
      if (strides && strides->second == 1) {
        ref.out_stride = strides->first;
        ref.data = plain.data + view.offset * element;
        kept = true;
      } else {
        std::byte* turned = own(ref.out * ref.in * element);
        view.copy(plain.data, element, turned);
        ref.data = turned;
      }
    }
    if (kept) owned_.push_back(std::move(unpacked));
  }
}

void TensorTable::turn() {
  for (auto& [name, tensor] : bound_) {
    WeightRef& ref = tensor.ref;
    if (ref.rows_contiguous() || ref.out == 1) continue;
    TensorView view;
    view.out = {{ref.out, ref.out_stride}};
    view.in = {{ref.in, ref.in_stride}};
    const int64_t element = dtype_bytes(ref.dtype);
    std::byte* turned = own(ref.out * ref.in * element);
    view.copy(ref.data, element, turned);
    ref.data = turned;
    ref.out_stride = ref.in;
    ref.in_stride = 1;
  }
}

void TensorTable::check_scales(const std::string& where) const {
  for (const auto& [name, tensor] : bound_) {
    const WeightRef& ref = tensor.ref;
    if (!is_quantised(ref.dtype)) continue;
    const bool int8 = ref.dtype == DType::i8;
    const DType type = int8 ? DType::f32 : DType::f16;
    const int64_t count = int8 ? ref.out : ref.out * int4_groups(ref.in);
    // An integer test of the exponents, so that the compiler may vectorise it.
    bool finite = true;
    for (int64_t i = 0; i < count; ++i) {
      uint32_t bits = 0;
      std::memcpy(&bits, ref.scales + i * dtype_bytes(type), int8 ? 4 : 2);
      const uint32_t exponent = int8 ? 0x7f800000u : 0x7c00u;
      finite &= (bits & exponent) != exponent;
    }
    if (!finite) {
      throw Error(ErrorCode::corrupt_file, "tensor " + quote(name + std::string(kScaleSuffix)) +
                                               ": expected finite scales, found others (" + where +
                                               "); convert the model again");
    }
  }
}

bool TensorTable::has(std::string_view name) const { return bound_.find(name) != bound_.end(); }

const WeightRef& TensorTable::matrix(std::string_view name) const {
  const auto it = bound_.find(name);
  if (it == bound_.end()) {
    throw Error(ErrorCode::internal,
                "no row of the tensor table is called " + quote(name) + "; please report this");
  }
  PALI_ASSERT(!it->second.ref.empty());
  return it->second.ref;
}

std::vector<float> TensorTable::values(std::string_view name) const {
  const WeightRef& ref = matrix(name);
  std::vector<float> values(static_cast<size_t>(ref.out * ref.in));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = ref.at(static_cast<int64_t>(i) / ref.in, static_cast<int64_t>(i) % ref.in);
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
