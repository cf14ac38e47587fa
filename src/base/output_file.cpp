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

std::filesystem::path OutputFile::place_of(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_symlink(path, error)) return path;
  const std::filesystem::path target = std::filesystem::canonical(path, error);
  return error ? path : target;
}

OutputFile::OutputFile(std::filesystem::path path) : path_(place_of(path)) {
  std::error_code ignored;
  if (path_.filename().empty() || std::filesystem::is_directory(path_, ignored)) {
    throw Error(ErrorCode::invalid_argument, "a folder where a file is to be written (" +
                                                 path_.string() + "); name a file in it");
  }
  struct stat old = {};
  const bool replaces = ::stat(path_.c_str(), &old) == 0;
  if (replaces && !S_ISREG(old.st_mode)) {
    // A rename would put a file in the place of /dev/null or of a named pipe.
    throw Error(ErrorCode::invalid_argument, "a device or a pipe where a file is to be written (" +
                                                 path_.string() + "); name a file");
  }
  // Two writers of the same path, in two processes or in one, must not meet in one temporary: the
  // name is tried until it is new. 0666: the umask decides, as for any file a program makes.
  for (int attempt = 0; fd_ < 0; ++attempt) {
    temporary_ = path_;
    temporary_ += ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(attempt);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && (errno != EEXIST || attempt == 1000)) fail("cannot write", path_, errno);
  }
  if (replaces) ::fchmod(fd_, old.st_mode & 0777);  // who could not read the old one, cannot this
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
