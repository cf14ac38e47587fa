// The pickle of a PyTorch state dict, read without running it: a dictionary of tensors can be
// built, and nothing else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.hpp"

namespace pali {

// A tensor as torch._utils._rebuild_tensor_v2 is told to build it.
struct PickledTensor {
  std::string name;
  std::string storage;  // key of the storage: the member data/KEY of the file
  DType dtype = DType::f32;
  int64_t storage_elements = 0;
  int64_t offset = 0;                   // of the first element in the storage
  std::vector<int64_t> shape, strides;  // as many of the one as of the other; none negative
};

// The tensors in the order of the dictionary. Known are the opcodes that torch.save writes, and of
// names collections.OrderedDict, torch's storages, _rebuild_tensor_v2 and _rebuild_parameter; any
// other opcode or name ends the reading. `where` names file and member. Throws Error: corrupt_file,
// unsupported (another name or opcode, a dictionary of other things).
std::vector<PickledTensor> read_state_dict(std::span<const std::byte> pickle,
                                           const std::string& where);

}  // namespace pali
