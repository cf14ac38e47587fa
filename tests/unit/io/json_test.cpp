// JSON of other people's files: what is refused, and how it is said.
#include "io/json.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "support/expect_error.hpp"
#include "support/temp_folder.hpp"

namespace pali {
namespace {

using test::expect_error;

TEST(Json, ErrorsNameFileAndPosition) {
  expect_error(ErrorCode::corrupt_file, {"byte 6", "config.json"},
               [] { parse_json("{\"a\":?}", "config.json"); });
  const test::TempFolder folder;
  const auto path = folder.write("config.json", "{\"a\": 1");
  expect_error(ErrorCode::corrupt_file, {"not valid JSON", path.string()},
               [&] { read_json_file(path); });
  expect_error(ErrorCode::corrupt_file, {"at most 3"}, [&] { read_json_file(path, 3); });
  expect_error(ErrorCode::not_found, {"absent.json"},
               [&] { read_json_file(folder / "absent.json"); });
}

TEST(Json, TruncatedAnywhereIsAnError) {
  const std::string text = R"({"a": [1, 2.5, "x\u00e9"], "b": {"c": null, "d": true}})";
  ASSERT_NO_THROW(parse_json(text, "t"));
  for (size_t length = 0; length < text.size(); ++length) {
    expect_error(ErrorCode::corrupt_file, {"t"},
                 [&] { parse_json(std::string_view(text).substr(0, length), "t"); });
  }
}

TEST(Json, FlippedBitsNeverEscape) {
  const std::string text = R"({"a": [1, 2.5e3, "xé"], "b": {"c": null, "d": true}})";
  int accepted = 0;
  for (size_t i = 0; i < text.size() * 8; ++i) {
    std::string flipped = text;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ 1 << i % 8);
    try {
      parse_json(flipped, "t");
      ++accepted;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::corrupt_file);
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST(Json, DepthIsLimited) {
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']');
  };
  EXPECT_NO_THROW(parse_json(nested(64), "t"));
  expect_error(ErrorCode::corrupt_file, {"deeper than 64", "byte 64"},
               [&] { parse_json(nested(65), "t"); });
  expect_error(ErrorCode::corrupt_file, {"deeper"}, [&] { parse_json(nested(1 << 20), "t"); });
  // Brackets in strings are text, behind an escaped quote too.
  EXPECT_NO_THROW(parse_json("[\"\\\"" + std::string(100, '[') + "\"]", "t"));
}

TEST(Json, NumbersOutOfRange) {
  expect_error(ErrorCode::corrupt_file, {"out of range"}, [] { parse_json("[1e999]", "t"); });
  for (const char* text : {"[NaN]", "[Infinity]", "[-]", "[01]", "[0x10]"}) {
    expect_error(ErrorCode::corrupt_file, {"byte"}, [&] { parse_json(text, "t"); });
  }
}

class JsonFieldsTest : public testing::Test {
 protected:
  Json json_ = parse_json(R"({"n": 12, "neg": -3, "x": 0.5, "yes": true, "name": "t5", "none": null,
                              "list": [1], "inner": {"k": 7}, "huge": 18446744073709551615,
                              "text": "12"})",
                          "config.json");
  JsonFields fields_{json_, "config.json"};
};

TEST_F(JsonFieldsTest, ReadsWhatIsThere) {
  EXPECT_EQ(fields_.integer("n", 1, 100), 12);
  EXPECT_EQ(fields_.integer("neg", -5, 5), -3);
  EXPECT_EQ(fields_.number("x", 0, 1), 0.5);
  EXPECT_EQ(fields_.number("n", 0, 100), 12.0);
  EXPECT_TRUE(fields_.boolean("yes", false));
  EXPECT_EQ(fields_.string("name"), "t5");
  EXPECT_EQ(fields_.object("inner").integer("k", 0, 9), 7);
  EXPECT_TRUE(fields_.has("n"));
  EXPECT_FALSE(fields_.has("none"));
  EXPECT_FALSE(fields_.has("absent"));
  EXPECT_NE(fields_.find("none"), nullptr);
  EXPECT_EQ(fields_.find("absent"), nullptr);
}

TEST_F(JsonFieldsTest, FallsBackWhereAbsentOrNull) {
  EXPECT_EQ(fields_.integer("absent", 1, 100, 5), 5);
  EXPECT_EQ(fields_.integer("none", 1, 100, 5), 5);
  EXPECT_EQ(fields_.number("absent", 0, 1, 0.25), 0.25);
  EXPECT_TRUE(fields_.boolean("absent", true));
  EXPECT_EQ(fields_.string("none", "x"), "x");
}

TEST_F(JsonFieldsTest, ADefaultOutsideOfTheRangeIsAnError) {
  expect_error(ErrorCode::corrupt_file, {"'absent'", "missing", "default of 5", "from 6 to 9"},
               [&] { fields_.integer("absent", 6, 9, 5); });
}

TEST_F(JsonFieldsTest, ErrorsNameFieldExpectedAndFound) {
  const auto code = ErrorCode::corrupt_file;
  expect_error(code, {"config.json", "'absent'", "missing", "an integer"},
               [&] { fields_.integer("absent", 0, 1); });
  expect_error(code, {"'n'", "from 1 to 11", "found 12"}, [&] { fields_.integer("n", 1, 11); });
  expect_error(code, {"'x'", "found 0.5"}, [&] { fields_.integer("x", 0, 1); });
  expect_error(code, {"'text'", "the string '12'"}, [&] { fields_.integer("text", 0, 99); });
  expect_error(code, {"'huge'"},
               [&] { fields_.integer("huge", 0, std::numeric_limits<int64_t>::max()); });
  expect_error(code, {"'x'", "0.5"}, [&] { fields_.number("x", 0.75, 1); });
  expect_error(code, {"'yes'", "found true"}, [&] { fields_.number("yes", 0, 1); });
  expect_error(code, {"'n'", "true or false"}, [&] { fields_.boolean("n", false); });
  expect_error(code, {"'list'", "an array"}, [&] { fields_.string("list"); });
  expect_error(code, {"'list'", "an object"}, [&] { fields_.object("list"); });
  expect_error(code, {"'inner'", "'k'"}, [&] { fields_.object("inner").integer("k", 0, 1); });
  expect_error(code, {"expected a JSON object", "an array"},
               [&] { JsonFields(json_["list"], "f"); });
}

TEST(JsonFieldsText, NewlinesInFoundTextStayOutOfTheMessage) {
  const Json json = parse_json(R"({"a\nb": "c\nd"})", "t");
  expect_error(ErrorCode::corrupt_file, {"c\\x0ad"},
               [&] { JsonFields(json, "t").integer("a\nb", 0, 1); });
}

}  // namespace
}  // namespace pali
