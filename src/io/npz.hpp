// numpy's .npz: a zip file of .npy arrays.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "io/weight_store.hpp"

namespace pali {

// The arrays of a file in memory, named without ".npy". Stored ones lie in place; deflated ones are
// unpacked by StoredTensor::unpack, which borrows `file`. Only headers are read here. Throws Error
// as parse_zip and parse_npy do, and corrupt_file where a member's size is not its header's, or
// where all that is deflated claims to be far larger than weights ever deflate.
std::vector<StoredTensor> read_npz(std::span<const std::byte> file, const std::string& where);

}  // namespace pali
