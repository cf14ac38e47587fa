#include "io/npz.hpp"

#include <algorithm>
#include <utility>

#include "base/quote.hpp"
#include "io/npy.hpp"
#include "io/zip.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

constexpr std::string_view kSuffix = ".npy";
// Weights hardly deflate; zeros do, a thousandfold. What claims more than this all together is a
// zip bomb.
constexpr int64_t kMostRatio = 64, kAlwaysAllowed = int64_t{64} << 20;

[[noreturn]] void corrupt(const std::string& what, const std::string& where) {
  throw Error(ErrorCode::corrupt_file, what + " (" + where + "); download or save it again");
}

StoredTensor read_array(const ZipMember& member, const std::string& where) {
  const std::string place = where + ", member " + quote(member.name);
  if (!member.name.ends_with(kSuffix)) {
    corrupt("member " + quote(member.name) + ": expected a .npy array", where);
  }
  std::vector<std::byte> head(
      static_cast<size_t>(std::min<int64_t>(kLongestNpyHeader, member.size)));
  head.resize(unpack_head(member, head, where));
  NpyHeader header = parse_npy(head, place);
  if (member.size - header.data_offset != header.bytes) {
    corrupt("member " + quote(member.name) + ": expected " + std::to_string(header.bytes) +
                " bytes by shape and dtype, found " +
                std::to_string(member.size - header.data_offset),
            where);
  }
  StoredTensor tensor;
  tensor.name = member.name.substr(0, member.name.size() - kSuffix.size());
  tensor.dtype = header.dtype;
  tensor.shape = std::move(header.shape);
  tensor.bytes = header.bytes;
  if (member.deflated) {
    tensor.unpack = [member, where, offset = header.data_offset](std::span<std::byte> out) {
      unpack_from(member, offset, out, where);
    };
  } else {
    tensor.data = member.packed.data() + header.data_offset;
    tensor.check = [member, where] { check_stored(member, where); };
  }
  return tensor;
}

}  // namespace

std::vector<StoredTensor> read_npz(std::span<const std::byte> file, const std::string& where) {
  const std::vector<ZipMember> members = parse_zip(file, where);
  const int64_t file_bytes = static_cast<int64_t>(file.size());
  int64_t room = kAlwaysAllowed + file_bytes * kMostRatio;
  std::vector<StoredTensor> tensors;
  tensors.reserve(members.size());
  for (const ZipMember& member : members) {
    if (member.deflated) {
      if (member.size > room) {
        corrupt("member " + quote(member.name) + " unpacks to " + std::to_string(member.size) +
                    " bytes: too much for a file of " + std::to_string(file_bytes) + ", a zip bomb",
                where);
      }
      room -= member.size;
    }
    tensors.push_back(read_array(member, where));
  }
  return tensors;
}

}  // namespace pali
