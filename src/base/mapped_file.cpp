#include "base/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <string_view>
#include <utility>

#include "pali/error.hpp"

namespace pali {
namespace {

// Owns a descriptor for the length of one function.
struct Descriptor {
  explicit Descriptor(int opened) : fd(opened) {}
  Descriptor(Descriptor&& other) noexcept : fd(std::exchange(other.fd, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
  int fd;
};

// Names out of JSON may hold what no name of a file can: the system would stop reading there.
void refuse_nul(const std::filesystem::path& path) {
  if (path.native().find('\0') == std::string::npos) return;
  throw Error(ErrorCode::invalid_argument, "a file name with a NUL character in it (" +
                                               std::string(path.c_str()) + "...); leave it out");
}

// What a clone holds in place of large files where Git LFS is not installed.
void refuse_lfs_pointer(std::span<const std::byte> bytes, const std::filesystem::path& path) {
  constexpr std::string_view kStart = "version https://git-lfs.github.com/spec/";
  if (bytes.size() < kStart.size() || bytes.size() > 1024 ||
      std::memcmp(bytes.data(), kStart.data(), kStart.size()) != 0) {
    return;
  }
  throw Error(ErrorCode::corrupt_file, "a Git LFS pointer instead of the file itself (" +
                                           path.string() +
                                           "); fetch the file: git lfs install, git lfs pull");
}

Descriptor open_regular(const std::filesystem::path& path, size_t& size) {
  refuse_nul(path);
  // O_NONBLOCK: opening a named pipe would wait for its writer, only to be refused below.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.fd < 0) {
    const bool missing = errno == ENOENT || errno == ENOTDIR;
    throw Error(missing ? ErrorCode::not_found : ErrorCode::invalid_argument,
                std::string(missing ? "no such file" : std::strerror(errno)) + " (" +
                    path.string() + "); check the path");
  }
  struct stat info = {};
  if (::fstat(file.fd, &info) != 0 || S_ISDIR(info.st_mode)) {
    throw Error(ErrorCode::invalid_argument,
                "a folder where a file is expected (" + path.string() + "); name a file in it");
  }
  if (!S_ISREG(info.st_mode)) {
    throw Error(ErrorCode::invalid_argument, "not a regular file (" + path.string() +
                                                 "); give a file, or - to read standard input");
  }
  if (info.st_size <= 0) {
    throw Error(ErrorCode::corrupt_file,
                "empty file (" + path.string() + "); download or make it again");
  }
  size = static_cast<size_t>(info.st_size);
  return file;
}

void read_fully(int fd, std::byte* out, size_t size, const std::filesystem::path& path) {
  size_t done = 0;
  while (done < size) {
    const ssize_t n = ::read(fd, out + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      throw Error(ErrorCode::corrupt_file, "cannot read the whole file (" + path.string() +
                                               "); check the disk and the file");
    }
    done += static_cast<size_t>(n);
  }
}

}  // namespace

MappedFile MappedFile::open(const std::filesystem::path& path, bool use_mmap) {
  size_t size = 0;
  Descriptor file = open_regular(path, size);
  MappedFile result;
  result.path_ = path;
  if (use_mmap) {
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
    if (address != MAP_FAILED) {
      result.data_ = static_cast<const std::byte*>(address);
      result.size_ = size;
      result.mapped_ = true;
      refuse_lfs_pointer(result.bytes(), path);
      return result;
    }
  }
  // A sparse file may claim any size: too much is this file's error, not the program's end.
  auto* memory = new (std::nothrow) std::byte[size];
  if (memory == nullptr) {
    throw Error(ErrorCode::out_of_memory, "no memory for a file of " + std::to_string(size) +
                                              " bytes (" + path.string() +
                                              "); map it instead of reading it");
  }
  result.data_ = memory;
  result.size_ = size;
  read_fully(file.fd, memory, size, path);
  refuse_lfs_pointer(result.bytes(), path);
  return result;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      mapped_(std::exchange(other.mapped_, false)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapped_, other.mapped_);
  return *this;
}

MappedFile::~MappedFile() {
  if (mapped_) {
    ::munmap(const_cast<std::byte*>(data_), size_);
  } else {
    delete[] data_;
  }
}

std::vector<std::byte> read_file(const std::filesystem::path& path, int64_t max_bytes) {
  size_t size = 0;
  Descriptor file = open_regular(path, size);
  if (static_cast<int64_t>(size) > max_bytes) {
    throw Error(ErrorCode::corrupt_file, "file too large: " + std::to_string(size) +
                                             " bytes, at most " + std::to_string(max_bytes) +
                                             " expected (" + path.string() +
                                             "); check that it is the right file");
  }
  std::vector<std::byte> content(size);
  read_fully(file.fd, content.data(), size, path);
  refuse_lfs_pointer(content, path);
  return content;
}

std::string read_text_file(const std::filesystem::path& path, int64_t max_bytes) {
  const std::vector<std::byte> content = read_file(path, max_bytes);
  return {reinterpret_cast<const char*>(content.data()), content.size()};
}

}  // namespace pali
