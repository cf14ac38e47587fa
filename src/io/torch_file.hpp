// PyTorch's own files, pytorch_model.bin: a zip file with one pickle and a member a storage.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "io/weight_store.hpp"

namespace pali {

// Whether the bytes are torch.save's zip container; older files are a bare pickle.
bool is_torch_zip(std::span<const std::byte> file);

// The tensors of a state dict, in place and with the strides that they have. Their checksums are
// not compared, as PyTorch does not. Throws Error as parse_zip and read_state_dict do; corrupt_file
// where a tensor reaches beyond its storage; unsupported (deflated or big-endian storages, tensors
// that see an element several times).
std::vector<StoredTensor> read_torch_file(std::span<const std::byte> file,
                                          const std::string& where);

}  // namespace pali
