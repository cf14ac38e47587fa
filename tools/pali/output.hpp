// Where answers and remarks go: answers to stdout or a file, everything else to stderr.
#pragma once

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/output_file.hpp"

namespace pali::cli {

using Json = nlohmann::ordered_json;

struct OutputArguments {
  bool json = false, verbose = false, quiet = false;
  std::string path;  // -o; empty or "-": stdout
};

// The answer's way out. A file appears whole, at finish(), or not at all.
class Output {
 public:
  explicit Output(const std::string& path);
  void write(std::string_view text);
  void flush();
  // Must be called where all went well. Throws Error where the answer did not get out.
  void finish();

 private:
  std::string path_;
  std::unique_ptr<OutputFile> file_;  // none: stream_
  std::FILE* stream_ = nullptr;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> device_;
};

// One line of JSON with its line break; what is no UTF-8 is replaced.
std::string to_line(const Json& value);
// Six decimals, where a double would show the noise of a float.
double rounded(double value, int decimals = 6);
// The shortest decimal number that reads back as this float.
Json shortest(float value);
Json shortest(const std::vector<float>& values);
// Tabs and line breaks as spaces: one answer, one line.
std::string one_line(std::string_view text);
// What a terminal may be shown, in one line: line breaks, control characters, bytes that are no
// UTF-8 and marks that turn the direction of text are escaped.
std::string visible(std::string_view text);
// printf of one double.
std::string format(const char* pattern, double value);

void warn(const OutputArguments& how, const std::string& message);
void warn(const OutputArguments& how, const std::vector<std::string>& messages);
void print_error(const std::string& message);

// A bar on a terminal's stderr, from one second on.
class Progress {
 public:
  Progress(const OutputArguments& how, std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void update(double fraction);
  void clear();

 private:
  std::string what_;
  bool shown_ = false, wanted_ = false;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace pali::cli
