// Safetensors files that lie.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/checked.hpp"
#include "io/safetensors.hpp"
#include "support/expect_error.hpp"
#include "unit/io/safetensors_bytes.hpp"

namespace pali {
namespace {

using test::expect_error;

void expect_corrupt(std::initializer_list<std::string_view> parts, const std::string& file) {
  expect_error(ErrorCode::corrupt_file, parts, [&] { test::parse(file); });
}

// One entry "a" of the given fields, and `bytes` of data.
std::string one(const std::string& dtype, const std::string& shape, const std::string& offsets,
                size_t bytes) {
  return test::safetensors(
      R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}",
      bytes);
}

// What parse_safetensors promises of any file that it accepts.
void expect_sound(const SafetensorsHeader& header, int64_t file_bytes) {
  int64_t cursor = 0;
  for (const SafetensorsEntry& entry : header.entries) {
    ASSERT_EQ(entry.begin, cursor);
    ASSERT_EQ(checked_bytes(entry.shape, dtype_bytes(entry.dtype)), entry.end - entry.begin);
    cursor = entry.end;
  }
  ASSERT_EQ(header.data_offset + cursor, file_bytes);
}

TEST(SafetensorsMisuse, HeaderLength) {
  expect_corrupt({"at least 8 bytes", "w.safetensors"}, "1234567");
  expect_corrupt({"found a length of 3"}, test::with_length(3, "{}", ""));
  for (const uint64_t length : {uint64_t{100'000'001}, uint64_t{1} << 63, ~uint64_t{0},
                                ~uint64_t{0} - 7, (uint64_t{1} << 32) + 2}) {
    expect_corrupt({"found a length of"}, test::with_length(length, "{}", ""));
  }
  expect_corrupt({"begin with '{'"}, test::with_length(0, "", ""));
  expect_corrupt({"begin with '{'"}, test::safetensors(" {}", 0));
  expect_corrupt({"begin with '{'"}, test::safetensors("[]", 0));
}

TEST(SafetensorsMisuse, HostileSizes) {
  expect_corrupt({"'a'", "overflows"}, one("\"F32\"", "[4611686018427387904,4]", "[0,4]", 4));
  expect_corrupt({"overflows"}, one("\"F32\"", "[9223372036854775807,2]", "[0,4]", 4));
  expect_corrupt({"overflows"}, one("\"F32\"", "[4294967296,4294967296]", "[0,0]", 0));
  expect_corrupt({"overflows"}, one("\"F32\"", "[4294967296,4294967296,0]", "[0,0]", 0));
  expect_corrupt({"18446744073709551615"}, one("\"F32\"", "[18446744073709551615]", "[0,4]", 4));
  expect_corrupt({"'a'", "unexpected -1"}, one("\"F32\"", "[-1]", "[0,4]", 4));
  expect_corrupt({"unexpected -4"}, one("\"F32\"", "[1]", "[-4,0]", 4));
  expect_corrupt({"unexpected 1.0"}, one("\"F32\"", "[1.0]", "[0,4]", 4));
  expect_corrupt({"cut short"}, one("\"F32\"", "[1073741824,1024]", "[0,4398046511104]", 4));
  expect_corrupt({"more than 16"},
                 one("\"F32\"", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,4]", 4));
}

TEST(SafetensorsMisuse, ShapesAndOffsetsThatDisagree) {
  expect_corrupt({"'a'", "expected 8 bytes", "offsets 0 to 4"}, one("\"F32\"", "[2]", "[0,4]", 4));
  expect_corrupt({"expected 4 bytes"}, one("\"F32\"", "[1]", "[4,0]", 4));
  expect_corrupt({"expected 4 bytes"}, one("\"F32\"", "[]", "[0,8]", 8));
  expect_corrupt({"not two offsets"}, one("\"F32\"", "[1]", "[0]", 4));
  expect_corrupt({"not two offsets"}, one("\"F32\"", "[1]", "[0,2,4]", 4));
}

TEST(SafetensorsMisuse, GapsOverlapsAndTrailingBytes) {
  const auto two = [](const std::string& first, const std::string& second, size_t bytes) {
    const std::string tail = R"(,"dtype":"F32","shape":[2]})";
    return test::safetensors(R"({"a":{"data_offsets":)" + first + tail +
                                 R"(,"b":{"data_offsets":)" + second + tail + "}",
                             bytes);
  };
  EXPECT_NO_THROW(test::parse(two("[8,16]", "[0,8]", 16)));
  expect_corrupt({"'b'", "offset 8", "found 12", "gap"}, two("[0,8]", "[12,20]", 20));
  expect_corrupt({"'b'", "found 4", "overlap"}, two("[0,8]", "[4,12]", 12));
  expect_corrupt({"'b'", "found 0", "overlap"}, two("[0,8]", "[0,8]", 8));
  expect_corrupt({"'a'", "offset 0", "found 8"}, two("[8,16]", "[16,24]", 24));
  expect_corrupt({"expected a file of", "bytes, found"}, two("[0,8]", "[8,16]", 17));
  expect_corrupt({"cut short"}, two("[0,8]", "[8,16]", 15));
}

TEST(SafetensorsMisuse, NamesAndFieldsThatStandTwice) {
  const std::string a = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  expect_corrupt({"'a' stands twice"}, test::safetensors("{" + a + "," + a + "}", 4));
  expect_corrupt({"__metadata__ stands twice"},
                 test::safetensors(R"({"__metadata__":{},"__metadata__":{}})", 0));
  expect_corrupt({"'k' twice"}, test::safetensors(R"({"__metadata__":{"k":"1","k":"2"}})", 0));
  expect_corrupt({"unexpected"},
                 test::safetensors(R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],)"
                                   R"("data_offsets":[0,4]}})",
                                   4));
  expect_corrupt({"second shape"},
                 test::safetensors(R"({"a":{"dtype":"F32","shape":[1],"shape":[1],)"
                                   R"("data_offsets":[0,4]}})",
                                   4));
}

TEST(SafetensorsMisuse, TypesThatAreNone) {
  expect_corrupt({"'a'", "'FLOAT'"}, one("\"FLOAT\"", "[1]", "[0,4]", 4));
  expect_corrupt({"'f32'"}, one("\"f32\"", "[1]", "[0,4]", 4));
  for (const char* type : {"\"F8_E4M3\"", "\"U16\"", "\"U64\"", "\"C64\""}) {
    expect_error(ErrorCode::unsupported, {"'a'", "BF16"},
                 [&] { test::parse(one(type, "[1]", "[0,1]", 1)); });
  }
}

TEST(SafetensorsMisuse, WrongStructure) {
  for (const char* header : {R"({"a":1})",
                             R"({"a":[]})",
                             R"({"a":"x"})",
                             R"({"a":null})",
                             R"({"a":true})",
                             R"({"a":{}})",
                             R"({"a":{"dtype":"F32"}})",
                             R"({"a":{"dtype":1,"shape":[],"x":0}})",
                             R"({"a":{"shape":{}}})",
                             R"({"a":{"dtype":{}}})",
                             R"({"a":{"shape":[[1]]}})",
                             R"({"a":{"data_offsets":["0","4"]}})",
                             R"({"a":{"extra":1}})",
                             R"({"__metadata__":[]})",
                             R"({"__metadata__":{"k":1}})",
                             R"({"__metadata__":{"k":{}}})",
                             R"({"__metadata__":"x"})",
                             R"({} {})",
                             R"({}x)",
                             R"({"a)",
                             "{\"\xff\":{}}",
                             "{",
                             R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})"}) {
    SCOPED_TRACE(header);
    expect_corrupt({"w.safetensors"}, test::safetensors(header, 4));
  }
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100000; ++i) deep += "{\"a\":";
  expect_corrupt({"w.safetensors"}, test::safetensors(deep, 0));
  expect_corrupt({"w.safetensors"}, test::safetensors("{\"a\":" + std::string(100000, '['), 0));
}

TEST(SafetensorsMisuse, ControlCharactersInNamesStayOutOfTheLine) {
  expect_corrupt({"a\\x0ab"}, test::safetensors("{\"a\\nb\":1}", 0));
}

std::string sample() {
  return test::safetensors(
      R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("v":{"dtype":"BF16","shape":[5],"data_offsets":[24,34]},)"
      R"("t":{"dtype":"U8","shape":[6],"data_offsets":[34,40]}}  )",
      40);
}

TEST(SafetensorsMisuse, TruncatedAnywhere) {
  const std::string file = sample();
  ASSERT_EQ(test::parse(file).entries.size(), 3u);
  for (size_t length = 0; length < file.size(); ++length) {
    expect_corrupt({"w.safetensors"}, file.substr(0, length));
  }
}

TEST(SafetensorsMisuse, EveryBitOfTheHeaderFlipped) {
  const std::string file = sample();
  const size_t header = file.size() - 40;
  int accepted = 0;
  for (size_t bit = 0; bit < header * 8; ++bit) {
    std::string flipped = file;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    try {
      expect_sound(test::parse(flipped), static_cast<int64_t>(file.size()));
      ++accepted;
    } catch (const Error& error) {
      const bool expected =
          error.code() == ErrorCode::corrupt_file || error.code() == ErrorCode::unsupported;
      EXPECT_TRUE(expected) << error.what();
    }
  }
  // Names and metadata may change unseen; hardly anything else.
  EXPECT_LT(accepted, 140);
}

TEST(SafetensorsMisuse, EveryByteOfTheHeaderReplaced) {
  const std::string file = sample();
  for (size_t i = 0; i < file.size() - 40; ++i) {
    for (const char c : {'\0', '"', '{', '}', '[', ']', ',', ':', '9', '-', '\\', '\xff'}) {
      std::string changed = file;
      changed[i] = c;
      try {
        expect_sound(test::parse(changed), static_cast<int64_t>(file.size()));
      } catch (const Error& error) {
        EXPECT_NE(error.code(), ErrorCode::internal) << error.what();
      }
    }
  }
}

}  // namespace
}  // namespace pali
