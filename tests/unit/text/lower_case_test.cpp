// Lower case as Python's str.lower() gives it.
#include "text/lower_case.hpp"

#include <gtest/gtest.h>

namespace pali {
namespace {

TEST(LowerCase, AsPythonDoes) {
  const std::pair<const char*, const char*> cases[] = {{"", ""},
                                                       {"Hello, World 42!", "hello, world 42!"},
                                                       {"ÜBER", "über"},
                                                       {"Straße ẞ", "straße ß"},
                                                       {"İI", "i̇i"},
                                                       {"ǅ", "ǆ"},
                                                       {"\u2126", "ω"},
                                                       {"Ⓐ", "ⓐ"},
                                                       {"𐐀", "𐐨"},
                                                       {"ᲐᲑ", "აბ"},
                                                       {"МОСКВА", "москва"}};
  for (const auto& [text, lower] : cases) EXPECT_EQ(lower_case(text), lower) << text;
}

TEST(LowerCase, SigmaAtTheEndOfAWord) {
  const std::pair<const char*, const char*> cases[] = {
      {"ΑΣ", "ας"},       {"ΑΣΑ", "ασα"},           {"Σ", "σ"},  {"ΑΣ.", "ας."}, {"ΑΣ'Β", "ασ'β"},
      {"ΑΣ ΒΣ", "ας βς"}, {"A\u0301Σ", "a\u0301ς"}, {"1Σ", "1σ"}};
  for (const auto& [text, lower] : cases) EXPECT_EQ(lower_case(text), lower) << text;
}

TEST(LowerCase, InvalidBytesStay) {
  for (const char* text :
       {"\xff", "a\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\x80z"}) {
    EXPECT_EQ(lower_case(text), text);
  }
  EXPECT_EQ(lower_case("A\xff"
                       "B"),
            "a\xff"
            "b");
}

TEST(NextCodePoint, StepsOverTheWholeText) {
  const std::string_view text = "a\u00e9\u20ac\U0001f431\xff";
  const uint32_t expected[] = {'a', 0xe9, 0x20ac, 0x1f431, kInvalid};
  size_t position = 0;
  for (const uint32_t c : expected) EXPECT_EQ(next_code_point(text, position), c);
  EXPECT_EQ(position, text.size());
}

}  // namespace
}  // namespace pali
