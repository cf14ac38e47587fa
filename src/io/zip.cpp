// Ref: PKWARE's APPNOTE.TXT 6.3.9, sections 4.3 to 4.5, for the records and their fields.
#include "io/zip.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <limits>
#include <new>
#include <set>
#include <string_view>
#include <utility>

#include "base/quote.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

using Bytes = std::span<const std::byte>;

constexpr uint32_t kLocalHeader = 0x04034b50, kDirectoryHeader = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50, kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr size_t kLocalBytes = 30, kDirectoryBytes = 46, kEndBytes = 22;
constexpr size_t kEnd64Bytes = 56, kLocatorBytes = 20;
constexpr size_t kLongestComment = 0xffff;
constexpr uint16_t kEncrypted = 1;
constexpr uint16_t kZip64Field = 1;
// A deflate stream cannot do better: 258 bytes by a code of two bits.
constexpr uint64_t kBestRatio = 1032;

[[noreturn]] void corrupt(const std::string& what, const std::string& where) {
  throw Error(ErrorCode::corrupt_file, what + " (" + where + "); download or save it again");
}

uint64_t number(Bytes bytes, size_t at, int width) {
  uint64_t value = 0;  // little-endian
  for (int i = width - 1; i >= 0; --i) {
    value = value << 8 | std::to_integer<uint64_t>(bytes[at + static_cast<size_t>(i)]);
  }
  return value;
}
uint16_t u16(Bytes bytes, size_t at) { return static_cast<uint16_t>(number(bytes, at, 2)); }
uint32_t u32(Bytes bytes, size_t at) { return static_cast<uint32_t>(number(bytes, at, 4)); }
uint64_t u64(Bytes bytes, size_t at) { return number(bytes, at, 8); }

// Whether [begin, begin + length) lies in [0, end).
bool within(uint64_t begin, uint64_t length, uint64_t end) {
  return begin <= end && length <= end - begin;
}

struct Directory {
  uint64_t offset = 0, bytes = 0, members = 0;
};

// Where the end record begins. Its comment must reach to the last byte of the file.
size_t find_end(Bytes file, const std::string& where) {
  if (file.size() >= kEndBytes) {
    const size_t latest = file.size() - kEndBytes;
    const size_t earliest = latest - std::min(latest, kLongestComment);
    for (size_t at = latest + 1; at-- > earliest;) {
      if (u32(file, at) == kEnd && u16(file, at + 20) == file.size() - at - kEndBytes) return at;
    }
  }
  corrupt("no end of a zip directory: it is cut short, or no zip file", where);
}

Directory read_end(Bytes file, const std::string& where) {
  const size_t end = find_end(file, where);
  Directory directory{u32(file, end + 16), u32(file, end + 12), u16(file, end + 10)};
  uint64_t disks = u16(file, end + 4) | u16(file, end + 6);
  uint64_t here = u16(file, end + 8);
  uint64_t limit = end;
  const bool wide = directory.offset == 0xffffffff || directory.bytes == 0xffffffff ||
                    directory.members == 0xffff;
  if (end >= kLocatorBytes && u32(file, end - kLocatorBytes) == kEnd64Locator) {
    const uint64_t at = u64(file, end - kLocatorBytes + 8);
    if (!within(at, kEnd64Bytes, end - kLocatorBytes) ||
        u32(file, static_cast<size_t>(at)) != kEnd64) {
      corrupt("expected a zip64 end record at byte " + std::to_string(at) + ", found none", where);
    }
    const size_t record = static_cast<size_t>(at);
    disks = u32(file, record + 16) | u32(file, record + 20);
    here = u64(file, record + 24);
    directory = {u64(file, record + 48), u64(file, record + 40), u64(file, record + 32)};
    limit = at;
  } else if (wide) {
    corrupt("the end of the directory points to a zip64 record, found none", where);
  }
  if (disks != 0 || here != directory.members) {
    throw Error(ErrorCode::unsupported,
                "a zip archive in several parts (" + where + "); save it as one file");
  }
  if (!within(directory.offset, directory.bytes, limit)) {
    corrupt("expected a directory within " + std::to_string(limit) + " bytes, found " +
                std::to_string(directory.bytes) + " at byte " + std::to_string(directory.offset),
            where);
  }
  if (directory.members > directory.bytes / kDirectoryBytes) {
    corrupt("a directory of " + std::to_string(directory.bytes) + " bytes cannot list " +
                std::to_string(directory.members) + " members",
            where);
  }
  return directory;
}

// A member and where its local header begins.
struct Listed {
  ZipMember member;
  uint64_t begin = 0, packed_bytes = 0, end = 0;
};

// Fills in size, packed size and place from a zip64 extra field: those that the header leaves to
// it, the others are null.
void read_zip64(Bytes extra, const std::array<uint64_t*, 3>& wide, const std::string& place,
                const std::string& where) {
  if (std::count(wide.begin(), wide.end(), nullptr) == 3) return;
  size_t at = 0;
  while (extra.size() - at >= 4) {
    const uint16_t id = u16(extra, at), length = u16(extra, at + 2);
    at += 4;
    if (length > extra.size() - at) break;
    if (id == kZip64Field) {
      const Bytes field = extra.subspan(at, length);
      size_t used = 0;
      bool complete = true;
      for (uint64_t* value : wide) {
        if (value == nullptr) continue;
        if (field.size() - used < 8) {
          complete = false;
          break;
        }
        *value = u64(field, used);
        used += 8;
      }
      if (complete) return;
      break;
    }
    at += length;
  }
  corrupt(place + ": its zip64 field is missing or too short", where);
}

// The directory's entry at `at`, which moves on behind it.
Listed read_entry(Bytes directory, size_t& at, const std::string& where) {
  if (directory.size() - at < kDirectoryBytes || u32(directory, at) != kDirectoryHeader) {
    corrupt("expected an entry at byte " + std::to_string(at) + " of the directory, found none",
            where);
  }
  const Bytes header = directory.subspan(at, kDirectoryBytes);
  const size_t name_bytes = u16(header, 28), extra_bytes = u16(header, 30);
  const size_t comment_bytes = u16(header, 32);
  if (directory.size() - at - kDirectoryBytes < name_bytes + extra_bytes + comment_bytes) {
    corrupt("an entry reaches beyond the directory", where);
  }
  Listed listed;
  listed.member.name.assign(reinterpret_cast<const char*>(directory.data()) + at + kDirectoryBytes,
                            name_bytes);
  const std::string place = "member " + quote(listed.member.name);
  if ((u16(header, 8) & kEncrypted) != 0) {
    throw Error(ErrorCode::unsupported,
                place + " is encrypted (" + where + "); save it without a password");
  }
  const uint16_t method = u16(header, 10);
  if (method != 0 && method != 8) {
    throw Error(ErrorCode::unsupported,
                place + ": expected method 0 (stored) or 8 (deflated), found " +
                    std::to_string(method) + " (" + where + "); save it with numpy or PyTorch");
  }
  listed.member.deflated = method == 8;
  listed.member.crc = u32(header, 16);
  listed.packed_bytes = u32(header, 20);
  listed.begin = u32(header, 42);
  uint64_t size = u32(header, 24);
  const auto wide = [](uint64_t& value) { return value == 0xffffffff ? &value : nullptr; };
  read_zip64(directory.subspan(at + kDirectoryBytes + name_bytes, extra_bytes),
             {wide(size), wide(listed.packed_bytes), wide(listed.begin)}, place, where);
  if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    corrupt(place + ": its size overflows", where);
  }
  listed.member.size = static_cast<int64_t>(size);
  at += kDirectoryBytes + name_bytes + extra_bytes + comment_bytes;
  return listed;
}

// The local header at the place that the directory names; what lies behind it is the content.
void locate(Bytes file, uint64_t directory_offset, Listed& listed, const std::string& where) {
  ZipMember& member = listed.member;
  const std::string place = "member " + quote(member.name);
  if (!within(listed.begin, kLocalBytes, directory_offset) ||
      u32(file, static_cast<size_t>(listed.begin)) != kLocalHeader) {
    corrupt(
        place + ": expected its header at byte " + std::to_string(listed.begin) + ", found none",
        where);
  }
  const Bytes header = file.subspan(static_cast<size_t>(listed.begin), kLocalBytes);
  const uint64_t name_at = listed.begin + kLocalBytes, name_bytes = u16(header, 26);
  const uint64_t data = name_at + name_bytes + u16(header, 28);
  if (!within(data, listed.packed_bytes, directory_offset)) {
    corrupt(place + ": expected its " + std::to_string(listed.packed_bytes) +
                " bytes before the directory, at byte " + std::to_string(directory_offset) +
                ", found a beginning at byte " + std::to_string(data),
            where);
  }
  const std::string_view name(reinterpret_cast<const char*>(file.data()) + name_at,
                              static_cast<size_t>(name_bytes));
  if (name != member.name || (u16(header, 8) == 8) != member.deflated ||
      (u16(header, 6) & kEncrypted) != 0) {
    corrupt(place + ": its header, of " + quote(name) + ", says otherwise than the directory",
            where);
  }
  listed.end = data + listed.packed_bytes;
  member.packed = file.subspan(static_cast<size_t>(data), static_cast<size_t>(listed.packed_bytes));
  if (!member.deflated && listed.packed_bytes != static_cast<uint64_t>(member.size)) {
    corrupt(place + ": expected " + std::to_string(member.size) + " bytes, found " +
                std::to_string(listed.packed_bytes) + " stored",
            where);
  }
  if (member.deflated && static_cast<uint64_t>(member.size) / kBestRatio > listed.packed_bytes) {
    corrupt(place + ": " + std::to_string(listed.packed_bytes) + " packed bytes cannot hold the " +
                std::to_string(member.size) + " that it claims",
            where);
  }
}

void check_apart(std::vector<Listed>& all, const std::string& where) {
  std::vector<const Listed*> by_place;
  std::set<std::string_view> names;
  for (const Listed& each : all) {
    by_place.push_back(&each);
    if (!names.insert(each.member.name).second) {
      corrupt("member " + quote(each.member.name) + " stands twice", where);
    }
  }
  std::sort(by_place.begin(), by_place.end(),
            [](const Listed* a, const Listed* b) { return a->begin < b->begin; });
  for (size_t i = 1; i < by_place.size(); ++i) {
    if (by_place[i]->begin < by_place[i - 1]->end) {
      corrupt("members " + quote(by_place[i - 1]->member.name) + " and " +
                  quote(by_place[i]->member.name) + " overlap",
              where);
    }
  }
}

uint32_t checksum(uint32_t crc, Bytes bytes) {
  return static_cast<uint32_t>(
      ::crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

void compare(const ZipMember& member, uint32_t found, const std::string& where) {
  if (found == member.crc) return;
  corrupt("member " + quote(member.name) + ": expected checksum " + std::to_string(member.crc) +
              ", found " + std::to_string(found) + ": its content is damaged",
          where);
}

// A raw deflate stream, read piece by piece.
class Inflater {
 public:
  explicit Inflater(Bytes packed) : packed_(packed) {
    if (::inflateInit2(&stream_, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
  }
  ~Inflater() { ::inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  // Bytes written: fewer than asked for only at the end of the stream, or where it is damaged.
  size_t read(std::span<std::byte> out) {
    constexpr size_t kStep = size_t{1} << 30;  // zlib counts in 32 bits
    size_t done = 0;
    while (done < out.size() && !ended_ && !damaged_) {
      const size_t in_step = std::min(packed_.size() - taken_, kStep);
      const size_t out_step = std::min(out.size() - done, kStep);
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(packed_.data() + taken_));
      stream_.avail_in = static_cast<uInt>(in_step);
      stream_.next_out = reinterpret_cast<Bytef*>(out.data() + done);
      stream_.avail_out = static_cast<uInt>(out_step);
      const int status = ::inflate(&stream_, Z_NO_FLUSH);
      const size_t taken = in_step - stream_.avail_in, made = out_step - stream_.avail_out;
      taken_ += taken;
      done += made;
      ended_ = status == Z_STREAM_END;
      damaged_ = !ended_ && (status != Z_OK || (taken == 0 && made == 0));
    }
    return done;
  }
  // Whether the stream ends here, with the last packed byte.
  bool at_end() {
    std::byte more;
    return read({&more, 1}) == 0 && ended_ && taken_ == packed_.size();
  }

 private:
  Bytes packed_;
  size_t taken_ = 0;
  bool ended_ = false, damaged_ = false;
  z_stream stream_{};
};

}  // namespace

std::vector<ZipMember> parse_zip(Bytes file, const std::string& where) {
  const Directory end = read_end(file, where);
  const Bytes directory =
      file.subspan(static_cast<size_t>(end.offset), static_cast<size_t>(end.bytes));
  std::vector<Listed> all;
  size_t at = 0;
  for (uint64_t i = 0; i < end.members; ++i) {
    all.push_back(read_entry(directory, at, where));
    locate(file, end.offset, all.back(), where);
  }
  if (at != directory.size()) {
    corrupt("expected a directory of " + std::to_string(at) + " bytes, found " +
                std::to_string(directory.size()),
            where);
  }
  check_apart(all, where);
  std::vector<ZipMember> members;
  members.reserve(all.size());
  for (Listed& each : all) members.push_back(std::move(each.member));
  return members;
}

size_t unpack_head(const ZipMember& member, std::span<std::byte> out, const std::string& where) {
  const size_t wanted = std::min(out.size(), static_cast<size_t>(member.size));
  if (!member.deflated) {
    std::copy_n(member.packed.begin(), wanted, out.begin());
    return wanted;
  }
  const size_t found = Inflater(member.packed).read(out.first(wanted));
  if (found < wanted) {
    corrupt("member " + quote(member.name) + ": expected " + std::to_string(member.size) +
                " bytes, found " + std::to_string(found) + " before its deflate stream breaks off",
            where);
  }
  return found;
}

void unpack_from(const ZipMember& member, int64_t offset, std::span<std::byte> out,
                 const std::string& where) {
  const size_t size = static_cast<size_t>(member.size);
  if (offset < 0 || static_cast<size_t>(offset) > size ||
      out.size() != size - static_cast<size_t>(offset)) {
    throw Error(ErrorCode::internal, "a part of member " + quote(member.name) +
                                         " that does not fit (" + where + "); please report this");
  }
  if (!member.deflated) {
    check_stored(member, where);
    std::copy_n(member.packed.begin() + offset, out.size(), out.begin());
    return;
  }
  Inflater inflater(member.packed);
  std::vector<std::byte> head(static_cast<size_t>(offset));
  const size_t found = inflater.read(head) + inflater.read(out);
  if (found != size || !inflater.at_end()) {
    corrupt("member " + quote(member.name) + ": expected " + std::to_string(size) +
                " bytes and the end of its deflate stream, found " +
                (found < size ? std::to_string(found) : "more"),
            where);
  }
  compare(member, checksum(checksum(0, head), out), where);
}

void check_stored(const ZipMember& member, const std::string& where) {
  compare(member, checksum(0, member.packed), where);
}

}  // namespace pali
