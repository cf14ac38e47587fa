// pytorch_model.bin: the first and the last element of every tensor are read.
#include "io/torch_file.hpp"

#include "fuzz/targets/target.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return pali::fuzz::parse(data, size, [](pali::fuzz::Bytes bytes) {
    for (const pali::StoredTensor& tensor : pali::read_torch_file(bytes, "fuzz")) {
      if (tensor.elements() == 0) continue;
      int64_t last = tensor.strides.empty() ? tensor.elements() - 1 : 0;
      for (size_t i = 0; i < tensor.strides.size(); ++i) {
        last += (tensor.shape[i] - 1) * tensor.strides[i];
      }
      const int64_t element = pali::dtype_bytes(tensor.dtype);
      volatile std::byte first_byte = tensor.data[0];
      volatile std::byte last_byte = tensor.data[last * element + element - 1];
      static_cast<void>(first_byte);
      static_cast<void>(last_byte);
    }
  });
}
