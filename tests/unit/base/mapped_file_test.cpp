// Files read or mapped, and what is said about those that cannot be.
#include "base/mapped_file.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <utility>

#include "support/expect_error.hpp"
#include "support/temp_folder.hpp"

namespace pali {
namespace {

using test::expect_error;
using test::TempFolder;

std::string text_of(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

TEST(MappedFile, MappedAndReadAreTheSame) {
  const TempFolder folder;
  const std::string content(10000, 'p');
  const auto path = folder.write("naïve – 图.bin", content);
  EXPECT_EQ(text_of(MappedFile::open(path, /*use_mmap=*/true)), content);
  EXPECT_EQ(text_of(MappedFile::open(path, /*use_mmap=*/false)), content);
  EXPECT_EQ(read_text_file(path, 10000), content);
}

TEST(MappedFile, MovesKeepTheBytes) {
  const TempFolder folder;
  for (const bool use_mmap : {true, false}) {
    MappedFile first = MappedFile::open(folder.write("first", "one"), use_mmap);
    const std::byte* address = first.bytes().data();
    MappedFile second = std::move(first);
    EXPECT_EQ(second.bytes().data(), address);
    MappedFile third = MappedFile::open(folder.write("third", "three"), use_mmap);
    third = std::move(second);
    EXPECT_EQ(text_of(third), "one");
  }
}

TEST(MappedFile, ErrorsNameThePath) {
  const TempFolder folder;
  const auto empty = folder.write("empty", "");
  const auto pipe = folder / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (const bool use_mmap : {true, false}) {
    const auto open = [&](const std::filesystem::path& path) {
      return [path, use_mmap] { MappedFile::open(path, use_mmap); };
    };
    expect_error(ErrorCode::not_found, {"nothing-here"}, open(folder / "nothing-here"));
    expect_error(ErrorCode::not_found, {"empty/below"}, open(empty / "below"));
    expect_error(ErrorCode::invalid_argument, {"a folder", folder.path().string()},
                 open(folder.path()));
    expect_error(ErrorCode::corrupt_file, {"empty file"}, open(empty));
    expect_error(ErrorCode::invalid_argument, {"not a regular file"}, open("/dev/null"));
    expect_error(ErrorCode::invalid_argument, {"not a regular file"}, open(pipe));  // and no wait
  }
}

TEST(MappedFile, ASparseGiantIsAnErrorWhereItIsRead) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers end the program where memory is refused";
#endif
  const TempFolder folder;
  const auto path = folder.write("giant", "x");
  std::error_code refused;  // by a file system without sparse files
  std::filesystem::resize_file(path, std::uintmax_t{1} << 42, refused);
  if (refused) GTEST_SKIP() << refused.message();
  struct rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_AS, &before), 0);
  struct rlimit small = before;
  small.rlim_cur = rlim_t{4} << 30;
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &small), 0);
  expect_error(ErrorCode::out_of_memory, {"giant", "4398046511104"},
               [&] { MappedFile::open(path, /*use_mmap=*/false); });
  ASSERT_EQ(::setrlimit(RLIMIT_AS, &before), 0);
}

TEST(MappedFile, ReadingHasALimit) {
  const TempFolder folder;
  const auto path = folder.write("config.json", "123456");
  EXPECT_EQ(read_file(path, 6).size(), 6u);
  expect_error(ErrorCode::corrupt_file, {"6 bytes", "at most 5", "config.json"},
               [&] { read_file(path, 5); });
}

}  // namespace
}  // namespace pali
