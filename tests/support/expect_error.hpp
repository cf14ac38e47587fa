// Runs something that must end in pali::Error, and looks at the one line it says.
#pragma once

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <string_view>

#include "pali/error.hpp"

namespace pali::test {

// The message must hold every one of `parts`, in one line that says what to do after a semicolon.
template <class Action>
void expect_error(ErrorCode code, std::initializer_list<std::string_view> parts, Action action) {
  try {
    action();
    ADD_FAILURE() << "no error, expected " << to_string(code);
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_STREQ(to_string(error.code()), to_string(code)) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << text;
    EXPECT_NE(text.find("; "), std::string::npos) << text;
    for (const std::string_view part : parts) {
      EXPECT_NE(text.find(part), std::string::npos) << "no '" << part << "' in: " << text;
    }
  }
}

}  // namespace pali::test
