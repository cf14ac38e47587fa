// Zip files and .npy arrays made by hand, right and wrong ones.
#pragma once

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace pali::test {

inline std::string little(uint64_t value, int bytes) {
  std::string text;
  for (int i = 0; i < bytes; ++i) text += static_cast<char>(value >> (8 * i) & 0xff);
  return text;
}

inline std::string deflated(std::string_view content) {
  z_stream stream{};
  ::deflateInit2(&stream, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
  std::string packed(::deflateBound(&stream, content.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(packed.data());
  stream.avail_out = static_cast<uInt>(packed.size());
  ::deflate(&stream, Z_FINISH);
  packed.resize(stream.total_out);
  ::deflateEnd(&stream);
  return packed;
}

// What the headers say of a member, and what they say wrongly.
struct MemberBytes {
  std::string name, content;
  bool deflate = false;
  bool zip64 = false;       // sizes in the extra field, as numpy writes them
  bool descriptor = false;  // sizes behind the data
  std::optional<uint64_t> claimed_size = {}, claimed_packed = {}, claimed_offset = {};
  std::optional<uint32_t> claimed_crc = {};
  std::optional<uint16_t> claimed_method = {};
  std::optional<std::string> packed = {}, local_name = {};
  uint16_t flags = 0;
};

// `zip64_end`: with the zip64 end record and its locator.
inline std::string zip_bytes(const std::vector<MemberBytes>& members, bool zip64_end = false) {
  std::string file, directory;
  for (const MemberBytes& each : members) {
    const std::string packed =
        each.packed.value_or(each.deflate ? deflated(each.content) : each.content);
    const uint64_t size = each.claimed_size.value_or(each.content.size());
    const uint64_t packed_size = each.claimed_packed.value_or(packed.size());
    const uint64_t offset = each.claimed_offset.value_or(file.size());
    const uint32_t crc = each.claimed_crc.value_or(static_cast<uint32_t>(
        ::crc32_z(0, reinterpret_cast<const Bytef*>(each.content.data()), each.content.size())));
    const uint16_t method = each.claimed_method.value_or(each.deflate ? 8 : 0);
    const uint16_t flags = static_cast<uint16_t>(each.flags | (each.descriptor ? 8 : 0));
    const auto fixed = [&](bool local) {
      std::string text = little(flags, 2) + little(method, 2) + little(0, 4);
      const bool hidden = local && each.descriptor;
      text += little(hidden ? 0 : crc, 4);
      text += little(hidden ? 0 : each.zip64 ? 0xffffffff : packed_size, 4);
      return text + little(hidden ? 0 : each.zip64 ? 0xffffffff : size, 4);
    };
    const std::string wide =
        each.zip64 ? little(1, 2) + little(16, 2) + little(size, 8) + little(packed_size, 8) : "";
    const std::string local = each.local_name.value_or(each.name);
    file += little(0x04034b50, 4) + little(20, 2) + fixed(true) + little(local.size(), 2) +
            little(wide.size(), 2) + local + wide + packed;
    if (each.descriptor) {
      file += little(0x08074b50, 4) + little(crc, 4) + little(packed_size, 4) + little(size, 4);
    }
    directory += little(0x02014b50, 4) + little(20, 2) + little(20, 2) + fixed(false) +
                 little(each.name.size(), 2) + little(wide.size(), 2) + little(0, 2) +
                 little(0, 2) + little(0, 2) + little(0, 4) + little(offset, 4) + each.name + wide;
  }
  const uint64_t at = file.size(), count = members.size();
  file += directory;
  if (zip64_end) {
    const uint64_t record = file.size();
    file += little(0x06064b50, 4) + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 4) +
            little(0, 4) + little(count, 8) + little(count, 8) + little(directory.size(), 8) +
            little(at, 8);
    file += little(0x07064b50, 4) + little(0, 4) + little(record, 8) + little(1, 4);
    return file + little(0x06054b50, 4) + little(0, 4) + little(0xffff, 2) + little(0xffff, 2) +
           little(0xffffffff, 4) + little(0xffffffff, 4) + little(0, 2);
  }
  return file + little(0x06054b50, 4) + little(0, 4) + little(count, 2) + little(count, 2) +
         little(directory.size(), 4) + little(at, 4) + little(0, 2);
}

// A version 1.0 array with the given header dictionary.
inline std::string npy_bytes(std::string header, std::string_view data) {
  header.resize((header.size() + 11 + 63) / 64 * 64 - 11, ' ');
  return "\x93NUMPY" + little(1, 1) + little(0, 1) + little(header.size() + 1, 2) + header + "\n" +
         std::string(data);
}

inline std::string npy_header(std::string_view descr, std::string_view shape,
                              std::string_view order = "False") {
  return "{'descr': '" + std::string(descr) + "', 'fortran_order': " + std::string(order) +
         ", 'shape': " + std::string(shape) + ", }";
}

inline std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * 4};
}

}  // namespace pali::test
