// The tensors of a checkpoint as they lie in its files: names, shapes, bytes. Const after open.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.hpp"
#include "base/mapped_file.hpp"
#include "base/tensor.hpp"

namespace pali {

// The u8 tensor of a pali checkpoint that holds its tokenizer (models/FORMAT.md): no weight.
inline constexpr std::string_view kTokenizerTensor = "tokenizer.model";

// "NAME.scale" holds the scales of a quantised tensor NAME.
inline constexpr std::string_view kScaleSuffix = ".scale";

struct StoredTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;  // not necessarily aligned; null where it must be unpacked
  int64_t bytes = 0;
  std::vector<int64_t> strides = {};  // in elements; none: row-major
  // Writes `bytes` bytes, row-major; set where data is null. Throws Error(corrupt_file).
  std::function<void(std::span<std::byte> out)> unpack = {};
  // Compares the file's checksum of data; set where there is one. Throws Error(corrupt_file).
  std::function<void()> check = {};
  // Row-major, in memory.
  bool plain() const { return data != nullptr && strides.empty(); }
  int64_t elements() const;
};

class WeightStore {
 public:
  WeightStore() = default;
  WeightStore(WeightStore&&) = default;
  WeightStore& operator=(WeightStore&&) = default;

  // One .safetensors file. Strict: see io/safetensors.hpp. Throws Error.
  static WeightStore open_safetensors(const std::filesystem::path& file, bool use_mmap = true);
  // numpy's .npz. Stored arrays lie in place; deflated ones are unpacked when a table is loaded.
  // Throws Error.
  static WeightStore open_npz(const std::filesystem::path& file, bool use_mmap = true);
  // A folder with model.safetensors, or model.safetensors.index.json and its shards (plain file
  // names; symlinks are followed); else pytorch_model.bin in the same way. A bare pickle of an old
  // PyTorch: Error(unsupported) with the line of Python that converts it.
  static WeightStore open_folder(const std::filesystem::path& folder, bool use_mmap = true);

  const std::map<std::string, StoredTensor, std::less<>>& tensors() const { return tensors_; }
  const StoredTensor* find(std::string_view name) const;
  // __metadata__ of a single file; empty for folders.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  int64_t bytes() const;                        // of all tensors
  std::string where() const { return where_; }  // the path, for messages

  // Adds a tensor that the store owns (random weights, parts composed in memory, tests). The memory
  // is 64-byte aligned and not initialised: the caller writes it through the returned span.
  std::span<std::byte> add_owned(std::string name, DType dtype, std::vector<int64_t> shape);
  // Takes over all tensors and files of another store, each name prefixed.
  void absorb(WeightStore&& other, const std::string& prefix);

 private:
  void add(StoredTensor tensor);
  const MappedFile& map(const std::filesystem::path& file, bool use_mmap);

  std::map<std::string, StoredTensor, std::less<>> tensors_;
  std::map<std::string, std::string> metadata_;
  std::vector<MappedFile> files_;
  std::vector<AlignedBuffer<std::byte>> owned_;
  std::string where_;
};

}  // namespace pali
