// Zip archives of arrays: everything that they let one unpack is unpacked.
#include "io/npz.hpp"

#include "fuzz/targets/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return pali::fuzz::parse(data, size, [](pali::fuzz::Bytes bytes) {
    for (const pali::StoredTensor& array : pali::read_npz(bytes, "fuzz")) {
      if (array.check) array.check();
      std::vector<std::byte> out(static_cast<size_t>(array.bytes));
      if (array.unpack) array.unpack(out);
      if (array.data != nullptr) std::memcpy(out.data(), array.data, out.size());
    }
  });
}
