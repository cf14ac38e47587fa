// The zip container, as far as numpy and PyTorch write it: members stored or deflated, zip64, data
// descriptors. The one file pair that knows zlib. Nothing is unpacked but on demand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace pali {

struct ZipMember {
  std::string name;
  bool deflated = false;
  uint32_t crc = 0;                   // of the unpacked bytes
  int64_t size = 0;                   // unpacked, as the directory claims
  std::span<const std::byte> packed;  // in the file; the content itself where not deflated
};

// Members in the order of the directory. Strict: the directory lies within the file and is as long
// as it says, every local header agrees with it, no two members overlap, no name stands twice, no
// claim beyond what deflate can reach; encryption, spanned archives and other methods are refused.
// Throws Error (corrupt_file, unsupported) naming `where`, member, expected and found.
std::vector<ZipMember> parse_zip(std::span<const std::byte> file, const std::string& where);

// The first bytes of a member, at most out.size() of them: returns how many there are. Unchecked
// otherwise: to look at a header.
size_t unpack_head(const ZipMember& member, std::span<std::byte> out, const std::string& where);

// The unpacked bytes from `offset` to the end: out.size() == member.size - offset. Checks the
// length and the CRC of the whole. Never writes beyond `out`. Throws Error(corrupt_file).
void unpack_from(const ZipMember& member, int64_t offset, std::span<std::byte> out,
                 const std::string& where);

// Compares the checksum of a member that is used where it lies. Throws Error(corrupt_file).
void check_stored(const ZipMember& member, const std::string& where);

}  // namespace pali
