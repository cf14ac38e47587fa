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

// Answers go to their file as they come: a run that is killed loses the group of lines in work, no
// more. They lie there in the order in which they were found; finish() brings them into the
// input's, and drops failures that were tried again.
class ResumedAnswers {
 public:
  // Opens or begins the file, for this run alone. A last line that was cut off goes. Throws Error
  // where it is a file of something else, or another run writes it.
  explicit ResumedAnswers(const std::string& path);

  // Why an input line with this id cannot be told from the others; empty: it can. Asked once a
  // line.
  std::string refuse(const Json& id);
  bool finished(const Json& id) const { return finished_.contains(id.dump()); }

  // The next line's answer: the one that is there, or a new one.
  void keep(const Json& id);
  void append(const std::string& line);
  void flush();
  void finish();

 private:
  struct Place {
    int64_t begin, size;
  };
  using Places = std::unordered_map<std::string, Place>;  // by id

  void open();
  void read();
  void take(const std::string& line, Place place, size_t number);
  void rewrite(const std::vector<Place>& places);

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
  int64_t end_ = 0;
  Places finished_, failed_;              // in earlier runs
  std::unordered_set<std::string> seen_;  // ids of the input so far
  std::vector<Place> order_;              // of the input's lines so far
};

}  // namespace pali::cli
