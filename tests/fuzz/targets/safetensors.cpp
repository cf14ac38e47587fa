// Headers of safetensors files.
#include "io/safetensors.hpp"

#include "fuzz/targets/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return pali::fuzz::parse(data, size, [](pali::fuzz::Bytes bytes) {
    const pali::SafetensorsHeader header = pali::parse_safetensors(bytes, "fuzz");
    for (const pali::SafetensorsEntry& entry : header.entries) {
      const int64_t end = header.data_offset + entry.end;
      if (entry.begin < 0 || end > static_cast<int64_t>(bytes.size())) __builtin_trap();
    }
  });
}
