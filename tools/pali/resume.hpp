// batch --resume: a file of answers that an earlier run began.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "output.hpp"

namespace pali::cli {

// Answers go to their place as they come, so that a run that is killed loses the group of lines in
// work, no more. They lie in the order in which they were found; finish() brings them into the
// input's.
class ResumedAnswers {
 public:
  // Finished answers of an earlier run stay; failed ones, and a last line without its end, go.
  // Throws Error where `path` is no file, or one of something else.
  explicit ResumedAnswers(const std::string& path);

  // Why an input line with this id cannot be answered here; empty: it can. Asked once a line.
  std::string refuse(const Json& id);
  bool finished(const Json& id) const { return answers_.contains(id.dump()); }

  // The next line's answer: the one that is there, or a new one.
  void keep(const Json& id);
  void append(const std::string& line);
  void flush();
  void finish();

 private:
  struct Place {
    int64_t begin, size;
  };
  void rewrite(const std::vector<Place>& places);

  std::filesystem::path path_;
  std::unordered_map<std::string, Place> answers_;  // of earlier runs, by id
  std::unordered_set<std::string> seen_;            // ids of the input so far
  std::vector<Place> order_;                        // of the input's lines so far
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  int64_t end_ = 0;
};

}  // namespace pali::cli
