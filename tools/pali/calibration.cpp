#include "calibration.hpp"

#include "batch_line.hpp"
#include "interrupt.hpp"
#include "json_lines.hpp"

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
  JsonLines lines(file);
  Progress progress(output, "calibrating");
  Requests requests(engine, file);
  for (std::string text; lines.next(text);) {
    requests.add(text, lines.number());
    progress.update(lines.fraction());
  }
  requests.run();
  progress.clear();
}

}  // namespace pali::cli
