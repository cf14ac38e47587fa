#include "output.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "interrupt.hpp"
#include "pali/error.hpp"

namespace pali::cli {
namespace {

[[noreturn]] void cannot_write(const std::string& where) {
  throw Error(ErrorCode::invalid_argument, "cannot write the answer (" + where + ": " +
                                               std::strerror(errno) +
                                               "); give another place, or make room");
}

}  // namespace

Output::Output(const std::string& path)
    : path_(path.empty() || path == "-" ? "standard output" : path), device_(nullptr, std::fclose) {
  if (path.empty() || path == "-") {
    stream_ = stdout;
    return;
  }
  std::error_code ignored;
  const auto in_place = [&] {
    device_.reset(std::fopen(path.c_str(), "wb"));
    if (!device_) cannot_write(path);
    stream_ = device_.get();
  };
  // /dev/stdout, /proc/self/fd/3: names of what is open already.
  for (const char* open_already : {"/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/"}) {
    if (path.starts_with(open_already)) {
      in_place();
      return;
    }
  }
  const std::filesystem::file_status status = std::filesystem::status(path, ignored);
  if (std::filesystem::is_directory(status)) {
    throw Error(ErrorCode::invalid_argument,
                "the output is a folder (" + path + "); give the name of a file");
  }
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    // /dev/null, a named pipe: nothing that a new file may take the place of.
    in_place();
    return;
  }
  clean_up_on_interrupt(path);
  file_ = std::make_unique<OutputFile>(path);
}

void Output::write(std::string_view text) {
  if (file_) {
    file_->write(text);
  } else if (std::fwrite(text.data(), 1, text.size(), stream_) != text.size()) {
    cannot_write(path_);
  }
}

void Output::flush() {
  // ferror: CLI11 flushes the help itself.
  if (!file_ && (std::fflush(stream_) != 0 || std::ferror(stream_) != 0)) cannot_write(path_);
}

void Output::finish() {
  flush();
  if (file_) file_->commit();
}

std::string to_line(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

double rounded(double value, int decimals) {
  const double scale = std::pow(10.0, decimals);
  const double scaled = value * scale;
  return std::isfinite(scaled) ? std::round(scaled) / scale : value;
}

Json shortest(float value) {
  if (!std::isfinite(value)) return nullptr;
  char text[32];
  const std::to_chars_result end = std::to_chars(text, text + sizeof text - 1, value);
  *end.ptr = '\0';
  double number = 0;
  std::from_chars(text, end.ptr, number);
  return number;
}

Json shortest(const std::vector<float>& values) {
  Json list = Json::array();
  for (const float value : values) list.push_back(shortest(value));
  return list;
}

std::string one_line(std::string_view text) {
  std::string line(text);
  for (char& c : line) {
    if (c == '\n' || c == '\r' || c == '\t') c = ' ';
  }
  return line;
}

namespace {

// Length of the UTF-8 sequence at `at` that a terminal may be shown: no control character, no
// separator of lines. 0: none.
size_t printable(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return first >= 0x20 && first != 0x7f ? 1 : 0;
  const size_t size = first >= 0xf0 && first < 0xf5 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first >= 0xf5 || at + size > text.size()) return 0;
  uint32_t code = first & (0xffu >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if (byte(i) >> 6 != 2) return 0;
    code = code << 6 | (byte(i) & 0x3fu);
  }
  const bool overlong = code < (size == 2 ? 0x80u : size == 3 ? 0x800u : 0x10000u);
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  const bool control =
      code < 0xa0 || (code >= 0x2028 && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
  return overlong || surrogate || control || code > 0x10ffff ? 0 : size;
}

}  // namespace

std::string visible(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string line;
  for (size_t at = 0; at < text.size();) {
    const size_t size = printable(text, at);
    if (size > 0) {
      line += text.substr(at, size);
    } else if (text[at] == '\n') {
      line += "\\n";
    } else {
      const auto byte = static_cast<unsigned char>(text[at]);
      line += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    }
    at += std::max<size_t>(size, 1);
  }
  return line;
}

std::string format(const char* pattern, double value) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, value);
  return text;
}

void warn(const OutputArguments& how, const std::string& message) {
  if (!how.quiet) std::fprintf(stderr, "pali: warning: %s\n", visible(message).c_str());
}

void warn(const OutputArguments& how, const std::vector<std::string>& messages) {
  for (const std::string& message : messages) warn(how, message);
}

void print_error(const std::string& message) {
  std::fprintf(stderr, "pali: error: %s\n", visible(message).c_str());
}

Progress::Progress(const OutputArguments& how, std::string what)
    : what_(std::move(what)),
      wanted_(!how.quiet && ::isatty(STDERR_FILENO) != 0),
      start_(std::chrono::steady_clock::now()) {}

Progress::~Progress() { clear(); }

void Progress::update(double fraction) {
  if (!wanted_) return;
  if (!shown_ && std::chrono::steady_clock::now() - start_ < std::chrono::seconds(1)) return;
  shown_ = true;
  constexpr int kWidth = 30;
  const int done = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * kWidth);
  std::fprintf(stderr, "\r\x1b[K%s [%s%s] %3.0f %%", what_.c_str(),
               std::string(static_cast<size_t>(done), '#').c_str(),
               std::string(static_cast<size_t>(kWidth - done), ' ').c_str(), fraction * 100);
  std::fflush(stderr);
}

void Progress::clear() {
  if (shown_) std::fputs("\r\x1b[K", stderr);
  shown_ = false;
}

}  // namespace pali::cli
