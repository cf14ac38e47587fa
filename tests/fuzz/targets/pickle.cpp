// Pickled state dicts.
#include "io/pickle.hpp"

#include "fuzz/targets/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return pali::fuzz::parse(data, size,
                           [](pali::fuzz::Bytes bytes) { pali::read_state_dict(bytes, "fuzz"); });
}
