#include "calibration.hpp"

#include <fstream>

#include "batch_line.hpp"
#include "interrupt.hpp"

namespace pali::cli {
namespace {

// Lines run together: those that can share a decoder do.
constexpr size_t kGroup = 8;

class Requests {
 public:
  Requests(const Engine& engine, const std::string& file) : engine_(engine), file_(file) {
    defaults_.root = std::filesystem::path(file).parent_path();
  }

  void add(const std::string& text, size_t number) {
    at(number, [&] {
      BatchLine line;
      read_line(text, defaults_, line);
      numbers_.push_back(number);
      group_.push_back(std::move(line.request));
    });
    if (group_.size() == kGroup) run();
  }

  void run() {
    try {
      engine_.run(group_);
    } catch (const Error&) {
      // Which it was.
      for (size_t i = 0; i < group_.size(); ++i) {
        at(numbers_[i], [&] { engine_.run(group_[i]); });
      }
      throw;
    }
    if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
    group_.clear(), numbers_.clear();
  }

 private:
  template <class Body>
  void at(size_t number, const Body& body) const {
    try {
      body();
    } catch (const Error& error) {
      throw Error(error.code(), std::string(error.what()) + " (" + file_ + ", line " +
                                    std::to_string(number) + ")");
    }
  }

  const Engine& engine_;
  std::string file_;
  BatchDefaults defaults_;
  std::vector<Request> group_;
  std::vector<size_t> numbers_;
};

}  // namespace

void run_requests(const Engine& engine, const std::string& file, const OutputArguments& output) {
  std::error_code ignored;
  std::ifstream input(file, std::ios::binary);
  if (!input || std::filesystem::is_directory(file, ignored)) {
    throw Error(ErrorCode::not_found,
                "no such file (" + file + "); give a file of JSON Lines, as batch reads them");
  }
  const auto size = static_cast<double>(std::filesystem::file_size(file, ignored));
  Progress progress(output, "calibrating");
  Requests requests(engine, file);
  size_t number = 0;
  double read = 0;
  for (std::string text; std::getline(input, text);) {
    ++number;
    read += static_cast<double>(text.size()) + 1;
    if (text.find_first_not_of(" \t\r") != std::string::npos) requests.add(text, number);
    progress.update(read / size);
  }
  requests.run();
  progress.clear();
}

}  // namespace pali::cli
