// The zip container alone, whatever its members hold.
#include "io/zip.hpp"

#include "fuzz/targets/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return pali::fuzz::parse(data, size, [](pali::fuzz::Bytes bytes) {
    for (const pali::ZipMember& member : pali::parse_zip(bytes, "fuzz")) {
      std::vector<std::byte> head(64);
      pali::unpack_head(member, head, "fuzz");
      if (member.size > 1 << 20) continue;
      std::vector<std::byte> all(static_cast<size_t>(member.size));
      pali::unpack_from(member, 0, all, "fuzz");
    }
  });
}
