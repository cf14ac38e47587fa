// Reading numbers out of files that may lie: a view whose every read is checked beforehand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace pali {

// Callers ask has(offset, count) before they read.
class ByteView {
 public:
  explicit ByteView(std::span<const std::byte> bytes)
      : data_(reinterpret_cast<const uint8_t*>(bytes.data())), size_(bytes.size()) {}

  explicit ByteView(const std::vector<std::byte>& bytes)
      : ByteView(std::span<const std::byte>(bytes)) {}

  size_t size() const { return size_; }
  const uint8_t* data() const { return data_; }
  bool has(size_t offset, size_t count) const { return offset <= size_ && count <= size_ - offset; }
  bool starts(size_t offset, std::string_view text) const {
    return has(offset, text.size()) &&
           std::string_view(reinterpret_cast<const char*>(data_) + offset, text.size()) == text;
  }
  uint32_t u8(size_t offset) const { return data_[offset]; }
  uint32_t be16(size_t offset) const { return u8(offset) << 8 | u8(offset + 1); }
  uint32_t be32(size_t offset) const { return be16(offset) << 16 | be16(offset + 2); }
  uint32_t le16(size_t offset) const { return u8(offset) | u8(offset + 1) << 8; }
  uint32_t le32(size_t offset) const { return le16(offset) | le16(offset + 2) << 16; }

 private:
  const uint8_t* data_;
  size_t size_;
};

}  // namespace pali
