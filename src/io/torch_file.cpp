#include "io/torch_file.hpp"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "base/checked.hpp"
#include "base/quote.hpp"
#include "io/pickle.hpp"
#include "io/zip.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

constexpr std::string_view kPickle = "/data.pkl";
constexpr int64_t kLargestPickle = 32 << 20;

[[noreturn]] void corrupt(const std::string& what, const std::string& where) {
  throw Error(ErrorCode::corrupt_file, what + " (" + where + "); download it again");
}

// Members by name.
class Archive {
 public:
  Archive(std::span<const std::byte> file, const std::string& where)
      : members_(parse_zip(file, where)), where_(where) {
    for (const ZipMember& member : members_) by_name_.emplace(member.name, &member);
    for (const ZipMember& member : members_) {
      // "archive/data.pkl": what stands before is the name of the file as it was saved.
      const std::string& name = member.name;
      const size_t at = name.find('/');
      if (at != std::string::npos && name.substr(at) == kPickle) root_ = name.substr(0, at);
    }
    if (root_.empty()) corrupt("expected a member data.pkl, found none", where);
  }
  // The bytes of "ROOT/NAME", which must be stored.
  std::optional<std::span<const std::byte>> find(const std::string& name) const {
    const auto it = by_name_.find(root_ + "/" + name);
    if (it == by_name_.end()) return std::nullopt;
    if (it->second->deflated) {
      throw Error(ErrorCode::unsupported, "member " + quote(it->second->name) +
                                              " is deflated, as PyTorch never writes it (" +
                                              where_ + "); save it with torch.save");
    }
    return it->second->packed;
  }

 private:
  std::vector<ZipMember> members_;
  const std::string& where_;
  std::map<std::string_view, const ZipMember*> by_name_;
  std::string root_;
};

bool is_row_major(const PickledTensor& tensor) {
  int64_t stride = 1;
  for (size_t i = tensor.shape.size(); i-- > 0;) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != stride) return false;
    stride *= tensor.shape[i];
  }
  return true;
}

// Behind the last element, or nothing where that overflows. An empty tensor ends where it begins.
std::optional<int64_t> end_in_storage(const PickledTensor& tensor, int64_t elements) {
  int64_t end = tensor.offset;
  if (elements == 0) return end;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    const std::optional<int64_t> reach = checked_multiply(tensor.shape[i] - 1, tensor.strides[i]);
    if (!reach || __builtin_add_overflow(end, *reach, &end)) return std::nullopt;
  }
  if (__builtin_add_overflow(end, int64_t{1}, &end)) return std::nullopt;
  return end;
}

StoredTensor place(PickledTensor&& pickled, std::span<const std::byte> storage,
                   const std::string& where) {
  const int64_t element = dtype_bytes(pickled.dtype);
  const std::string name = "tensor " + quote(pickled.name);
  if (checked_multiply(pickled.storage_elements, element) != static_cast<int64_t>(storage.size())) {
    corrupt(name + ": expected a storage of " + std::to_string(pickled.storage_elements) + " " +
                dtype_name(pickled.dtype) + ", found " + std::to_string(storage.size()) + " bytes",
            where);
  }
  const std::optional<int64_t> elements = checked_bytes(pickled.shape, 1);
  const std::optional<int64_t> end = elements ? end_in_storage(pickled, *elements) : std::nullopt;
  if (!end || *end > pickled.storage_elements) {
    corrupt(name + " reaches beyond its storage of " + std::to_string(pickled.storage_elements) +
                " elements",
            where);
  }
  // A stride of zero, or of less than what lies inside of it.
  if (*elements > *end - pickled.offset) {
    throw Error(ErrorCode::unsupported, name + " sees elements of its storage several times (" +
                                            where + "); save .contiguous() of it");
  }
  StoredTensor tensor;
  tensor.name = std::move(pickled.name);
  tensor.dtype = pickled.dtype;
  if (!is_row_major(pickled)) tensor.strides = std::move(pickled.strides);
  tensor.shape = std::move(pickled.shape);
  tensor.data = storage.data() + pickled.offset * element;
  tensor.bytes = *elements * element;
  return tensor;
}

}  // namespace

bool is_torch_zip(std::span<const std::byte> file) {
  constexpr std::string_view kMagic("PK\x03\x04", 4);
  return file.size() >= kMagic.size() &&
         std::string_view(reinterpret_cast<const char*>(file.data()), kMagic.size()) == kMagic;
}

std::vector<StoredTensor> read_torch_file(std::span<const std::byte> file,
                                          const std::string& where) {
  const Archive archive(file, where);
  const std::span<const std::byte> pickle = *archive.find("data.pkl");
  if (static_cast<int64_t>(pickle.size()) > kLargestPickle) {
    corrupt("a pickle of " + std::to_string(pickle.size()) + " bytes, at most " +
                std::to_string(kLargestPickle) + " expected",
            where);
  }
  if (const auto order = archive.find("byteorder")) {
    const std::string_view text(reinterpret_cast<const char*>(order->data()), order->size());
    if (text != "little") {
      throw Error(ErrorCode::unsupported, "byteorder " + quote(text) + ", little expected (" +
                                              where + "); save it on a little-endian machine");
    }
  }
  std::vector<StoredTensor> tensors;
  for (PickledTensor& pickled : read_state_dict(pickle, where + ", member data.pkl")) {
    const auto storage = archive.find("data/" + pickled.storage);
    if (!storage) {
      corrupt("tensor " + quote(pickled.name) + ": its storage " + quote(pickled.storage) +
                  " is not in the file",
              where);
    }
    tensors.push_back(place(std::move(pickled), *storage, where));
  }
  return tensors;
}

}  // namespace pali
