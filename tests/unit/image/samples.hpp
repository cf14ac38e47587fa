// The pictures of tests/data/images, the goldens beside them, and errors as tests look at them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/mapped_file.hpp"
#include "image/image.hpp"
#include "io/json.hpp"
#include "io/safetensors.hpp"
#include "pali/error.hpp"
#include "support/paths.hpp"

namespace pali::test {

using Bytes = std::vector<std::byte>;

inline std::filesystem::path image_path(const std::string& name) {
  return test::data("images") / name;
}
inline Bytes image_bytes(const std::string& name) { return read_file(image_path(name), 1 << 24); }

inline Bytes bytes_of(std::string_view text) {
  const auto* first = reinterpret_cast<const std::byte*>(text.data());
  return Bytes(first, first + text.size());
}

inline ImageU8 decode(const Bytes& bytes, const ImageOptions& options = {}) {
  return decode_image(bytes, options, "picture");
}

// Tensors of one golden file, by name.
class Goldens {
 public:
  explicit Goldens(const std::string& name)
      : bytes_(image_bytes(name)), header_(parse_safetensors(bytes_, name)) {}
  const std::vector<SafetensorsEntry>& entries() const { return header_.entries; }
  const SafetensorsEntry& entry(const std::string& name) const {
    for (const SafetensorsEntry& entry : header_.entries) {
      if (entry.name == name) return entry;
    }
    throw std::runtime_error("no golden " + name);
  }
  std::span<const uint8_t> u8(const std::string& name) const {
    const SafetensorsEntry& found = entry(name);
    if (found.dtype != DType::u8) throw std::runtime_error("not u8: " + name);
    return {reinterpret_cast<const uint8_t*>(bytes_.data()) + header_.data_offset + found.begin,
            static_cast<size_t>(found.end - found.begin)};
  }
  std::vector<float> f32(const std::string& name) const {
    const SafetensorsEntry& found = entry(name);
    if (found.dtype != DType::f32) throw std::runtime_error("not f32: " + name);
    std::vector<float> values(static_cast<size_t>(found.end - found.begin) / 4);
    std::memcpy(values.data(), bytes_.data() + header_.data_offset + found.begin,
                values.size() * 4);
    return values;
  }

 private:
  Bytes bytes_;
  SafetensorsHeader header_;
};

struct Difference {
  double mean = 0;
  int largest = 0;
};
inline Difference difference(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  if (a.size() != b.size()) return {256, 256};
  Difference found;
  for (size_t i = 0; i < a.size(); ++i) {
    const int d = std::abs(int{a[i]} - int{b[i]});
    found.largest = std::max(found.largest, d);
    found.mean += d;
  }
  found.mean /= static_cast<double>(a.size());
  return found;
}

// Runs `what`, expects Error of `code` whose one line holds every one of `parts`.
inline void expect_error(ErrorCode code, const std::vector<std::string>& parts,
                         const std::function<void()>& what) {
  try {
    what();
    ADD_FAILURE() << "no error; expected " << to_string(code);
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_STREQ(to_string(error.code()), to_string(code)) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_NE(message.find("; "), std::string::npos) << "says not what to do: " << message;
    for (const std::string& part : parts) {
      EXPECT_NE(message.find(part), std::string::npos) << message << "\nlacks " << part;
    }
  }
}

}  // namespace pali::test
