// The one exception type of the library, and its codes. Where memory ends in the middle of work,
// std::bad_alloc may come through as it is.
#pragma once

#include <stdexcept>
#include <string>

#include "pali/export.hpp"

namespace pali {

enum class ErrorCode {
  invalid_argument,  // a request or an option that cannot be carried out as given
  corrupt_file,      // a file that contradicts itself or its format
  unsupported,       // well formed, but not something this build or this engine runs
  not_found,         // a path or a tensor that does not exist
  out_of_memory,
  cancelled,
  internal,  // a bug of the library
};

// "invalid_argument", "corrupt_file", ... : stable names, used in `batch` output.
PALI_API const char* to_string(ErrorCode code) noexcept;

// Thrown at two doors only: loading a model or an image, and checking a request.
// what() reads "WHAT (WHERE); WHAT TO DO" in one line.
class PALI_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace pali
