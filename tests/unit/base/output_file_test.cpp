// Output files appear whole or not at all.
#include "base/output_file.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <string>

#include "support/expect_error.hpp"
#include "support/temp_folder.hpp"

namespace pali {
namespace {

using test::expect_error;
using test::slurp;
using test::TempFolder;

int64_t files_in(const TempFolder& folder) {
  int64_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    ++count;
  }
  return count;
}

TEST(OutputFile, AppearsOnCommit) {
  const TempFolder folder;
  OutputFile file(folder / "out.txt");
  file.write("first ");
  file.write("second");
  EXPECT_FALSE(std::filesystem::exists(folder / "out.txt"));
  file.commit();
  EXPECT_EQ(slurp(folder / "out.txt"), "first second");
  EXPECT_EQ(files_in(folder), 1);
}

TEST(OutputFile, WithoutCommitTheOldFileStays) {
  const TempFolder folder;
  folder.write("out.txt", "old");
  {
    OutputFile file(folder / "out.txt");
    file.write("new");
  }
  EXPECT_EQ(slurp(folder / "out.txt"), "old");
  EXPECT_EQ(files_in(folder), 1);
}

TEST(OutputFile, CommitReplacesTheOldFile) {
  const TempFolder folder;
  folder.write("out.txt", "old and longer");
  OutputFile file(folder / "out.txt");
  file.write("new");
  file.commit();
  EXPECT_EQ(slurp(folder / "out.txt"), "new");
}

TEST(OutputFile, TwoWritersOfOnePathDoNotMeet) {
  const TempFolder folder;
  OutputFile first(folder / "out.txt"), second(folder / "out.txt");
  first.write("first");
  second.write("second");
  second.commit();
  EXPECT_EQ(slurp(folder / "out.txt"), "second");
  first.commit();
  EXPECT_EQ(slurp(folder / "out.txt"), "first");
  EXPECT_EQ(files_in(folder), 1);
}

TEST(OutputFile, PermissionsAreAsTheUmaskSays) {
  const TempFolder folder;
  const mode_t before = ::umask(027);
  {
    OutputFile file(folder / "out.txt");
    file.write("x");
    file.commit();
  }
  ::umask(before);
  struct stat info = {};
  ASSERT_EQ(::stat((folder / "out.txt").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
}

TEST(OutputFile, LinksAreFollowed) {
  const TempFolder folder;
  folder.write("target", "old");
  ::chmod((folder / "target").c_str(), 0600);
  std::filesystem::create_symlink("target", folder / "link");
  OutputFile file(folder / "link");
  file.write("new");
  file.commit();
  EXPECT_TRUE(std::filesystem::is_symlink(folder / "link"));
  EXPECT_EQ(slurp(folder / "target"), "new");
  struct stat info = {};
  ASSERT_EQ(::stat((folder / "target").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST(OutputFile, PipesAndDevicesKeepTheirPlaces) {
  const TempFolder folder;
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  expect_error(ErrorCode::invalid_argument, {"pipe"}, [&] { OutputFile file(folder / "pipe"); });
  EXPECT_TRUE(std::filesystem::is_fifo(folder / "pipe"));
  EXPECT_EQ(files_in(folder), 1);
}

TEST(OutputFile, NoFolderNoFile) {
  const TempFolder folder;
  folder.write("file", "x");
  expect_error(ErrorCode::invalid_argument, {"missing/out.txt", "No such file"},
               [&] { OutputFile(folder / "missing/out.txt"); });
  expect_error(ErrorCode::invalid_argument, {"file/out.txt"},
               [&] { OutputFile(folder / "file/out.txt"); });
  expect_error(ErrorCode::invalid_argument, {"a folder where a file"},
               [&] { OutputFile(folder.path()); });
  expect_error(ErrorCode::invalid_argument, {"a folder where a file"},
               [&] { OutputFile(folder / "new/"); });
}

TEST(OutputFile, RenameOntoAFolderFailsAndCleansUp) {
  const TempFolder folder;
  OutputFile file(folder / "out");
  file.write("x");
  std::filesystem::create_directory(folder / "out");
  expect_error(ErrorCode::invalid_argument, {"cannot write"}, [&] { file.commit(); });
  EXPECT_EQ(files_in(folder), 1);
}

// A file size limit stands in for a full disk.
TEST(OutputFile, AFailedWriteIsAnErrorAndLeavesNothing) {
  const TempFolder folder;
  struct rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = before;
  small.rlim_cur = 1000;
  auto* handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  {
    OutputFile file(folder / "out");
    expect_error(ErrorCode::invalid_argument, {"cannot write", "out"},
                 [&] { file.write(std::string(5000, 'x')); });
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(files_in(folder), 0);
}

}  // namespace
}  // namespace pali
