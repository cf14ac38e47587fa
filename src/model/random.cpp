// Checkpoints nobody trained: the shapes of a config file, filled fast. For benchmarks.
#include "model/random.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <utility>

#include "base/checked.hpp"
#include "base/mapped_file.hpp"
#include "exec/memory.hpp"
#include "model/checkpoint.hpp"

namespace pali {
namespace {

constexpr int64_t kPoolValues = 1 << 20;
// About 1/sqrt(D) of the widths in use: activations neither die out nor explode.
constexpr float kSpread = 0.02f;
constexpr float kLargest = 1.7320508f * kSpread;  // of uniform values with that deviation

void store(DType dtype, float value, std::byte* out) {
  if (dtype == DType::f32) {
    std::memcpy(out, &value, 4);
  } else {
    const uint16_t bits = dtype == DType::bf16 ? f32_to_bf16(value) : f32_to_f16(value);
    std::memcpy(out, &bits, 2);
  }
}

void fill_with(DType dtype, float value, std::span<std::byte> out) {
  for (size_t at = 0; at < out.size(); at += static_cast<size_t>(dtype_bytes(dtype))) {
    store(dtype, value, out.data() + at);
  }
}

// Never narrower than the row allows, as in conversion.
DType dtype_of(const TensorRule& rule, DType dtype) {
  if (rule.least == Precision::f32 || dtype == DType::f32) return DType::f32;
  if (rule.least == Precision::bf16) return DType::bf16;
  return rule.least == Precision::int8 && dtype == DType::i4 ? DType::i8 : dtype;
}

// As the tensor lies in a file.
struct Stored {
  DType type;
  std::vector<int64_t> shape;
};
Stored stored_form(const TensorRule& rule, DType type) {
  if (type != DType::i4) return {type, rule.shape};
  return {DType::u8, {rule.shape[0], row_bytes(type, rule.shape[1])}};
}
Stored scales_of(const TensorRule& rule, DType type) {
  if (type == DType::i8) return {DType::f32, {rule.shape[0]}};
  return {DType::f16, {rule.shape[0], int4_groups(rule.shape[1])}};
}

bool is_norm_weight(const std::string& name) {
  return name.find("norm") != std::string::npos && name.ends_with(".weight");
}

std::string gigabytes(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f GB", static_cast<double>(bytes) * 1e-9);
  return text;
}

// Allocating succeeds for more than there is, and writing to it then ends the process: so the sum
// is held against what is left before anything is allocated.
void check_memory(const std::vector<TensorRule>& rules, DType dtype, const std::string& where) {
  const int64_t available = available_memory_bytes("/");
  int64_t needed = 0;
  for (const TensorRule& rule : rules) {
    // Scales are left out: a sixteenth at most.
    const Stored stored = stored_form(rule, dtype_of(rule, dtype));
    const std::optional<int64_t> bytes = checked_bytes(stored.shape, dtype_bytes(stored.type));
    if (!bytes || __builtin_add_overflow(needed, *bytes, &needed)) {
      needed = std::numeric_limits<int64_t>::max();
      break;
    }
  }
  if (available == 0 || needed <= available) return;
  throw Error(ErrorCode::out_of_memory, "the weights of this configuration need " +
                                            gigabytes(needed) + ", " + gigabytes(available) +
                                            " of memory are available (" + where +
                                            "); use a smaller one, or a narrower --dtype");
}

}  // namespace

RandomWeights::RandomWeights(DType dtype, uint64_t seed) : dtype_(dtype), random_(seed) {
  bytes_.resize(static_cast<size_t>(kPoolValues * dtype_bytes(dtype)));
  for (int64_t i = 0; i < kPoolValues; ++i) {
    if (!is_quantised(dtype)) {
      store(dtype, kLargest * random_.symmetric(), bytes_.data() + i * dtype_bytes(dtype));
    } else if (dtype == DType::i8) {
      bytes_[static_cast<size_t>(i)] = static_cast<std::byte>(random_.next() % 255 - 127);
    } else {
      bytes_[static_cast<size_t>(i)] = static_cast<std::byte>(random_.next());
    }
  }
}

void RandomWeights::fill(std::span<std::byte> out) {
  while (!out.empty()) {
    // At least half the pool at a time.
    const auto first = static_cast<int64_t>(random_.next() % (kPoolValues / 2));
    const std::span<const std::byte> part = std::span<const std::byte>(bytes_).subspan(
        static_cast<size_t>(first * dtype_bytes(dtype_)));
    const size_t count = std::min(out.size(), part.size());
    std::memcpy(out.data(), part.data(), count);
    out = out.subspan(count);
  }
}

void RandomWeights::fill_scales(std::span<std::byte> out) const {
  if (dtype_ == DType::i8) fill_with(DType::f32, kLargest / 127, out);
  if (dtype_ == DType::i4) fill_with(DType::f16, kLargest / 8, out);
}

void RandomWeights::fill_ones(std::span<std::byte> out) const { fill_with(dtype_, 1.0f, out); }

Checkpoint random_checkpoint(const std::filesystem::path& config_file, DType dtype, uint64_t seed) {
  if (dtype != DType::f32 && dtype != DType::bf16 && !is_quantised(dtype)) {
    throw Error(ErrorCode::unsupported, std::string("random weights of dtype ") +
                                            dtype_name(dtype) + " (" + config_file.string() +
                                            "); f32, bf16, int8 and int4 are made");
  }
  ConfigFiles files;
  files.where = config_file.string();
  files.config_text = read_text_file(config_file, 1 << 20);
  files.config = parse_json(files.config_text, files.where);
  Family family = read_family(files);

  std::vector<TensorRule> made = family.rules;
  const bool separate_head = family.config.language && family.config.language->separate_head;
  if (!separate_head) std::erase_if(made, [](const TensorRule& rule) { return rule.optional; });
  check_memory(made, dtype, files.where);

  std::map<DType, RandomWeights> random;
  WeightStore store;
  try {
    for (const TensorRule& rule : made) {
      const DType type = dtype_of(rule, dtype);
      RandomWeights& weights =
          random.try_emplace(type, type, seed + static_cast<uint64_t>(type)).first->second;
      Stored stored = stored_form(rule, type);
      const std::span<std::byte> out = store.add_owned(rule.name, stored.type, stored.shape);
      is_norm_weight(rule.name) ? weights.fill_ones(out) : weights.fill(out);
      if (!is_quantised(type)) continue;
      stored = scales_of(rule, type);
      weights.fill_scales(store.add_owned(rule.name + std::string(kScaleSuffix), stored.type,
                                          std::move(stored.shape)));
    }
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::out_of_memory, "no memory for the weights of this configuration (" +
                                              config_file.string() +
                                              "); use a smaller one, or a narrower --dtype");
  }
  return bind_checkpoint(std::move(family), std::move(store), "random", config_file);
}

}  // namespace pali
