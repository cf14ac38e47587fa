// Checkpoints nobody trained: the shapes of a config file, filled fast. For benchmarks.
#include "model/random.hpp"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <optional>

#include "base/checked.hpp"
#include "base/mapped_file.hpp"
#include "exec/memory.hpp"
#include "model/checkpoint.hpp"

namespace pali {
namespace {

// Values are drawn once, then copied from varying places: ten gigabytes at the speed of memory.
constexpr int64_t kPoolValues = 1 << 20;
// About 1/sqrt(D) of the widths in use: activations neither die out nor explode.
constexpr float kSpread = 0.02f;

class ValuePool {
 public:
  ValuePool(DType dtype, uint64_t seed) : dtype_(dtype), random_(seed) {
    bytes_.resize(static_cast<size_t>(kPoolValues * dtype_bytes(dtype)));
    for (int64_t i = 0; i < kPoolValues; ++i) {
      store(1.7320508f * kSpread * random_.symmetric(), bytes_.data() + i * dtype_bytes(dtype));
    }
  }
  void fill(std::span<std::byte> out) {
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
  void fill_ones(std::span<std::byte> out) const {
    for (size_t at = 0; at < out.size(); at += static_cast<size_t>(dtype_bytes(dtype_))) {
      store(1.0f, out.data() + at);
    }
  }

 private:
  void store(float value, std::byte* out) const {
    if (dtype_ == DType::f32) {
      std::memcpy(out, &value, 4);
    } else {
      const uint16_t bits = f32_to_bf16(value);
      std::memcpy(out, &bits, 2);
    }
  }
  DType dtype_;
  RandomBits random_;
  std::vector<std::byte> bytes_;
};

// Vectors and tables that the products do not read keep their precision.
DType dtype_of(const TensorRule& rule, DType dtype) {
  return rule.least == Precision::f32 ? DType::f32 : dtype;
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
    const std::optional<int64_t> bytes =
        checked_bytes(rule.shape, dtype_bytes(dtype_of(rule, dtype)));
    if (!bytes || __builtin_add_overflow(needed, *bytes, &needed)) {
      needed = std::numeric_limits<int64_t>::max();
      break;
    }
  }
  if (available == 0 || needed <= available) return;
  throw Error(ErrorCode::out_of_memory, "the weights of this configuration need " +
                                            gigabytes(needed) + ", " + gigabytes(available) +
                                            " of memory are available (" + where +
                                            "); use a smaller one, or --dtype bf16");
}

}  // namespace

Checkpoint random_checkpoint(const std::filesystem::path& config_file, DType dtype, uint64_t seed) {
  if (dtype != DType::f32 && dtype != DType::bf16) {
    throw Error(ErrorCode::unsupported, std::string("random weights of dtype ") +
                                            dtype_name(dtype) + " (" + config_file.string() +
                                            "); f32 and bf16 are made");
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

  ValuePool narrow(dtype, seed), wide(DType::f32, seed + 1);
  WeightStore store;
  try {
    for (const TensorRule& rule : made) {
      const DType type = dtype_of(rule, dtype);
      const std::span<std::byte> out = store.add_owned(rule.name, type, rule.shape);
      ValuePool& pool = rule.least == Precision::f32 ? wide : narrow;
      is_norm_weight(rule.name) ? pool.fill_ones(out) : pool.fill(out);
    }
  } catch (const std::bad_alloc&) {
    throw Error(ErrorCode::out_of_memory, "no memory for the weights of this configuration (" +
                                              config_file.string() +
                                              "); use a smaller one, or --dtype bf16");
  }
  return bind_checkpoint(std::move(family), std::move(store), "random", config_file);
}

}  // namespace pali
