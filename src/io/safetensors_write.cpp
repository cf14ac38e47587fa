// Writing safetensors files, one tensor in memory at a time.
#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <set>

#include "base/checked.hpp"
#include "base/output_file.hpp"
#include "base/quote.hpp"
#include "base/tensor.hpp"
#include "io/safetensors.hpp"
#include "io/safetensors_dtype.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

constexpr int64_t kAlignment = 64;

// Largest power of two up to 64 that divides a size.
int64_t alignment_of(int64_t bytes) {
  return bytes == 0 ? kAlignment : std::min(kAlignment, bytes & -bytes);
}

std::string json_text(const std::string& text, const std::filesystem::path& path) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    throw Error(ErrorCode::invalid_argument,
                "text that is not UTF-8: " + quote(text) + " (" + path.string() + "); give UTF-8");
  }
}

}  // namespace

void write_safetensors(const std::filesystem::path& path,
                       const std::vector<SafetensorsOutput>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<int64_t> bytes;
  std::set<std::string_view> names;
  int64_t total = 0;
  for (const SafetensorsOutput& tensor : tensors) {
    const std::optional<int64_t> size = checked_bytes(tensor.shape, dtype_bytes(tensor.dtype));
    PALI_ASSERT(size && !__builtin_add_overflow(total, *size, &total));
    PALI_ASSERT(names.insert(tensor.name).second && tensor.name != "__metadata__");
    bytes.push_back(*size);
  }
  // Sizes divisible by 64 first, then by 32, 16, ...: every tensor then begins at a multiple of
  // the power of two that its own size has, without a gap anywhere.
  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return alignment_of(bytes[a]) > alignment_of(bytes[b]);
  });

  std::string header = "{";
  if (!metadata.empty()) {
    header += "\"__metadata__\":{";
    const char* separator = "";
    for (const auto& [key, value] : metadata) {
      header += separator;
      header += json_text(key, path) + ":" + json_text(value, path);
      separator = ",";
    }
    header += "}";
  }
  int64_t offset = 0;
  for (const size_t i : order) {
    if (header.size() > 1) header += ",";
    header += json_text(tensors[i].name, path) + ":{\"dtype\":\"";
    header += safetensors_dtype_name(tensors[i].dtype);
    header += "\",\"shape\":" + nlohmann::json(tensors[i].shape).dump() + ",\"data_offsets\":[" +
              std::to_string(offset) + "," + std::to_string(offset + bytes[i]) + "]}";
    offset += bytes[i];
  }
  header += "}";
  while ((header.size() + 8) % kAlignment != 0) header += ' ';

  OutputFile file(path);
  std::byte length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<std::byte>(header.size() >> (8 * i) & 0xff);
  file.write(length);
  file.write(header);
  for (const size_t i : order) {
    AlignedBuffer<std::byte> memory(bytes[i]);
    const std::span<std::byte> out(memory.data(), static_cast<size_t>(bytes[i]));
    tensors[i].fill(out);
    file.write(out);
  }
  file.commit();
}

}  // namespace pali
