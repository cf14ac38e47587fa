#include "base/output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

#include "pali/error.hpp"

namespace pali {
namespace {

[[noreturn]] void fail(const char* what, const std::filesystem::path& path, int error) {
  throw Error(ErrorCode::invalid_argument, std::string(what) + ": " + std::strerror(error) + " (" +
                                               path.string() +
                                               "); check the folder, its permissions and the disk");
}

}  // namespace

OutputFile::OutputFile(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code ignored;
  if (path_.filename().empty() || std::filesystem::is_directory(path_, ignored)) {
    throw Error(ErrorCode::invalid_argument, "a folder where a file is to be written (" +
                                                 path_.string() + "); name a file in it");
  }
  // Two writers of the same path, in two processes or in one, must not meet in one temporary: the
  // name is tried until it is new. 0666: the umask decides, as for any file a program makes.
  for (int attempt = 0; fd_ < 0; ++attempt) {
    temporary_ = path_;
    temporary_ += ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(attempt);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && (errno != EEXIST || attempt == 1000)) fail("cannot write", path_, errno);
  }
}

OutputFile::~OutputFile() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail("cannot write", path_, errno);
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
}

void OutputFile::write(std::string_view text) {
  write(std::as_bytes(std::span(text.data(), text.size())));
}

void OutputFile::commit() {
  const int closed = ::close(std::exchange(fd_, -1));  // NFS reports a full disk here
  const int error = errno;
  if (closed != 0 || std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int reason = closed != 0 ? error : errno;
    ::unlink(temporary_.c_str());
    fail("cannot write", path_, reason);
  }
}

}  // namespace pali
