#include "resume.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>

#include "interrupt.hpp"
#include "json_lines.hpp"
#include "pali/error.hpp"

namespace pali::cli {
namespace {

[[noreturn]] void fail(const std::string& what, const std::filesystem::path& path) {
  throw Error(ErrorCode::invalid_argument, what + " (" + path.string() +
                                               "); --resume goes on with what batch wrote: give "
                                               "that file, or a new one");
}

[[noreturn]] void cannot(const char* what, const std::filesystem::path& path) {
  const std::string reason = std::strerror(errno);
  throw Error(ErrorCode::invalid_argument, std::string("cannot ") + what + " the answers (" +
                                               path.string() + ": " + reason +
                                               "); check its permissions and the disk");
}

// Answers are nested less deeply than the lines that asked for them may be.
constexpr int kDeepest = 70;

// An answer, or null.
Json parse(const std::string& line) {
  Json object = parse_line(line, kDeepest);
  if (!object.is_object() || !object.contains("id")) return nullptr;
  return object.contains("text") || object.value("error", Json()).is_object() ? object : nullptr;
}

// What batch begins every line with, as far as it came.
bool begins_an_answer(std::string_view text) {
  constexpr std::string_view kBegin = "{\"id\":";
  const size_t size = std::min(text.size(), kBegin.size());
  return text.substr(0, size) == kBegin.substr(0, size);
}

}  // namespace

ResumedAnswers::ResumedAnswers(const std::string& path)
    : path_(OutputFile::place_of(path)), file_(nullptr, std::fclose) {
  std::error_code ignored;
  const std::filesystem::file_status status = std::filesystem::status(path_, ignored);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    fail("no file", path_);
  }
  clean_up_on_interrupt(path_);
  open();
  read();
}

// Locked, since two runs that count their own bytes would leave each other's in pieces.
void ResumedAnswers::open() {
  const int fd = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (fd < 0) cannot("write", path_);
  file_.reset(::fdopen(fd, "a"));
  if (!file_) {
    ::close(fd);
    cannot("write", path_);
  }
  struct stat opened = {}, named = {};
  const bool locked = ::flock(fd, LOCK_EX | LOCK_NB) == 0;
  // Whoever had it may have put another file in its place.
  const bool same = locked && ::fstat(fd, &opened) == 0 && ::stat(path_.c_str(), &named) == 0 &&
                    opened.st_ino == named.st_ino;
  if (!same) {
    throw Error(ErrorCode::invalid_argument, "another run writes it (" + path_.string() +
                                                 "); wait for that, or give this one its own -o");
  }
}

void ResumedAnswers::read() {
  std::ifstream old(path_, std::ios::binary);
  if (!old) cannot("read", path_);
  size_t number = 0;
  for (std::string line; std::getline(old, line);) {
    ++number;
    const bool whole = !old.eof();  // else somebody was killed while writing it
    if (!whole && parse(line).is_null() && begins_an_answer(line)) {
      if (::ftruncate(::fileno(file_.get()), end_) != 0) cannot("write", path_);
      return;
    }
    const Place place{end_, static_cast<int64_t>(line.size()) + 1};
    take(line, place, number);
    end_ += place.size;
    if (!whole) {  // all but its line break
      std::fputc('\n', file_.get());
      flush();
    }
  }
  if (old.bad()) cannot("read", path_);
}

void ResumedAnswers::take(const std::string& line, Place place, size_t number) {
  const Json answer = parse(line);
  const std::string where = "line " + std::to_string(number);
  if (answer.is_null()) fail(where + " is no answer", path_);
  const std::string id = answer["id"].dump();
  if (answer.value("error", Json()).is_object()) {
    failed_[id] = place;
    return;
  }
  if (answer["id"].is_null()) fail("the answer in " + where + " has no id", path_);
  if (!finished_.emplace(id, place).second) {
    fail("the id of the answer in " + where + " is an earlier one's too", path_);
  }
}

std::string ResumedAnswers::refuse(const Json& id) {
  if (id.is_null()) return "no id; --resume tells lines by theirs";
  const std::string key = id.dump();
  if (seen_.insert(key).second) return {};
  return "id " + key + " is an earlier line's too; --resume tells lines by theirs";
}

void ResumedAnswers::keep(const Json& id) { order_.push_back(finished_.at(id.dump())); }

void ResumedAnswers::append(const std::string& line) {
  if (std::fwrite(line.data(), 1, line.size(), file_.get()) != line.size()) cannot("write", path_);
  order_.push_back({end_, static_cast<int64_t>(line.size())});
  end_ += order_.back().size;
}

void ResumedAnswers::flush() {
  if (std::fflush(file_.get()) != 0) cannot("write", path_);
}

void ResumedAnswers::finish() {
  flush();
  // Answers to what this input does not ask for stay, behind the others.
  std::vector<Place> others;
  for (const auto& [id, place] : finished_) {
    if (!seen_.contains(id)) others.push_back(place);
  }
  for (const auto& [id, place] : failed_) {
    if (id != "null" && !seen_.contains(id) && !finished_.contains(id)) others.push_back(place);
  }
  std::sort(others.begin(), others.end(),
            [](const Place& a, const Place& b) { return a.begin < b.begin; });
  order_.insert(order_.end(), others.begin(), others.end());
  int64_t end = 0;
  for (const Place& place : order_) {
    if (place.begin != end) return rewrite(order_);
    end += place.size;
  }
  if (end != end_) rewrite(order_);
}

void ResumedAnswers::rewrite(const std::vector<Place>& places) {
  std::ifstream old(path_, std::ios::binary);
  OutputFile file(path_);
  std::string line;
  for (const Place& place : places) {
    if (interrupted()) throw Error(ErrorCode::cancelled, "interrupted");
    line.resize(static_cast<size_t>(place.size));
    if (!old.seekg(place.begin) || !old.read(line.data(), place.size)) cannot("read", path_);
    file.write(std::string_view(line));
  }
  file.commit();
}

}  // namespace pali::cli
