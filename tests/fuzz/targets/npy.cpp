// Headers of .npy arrays.
#include "io/npy.hpp"

#include "fuzz/targets/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return pali::fuzz::parse(data, size, [](pali::fuzz::Bytes bytes) {
    const pali::NpyHeader header = pali::parse_npy(bytes, "fuzz");
    if (header.bytes < 0 || header.data_offset > static_cast<int64_t>(bytes.size())) {
      __builtin_trap();
    }
  });
}
