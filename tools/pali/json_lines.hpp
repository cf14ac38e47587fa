// A file of JSON Lines, read line by line.
#pragma once

#include <cstdint>
#include <fstream>
#include <istream>
#include <string>

#include "output.hpp"

namespace pali::cli {

// A line's value; discarded (is_discarded()) where it is no JSON, or nested more than `deepest`
// levels, which would be parsed by recursion.
Json parse_line(const std::string& line, int deepest);

class JsonLines {
 public:
  // "-": stdin. Throws Error where it cannot be read.
  explicit JsonLines(const std::string& path);

  bool next(std::string& line);              // the next that is not blank
  size_t number() const { return number_; }  // of that line in the file, from 1
  double fraction() const;                   // of the file that was read; of stdin 0
  std::string where() const;                 // "requests.jsonl, line 3"

 private:
  std::string path_;
  std::ifstream file_;
  std::istream& input_;
  size_t number_ = 0;
  double size_ = 0, read_ = 0;
};

}  // namespace pali::cli
