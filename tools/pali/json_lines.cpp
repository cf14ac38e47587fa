#include "json_lines.hpp"

#include <cstdio>
#include <filesystem>
#include <iostream>

#include "pali/error.hpp"

namespace pali::cli {

Json parse_line(const std::string& line, int deepest) {
  bool deep = false;
  Json value = Json::parse(
      line,
      [&](int depth, Json::parse_event_t, Json&) { return !(deep = deep || depth > deepest); },
      /*allow_exceptions=*/false);
  return deep ? Json(Json::value_t::discarded) : value;
}

JsonLines::JsonLines(const std::string& path)
    : path_(path), input_(path == "-" ? std::cin : file_) {
  if (path == "-") return;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    throw Error(ErrorCode::not_found,
                "no such file (" + path + "); give a file of JSON Lines, as batch reads them");
  }
  if (std::filesystem::is_directory(path, ignored)) {
    throw Error(ErrorCode::invalid_argument,
                "a folder (" + path + "); give a file of JSON Lines, as batch reads them");
  }
  file_.open(path, std::ios::binary);
  if (!file_) {
    throw Error(ErrorCode::invalid_argument,
                "cannot be opened (" + path + "); check its permissions");
  }
  if (std::filesystem::is_regular_file(path, ignored)) {
    size_ = static_cast<double>(std::filesystem::file_size(path, ignored));
  }
}

bool JsonLines::next(std::string& line) {
  while (std::getline(input_, line)) {
    ++number_;
    read_ += static_cast<double>(line.size()) + 1;
    if (line.find_first_not_of(" \t\r") != std::string::npos) return true;
  }
  // std::cin tells no error from an end.
  if (input_.bad() || (path_ == "-" && std::ferror(stdin) != 0)) {
    throw Error(ErrorCode::invalid_argument,
                "cannot be read further (" + where() + "); check the file and its disk");
  }
  return false;
}

double JsonLines::fraction() const { return size_ > 0 ? read_ / size_ : 0; }

std::string JsonLines::where() const { return path_ + ", line " + std::to_string(number_); }

}  // namespace pali::cli
