#include "resume.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

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

Json parse(const std::string& line) {
  bool deep = false;
  Json object = Json::parse(
      line,
      [&deep](int depth, Json::parse_event_t, Json&) { return !(deep = deep || depth > kDeepest); },
      /*allow_exceptions=*/false);
  return deep ? Json(Json::value_t::discarded) : object;
}

}  // namespace

ResumedAnswers::ResumedAnswers(const std::string& path)
    : path_(OutputFile::place_of(path)), file_(nullptr, std::fclose) {
  std::error_code ignored;
  const std::filesystem::file_status status = std::filesystem::status(path_, ignored);
  if (std::filesystem::exists(status) && !std::filesystem::is_regular_file(status)) {
    fail("no file", path_);
  }
  std::vector<Place> kept;
  int64_t size = 0;
  if (std::filesystem::exists(status)) {
    std::ifstream old(path_, std::ios::binary);
    if (!old) cannot("read", path_);
    size_t number = 0;
    for (std::string line; std::getline(old, line);) {
      ++number;
      const Place place{size, static_cast<int64_t>(line.size()) + 1};
      size += place.size;
      if (old.eof()) break;  // no line break: somebody was killed while writing it
      const Json answer = parse(line);
      if (!answer.is_object() || !answer.contains("id")) {
        fail("line " + std::to_string(number) + " is no answer", path_);
      }
      if (answer.contains("error")) continue;
      if (answer["id"].is_null()) {
        fail("the answer in line " + std::to_string(number) + " has no id", path_);
      }
      if (answers_.emplace(answer["id"].dump(), place).second) kept.push_back(place);
    }
    if (old.bad()) cannot("read", path_);
  }
  int64_t of_kept = 0;
  for (const Place& place : kept) of_kept += place.size;
  if (of_kept != size) {
    rewrite(kept);
    int64_t begin = 0;
    std::unordered_map<int64_t, int64_t> moved;
    for (const Place& place : kept) {
      moved[place.begin] = begin;
      begin += place.size;
    }
    for (auto& [id, place] : answers_) place.begin = moved[place.begin];
  }
  end_ = of_kept;
  file_.reset(std::fopen(path_.c_str(), "ab"));
  if (!file_) cannot("write", path_);
}

std::string ResumedAnswers::refuse(const Json& id) {
  if (id.is_null()) return "no id; --resume tells lines by theirs";
  const std::string key = id.dump();
  if (seen_.insert(key).second) return {};
  return "id " + key + " is an earlier line's too; --resume tells lines by theirs";
}

void ResumedAnswers::keep(const Json& id) { order_.push_back(answers_.at(id.dump())); }

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
  // Answers to what the input does not ask for (now) stay, behind the others.
  std::vector<Place> others;
  for (const auto& [id, place] : answers_) {
    if (!seen_.contains(id)) others.push_back(place);
  }
  std::sort(others.begin(), others.end(),
            [](const Place& a, const Place& b) { return a.begin < b.begin; });
  order_.insert(order_.end(), others.begin(), others.end());
  int64_t end = 0;
  for (const Place& place : order_) {
    if (place.begin != end) return rewrite(order_);
    end += place.size;
  }
}

void ResumedAnswers::rewrite(const std::vector<Place>& places) {
  std::ifstream old(path_, std::ios::binary);
  OutputFile file(path_);
  std::string line;
  for (const Place& place : places) {
    line.resize(static_cast<size_t>(place.size));
    if (!old.seekg(place.begin) || !old.read(line.data(), place.size)) cannot("read", path_);
    file.write(std::string_view(line));
  }
  file.commit();
}

}  // namespace pali::cli
