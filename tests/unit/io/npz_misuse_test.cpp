// Archives that lie: each lie is refused in one line that names file and member.
#include <gtest/gtest.h>

#include "io/npz.hpp"
#include "support/expect_error.hpp"
#include "unit/io/zip_bytes.hpp"

namespace pali {
namespace {

using test::expect_error;
using test::floats;
using test::little;
using test::MemberBytes;
using test::npy_bytes;
using test::npy_header;
using test::zip_bytes;

void read(const std::string& file) {
  for (const StoredTensor& each :
       read_npz(std::as_bytes(std::span(file.data(), file.size())), "w.npz")) {
    if (each.check) each.check();
    if (!each.unpack) continue;
    std::vector<std::byte> out(static_cast<size_t>(each.bytes));
    each.unpack(out);
  }
}

void refuse(const std::string& file, std::initializer_list<std::string_view> parts,
            ErrorCode code = ErrorCode::corrupt_file) {
  SCOPED_TRACE(*parts.begin());
  expect_error(code, {"w.npz"}, [&] { read(file); });
  expect_error(code, parts, [&] { read(file); });
}

MemberBytes member(const std::string& name = "a.npy") {
  return {.name = name, .content = npy_bytes(npy_header("<f4", "(2, 2)"), floats({1, 2, 3, 4}))};
}
MemberBytes deflated_member() {
  MemberBytes each = member();
  each.deflate = true;
  return each;
}

TEST(NpzMisuse, TheUndamagedOnesAreRead) {
  read(zip_bytes({member()}));
  read(zip_bytes({deflated_member()}));
}

TEST(NpzMisuse, Cut) {
  for (const bool zip64 : {false, true}) {
    MemberBytes packed = deflated_member();
    packed.name = "b.npy";
    const std::string file = zip_bytes({member(), packed}, zip64);
    for (size_t length = 0; length < file.size(); ++length) {
      expect_error(ErrorCode::corrupt_file, {"w.npz"}, [&] { read(file.substr(0, length)); });
    }
  }
  refuse("PK", {"no end of a zip directory"});
}

TEST(NpzMisuse, Directory) {
  MemberBytes each = member();
  std::string file = zip_bytes({each});
  const size_t end = file.size() - 22;
  const auto with = [&](size_t at, uint64_t value, int bytes) {
    std::string copy = file;
    return copy.replace(end + at, static_cast<size_t>(bytes), little(value, bytes));
  };
  refuse(with(16, 0xfffffff0, 4), {"expected a directory within"});
  refuse(with(12, 0xfffffff0, 4), {"expected a directory within"});
  refuse(with(16, 3, 4), {"expected an entry"});
  refuse(with(8, 0x00020002, 4), {"cannot list 2"});
  refuse(with(8, 0, 4), {"expected a directory of 0 bytes"});
  refuse(with(16, 0xffffffff, 4), {"points to a zip64 record"});
  refuse(with(4, 1, 2), {"several parts"}, ErrorCode::unsupported);
  file = zip_bytes({each}, /*zip64_end=*/true);
  std::string wrong = file;
  refuse(wrong.replace(file.size() - 22 - 12, 8, little(~uint64_t{0}, 8)),
         {"expected a zip64 end record"});
}

TEST(NpzMisuse, Members) {
  MemberBytes each = member();
  each.claimed_offset = 7;
  refuse(zip_bytes({each}), {"'a.npy'", "expected its header at byte 7"});
  each = member();
  each.claimed_packed = each.claimed_size = 1 << 20;
  refuse(zip_bytes({each}), {"'a.npy'", "before the directory"});
  each = member();
  each.local_name = "b.npy";
  refuse(zip_bytes({each}), {"'a.npy'", "'b.npy'", "otherwise than the directory"});
  each = member();
  each.claimed_size = 100;
  refuse(zip_bytes({each}), {"'a.npy'", "expected 100 bytes, found"});
  refuse(zip_bytes({member(), member()}), {"'a.npy' stands twice"});
  each = member();
  each.claimed_method = 12;
  refuse(zip_bytes({each}), {"method 0 (stored) or 8", "found 12"}, ErrorCode::unsupported);
  each = member();
  each.flags = 1;
  refuse(zip_bytes({each}), {"'a.npy' is encrypted"}, ErrorCode::unsupported);
}

TEST(NpzMisuse, Overlap) {
  // The second lies in the content of the first.
  const std::string inner = zip_bytes({member("b.npy")});
  MemberBytes outer = member("a.npy");
  const uint64_t header = 30 + outer.name.size();
  outer.content = inner.substr(0, inner.size() - 22 - 46 - 5);
  MemberBytes second = member("b.npy");
  second.claimed_offset = header;
  refuse(zip_bytes({outer, second}), {"'a.npy' and 'b.npy' overlap"});
}

TEST(NpzMisuse, Bombs) {
  MemberBytes each = deflated_member();
  each.claimed_size = uint64_t{1} << 30;
  refuse(zip_bytes({each}), {"'a.npy'", "cannot hold the 1073741824"});
  // True to its word, but no weights deflate so well.
  each = {.name = "zeros.npy",
          .content = npy_bytes(npy_header("<f4", "(20000000,)"), std::string(80'000'000, '\0')),
          .deflate = true};
  refuse(zip_bytes({each}), {"'zeros.npy' unpacks to 80000128", "zip bomb"});
  // More than the header says, and less.
  const std::string two = npy_bytes(npy_header("<f4", "(2,)"), floats({1, 2}));
  each = {.name = "a.npy", .content = two + std::string(1000, '\0'), .deflate = true};
  refuse(zip_bytes({each}), {"'a.npy'", "expected 8 bytes by shape and dtype, found 1008"});
  each.claimed_size = two.size();
  refuse(zip_bytes({each}), {"'a.npy'", "the end of its deflate stream, found more"});
  each.content = two.substr(0, two.size() - 1);
  refuse(zip_bytes({each}), {"'a.npy'", "breaks off"});
}

TEST(NpzMisuse, DamagedContent) {
  MemberBytes each = member();
  each.claimed_crc = 5;
  refuse(zip_bytes({each}), {"'a.npy'", "expected checksum 5"});
  each = deflated_member();
  each.claimed_crc = 5;
  refuse(zip_bytes({each}), {"'a.npy'", "expected checksum 5"});
  each = deflated_member();
  each.packed = std::string(each.content.size(), '\xff');
  refuse(zip_bytes({each}), {"'a.npy'", "breaks off"});
  each = deflated_member();
  each.packed = test::deflated(each.content) + "tail";
  refuse(zip_bytes({each}), {"'a.npy'", "found more"});
}

TEST(NpzMisuse, Arrays) {
  const auto array = [](const std::string& content) {
    return zip_bytes({{.name = "a.npy", .content = content}});
  };
  const std::string data(16, '\0');
  const auto header = [&](const std::string& text) { return array(npy_bytes(text, data)); };
  refuse(zip_bytes({{.name = "a.txt", .content = "hello"}}), {"'a.txt'", "expected a .npy array"});
  refuse(array("no array"), {"'a.npy'", "expected a .npy array"});
  refuse(header(npy_header("<f4", "(2, 2)", "True")), {"Fortran order", "ascontiguousarray"},
         ErrorCode::unsupported);
  refuse(header(npy_header("|O", "(2, 2)")), {"pickled objects"}, ErrorCode::unsupported);
  refuse(header("{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (4,)}"), {"structures"},
         ErrorCode::unsupported);
  refuse(header(npy_header(">f4", "(2, 2)")), {"'>f4'", "little-endian"}, ErrorCode::unsupported);
  refuse(header(npy_header("<c8", "(2,)")), {"'<c8'"}, ErrorCode::unsupported);
  refuse(header(npy_header("<f4", "(2, 3)")), {"expected 24 bytes by shape and dtype, found 16"});
  refuse(header(npy_header("<f4", "(4611686018427387904, 4611686018427387904)")), {"overflows"});
  refuse(header(npy_header("<f4", "(99999999999999999999,)")), {"beyond 64 bits"});
  refuse(header(npy_header("<f4", "(-4,)")), {"no size"});
  refuse(header(npy_header("<f4", "[4]")), {"no '('"});
  refuse(header("{'descr': '<f4', 'shape': (4,)}"), {"no fortran_order"});
  refuse(header("{'descr': '<f4', 'descr': '<f4'}"), {"unknown or second key 'descr'"});
  refuse(header("{'descr': '<f4', 'fortran_order': Maybe}"), {"neither True nor False"});
  refuse(header(npy_header("<f4", "(4,)") + " os.system('x')"), {"text behind the dictionary"});
  refuse(header("{'descr': '<f4"), {"a string without an end"});
  std::string dimensions = "(";
  for (int i = 0; i < 40; ++i) dimensions += "1,";
  refuse(header(npy_header("<f4", dimensions + ")")), {"more than 32 dimensions"});
  std::string version = npy_bytes(npy_header("<f4", "(4,)"), data);
  version[6] = 9;
  refuse(array(version), {".npy version 9"}, ErrorCode::unsupported);
  version[6] = 1;
  version[9] = '\x7f';
  refuse(array(version), {"found a length of"});
}

}  // namespace
}  // namespace pali
