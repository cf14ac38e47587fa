#include "io/weight_store.hpp"

#include <algorithm>
#include <iterator>
#include <set>
#include <system_error>
#include <utility>

#include "base/checked.hpp"
#include "base/quote.hpp"
#include "io/json.hpp"
#include "io/npz.hpp"
#include "io/safetensors.hpp"
#include "io/torch_file.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

namespace fs = std::filesystem;

// How the weights of a folder are named, in the order of preference.
struct Naming {
  const char* single;
  const char* index;
  bool pickled = false;
};
constexpr Naming kNamings[] = {
    {"model.safetensors", "model.safetensors.index.json"},
    {"pytorch_model.bin", "pytorch_model.bin.index.json", /*pickled=*/true}};

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// For a POSIX shell, so that the line in a message can be pasted.
std::string shell_quote(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

[[noreturn]] void refuse_bare_pickle(const fs::path& file) {
  const fs::path folder = file.parent_path();
  throw Error(
      ErrorCode::unsupported,
      "a bare pickle, as PyTorch wrote before version 1.6 (" + file.string() +
          "); convert the weights once: python3 -c \"import glob, sys, torch; from "
          "safetensors.torch "
          "import save_file; d = sys.argv[1]; save_file({k: v.clone().contiguous() for f in "
          "sorted(glob.glob(glob.escape(d) + '/pytorch_model*.bin')) for k, v in torch.load(f, "
          "map_location='cpu', weights_only=True).items()}, d + '/model.safetensors')\" " +
          shell_quote(folder.string()));
}

// Names of shards come out of a file: nothing but plain file names of the same folder will do.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

}  // namespace

int64_t StoredTensor::elements() const { return bytes / dtype_bytes(dtype); }

void WeightStore::add(StoredTensor tensor) {
  std::string name = tensor.name;
  tensors_.emplace(std::move(name), std::move(tensor));
}

const MappedFile& WeightStore::map(const fs::path& file, bool use_mmap) {
  return files_.emplace_back(MappedFile::open(file, use_mmap));
}

static std::vector<StoredTensor> safetensors_of(const MappedFile& file, SafetensorsHeader& header) {
  header = parse_safetensors(file.bytes(), file.path().string());
  std::vector<StoredTensor> tensors;
  tensors.reserve(header.entries.size());
  for (SafetensorsEntry& entry : header.entries) {
    StoredTensor& tensor = tensors.emplace_back();
    tensor.name = std::move(entry.name);
    tensor.dtype = entry.dtype;
    tensor.shape = std::move(entry.shape);
    tensor.data = file.bytes().data() + header.data_offset + entry.begin;
    tensor.bytes = entry.end - entry.begin;
  }
  return tensors;
}

// The tensors of one file of a folder.
static std::vector<StoredTensor> tensors_of(const MappedFile& file, const Naming& naming) {
  if (!naming.pickled) {
    SafetensorsHeader header;
    return safetensors_of(file, header);
  }
  if (!is_torch_zip(file.bytes())) refuse_bare_pickle(file.path());
  return read_torch_file(file.bytes(), file.path().string());
}

WeightStore WeightStore::open_safetensors(const fs::path& file, bool use_mmap) {
  WeightStore store;
  store.where_ = file.string();
  SafetensorsHeader header;
  for (StoredTensor& tensor : safetensors_of(store.map(file, use_mmap), header)) {
    store.add(std::move(tensor));
  }
  store.metadata_ = std::move(header.metadata);
  return store;
}

WeightStore WeightStore::open_npz(const fs::path& file, bool use_mmap) {
  WeightStore store;
  store.where_ = file.string();
  for (StoredTensor& tensor : read_npz(store.map(file, use_mmap).bytes(), store.where_)) {
    store.add(std::move(tensor));
  }
  return store;
}

// Shards by name, and the tensors that the index expects in each.
static std::map<std::string, std::set<std::string>> read_index(const fs::path& path) {
  const std::string where = path.string();
  const Json index = read_json_file(path);
  const JsonFields weight_map = JsonFields(index, where).object("weight_map");
  std::map<std::string, std::set<std::string>> shards;
  for (const auto& [name, value] : index["weight_map"].items()) {
    const std::string shard = weight_map.string(name);
    if (!is_plain_name(shard)) {
      throw Error(ErrorCode::corrupt_file,
                  "tensor " + quote(name) + ": expected a plain file name, found " + quote(shard) +
                      " (" + where + "); download the index again");
    }
    shards[shard].insert(name);
  }
  if (shards.empty()) {
    throw Error(ErrorCode::corrupt_file,
                "weight_map is empty (" + where + "); download the index again");
  }
  return shards;
}

WeightStore WeightStore::open_folder(const fs::path& folder, bool use_mmap) {
  WeightStore store;
  const auto found =
      std::find_if(std::begin(kNamings), std::end(kNamings), [&](const Naming& each) {
        return is_there(folder / each.single) || is_there(folder / each.index);
      });
  if (found == std::end(kNamings)) {
    throw Error(ErrorCode::not_found, std::string("no weights: neither ") + kNamings[0].single +
                                          " nor " + kNamings[0].index + " nor " +
                                          kNamings[1].single + " (" + folder.string() +
                                          "); download the model's safetensors files into it");
  }
  if (is_there(folder / found->single)) {
    const fs::path path = folder / found->single;
    store.where_ = path.string();
    for (StoredTensor& tensor : tensors_of(store.map(path, use_mmap), *found)) {
      store.add(std::move(tensor));
    }
    return store;
  }
  store.where_ = folder.string();
  for (auto& [shard, names] : read_index(folder / found->index)) {
    const fs::path path = folder / shard;
    if (!is_there(path)) {
      throw Error(ErrorCode::not_found,
                  "shard " + quote(shard) + " is missing, the index names it (" +
                      (folder / found->index).string() + "); download all shards");
    }
    std::set<std::string> expected = names;
    for (StoredTensor& tensor : tensors_of(store.map(path, use_mmap), *found)) {
      // Shards may hold more than the index lists; only what it lists is the model.
      if (expected.erase(tensor.name) > 0) store.add(std::move(tensor));
    }
    if (!expected.empty()) {
      throw Error(ErrorCode::corrupt_file, "tensor " + quote(*expected.begin()) +
                                               " is not in the shard that the index names (" +
                                               path.string() + "); download all shards again");
    }
  }
  return store;
}

const StoredTensor* WeightStore::find(std::string_view name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

int64_t WeightStore::bytes() const {
  int64_t total = 0;
  for (const auto& [name, tensor] : tensors_) total += tensor.bytes;
  return total;
}

std::span<std::byte> WeightStore::add_owned(std::string name, DType dtype,
                                            std::vector<int64_t> shape) {
  const std::optional<int64_t> bytes = checked_bytes(shape, dtype_bytes(dtype));
  PALI_ASSERT(bytes && !tensors_.contains(name));
  AlignedBuffer<std::byte> memory(*bytes);
  std::byte* data = memory.data();
  owned_.push_back(std::move(memory));
  StoredTensor tensor;
  tensor.name = name;
  tensor.dtype = dtype;
  tensor.shape = std::move(shape);
  tensor.data = data;
  tensor.bytes = *bytes;
  add(std::move(tensor));
  return {data, static_cast<size_t>(*bytes)};
}

void WeightStore::absorb(WeightStore&& other, const std::string& prefix) {
  for (auto& [name, tensor] : other.tensors_) {
    tensor.name = prefix + name;
    std::string key = tensor.name;
    const bool added = tensors_.emplace(std::move(key), std::move(tensor)).second;
    PALI_ASSERT(added);
  }
  for (MappedFile& file : other.files_) files_.push_back(std::move(file));
  for (AlignedBuffer<std::byte>& memory : other.owned_) owned_.push_back(std::move(memory));
  if (where_.empty()) where_ = other.where_;
  other = WeightStore();
}

}  // namespace pali
