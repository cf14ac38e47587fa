// PALI_ASSERT: a broken promise between two parts of the library, reported as Error(internal).
// Bad input never comes here; it is found at the two doors (loading, checking a request).
#pragma once

#include <string>

#include "pali/error.hpp"

namespace pali {

[[noreturn]] inline void assertion_failed(const char* condition, const char* file, int line) {
  throw Error(ErrorCode::internal, std::string("assertion failed: ") + condition + " (" + file +
                                       ":" + std::to_string(line) + "); please report this");
}

}  // namespace pali

#define PALI_ASSERT(condition) \
  ((condition) ? void(0) : ::pali::assertion_failed(#condition, __FILE__, __LINE__))
