// Tokenizer models that lie: pali::Error or a tokenizer that works, and not a word on stderr.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "support/expect_error.hpp"
#include "support/paths.hpp"
#include "support/temp_folder.hpp"
#include "unit/text/model_bytes.hpp"

namespace pali {
namespace {

using test::bytes_field;
using test::expect_error;
using test::number_field;
using test::piece;

void expect_corrupt(std::string_view part, const std::string& model) {
  expect_error(ErrorCode::corrupt_file, {part, "spiece.model"}, [&] { test::from_bytes(model); });
}

// Opens, and where that works, uses everything. Returns whether it opened.
bool survives(const std::string& model) {
  try {
    const Tokenizer tokenizer = test::from_bytes(model);
    std::vector<int32_t> ids =
        tokenizer.encode("a Cat \xef\xac\x81 caf\xc3\xa9 \xe5\x9b\xbe\n42 </s>");
    EXPECT_LT(ids.size(), 2000u);
    for (int32_t id = 0; id < std::min(tokenizer.size(), 300); ++id) ids.push_back(id);
    tokenizer.decode(ids);
    siglip_encode(tokenizer, "\xef\xbd\xb1 dog's", 16, 1);
    return true;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::corrupt_file) << error.what();
    return false;
  }
}

class TokenizerMisuse : public testing::Test {
 protected:
  void SetUp() override { testing::internal::CaptureStderr(); }
  void TearDown() override { EXPECT_EQ(testing::internal::GetCapturedStderr(), ""); }
};

TEST_F(TokenizerMisuse, TheHandmadeModelIsFine) {
  EXPECT_TRUE(survives(test::byte_model()));
  EXPECT_TRUE(survives(test::specials() + piece("a")));
}

TEST_F(TokenizerMisuse, BrokenProtocolBuffers) {
  const std::string good = test::specials() + piece("a");
  expect_corrupt("no pieces", number_field(9, 1));
  expect_corrupt("beyond the end", good + "\x0a\x7f");
  expect_corrupt("beyond the end", good + "\x0a" + test::varint(~uint64_t{0}));
  expect_corrupt("without an end", good + "\x48" + std::string(11, '\xff'));
  expect_corrupt("wire type", good + "\x4b");
  expect_corrupt("field number", good + std::string(2, '\0'));
  expect_corrupt("wrong type", good + number_field(1, 1));
  expect_corrupt("wrong type", good + bytes_field(1, number_field(1, 5)));
}

TEST_F(TokenizerMisuse, BrokenPieces) {
  const std::string good = test::specials() + piece("a");
  expect_corrupt("empty piece", good + piece(""));
  expect_corrupt("no text can hold", good + piece(std::string_view("x\0y", 3)));
  expect_corrupt("no text can hold", good + piece(std::string(5000, 'x')));
  expect_corrupt("stands twice", good + piece("a"));
  expect_corrupt("not finite", good + piece("b", std::numeric_limits<float>::infinity()));
  expect_corrupt("not finite", good + piece("b", std::numeric_limits<float>::quiet_NaN()));
  expect_corrupt("unknown type", good + piece("b", 0, 0));
  expect_corrupt("unknown type", good + piece("b", 0, 9));
  expect_corrupt("names no byte", good + piece("b", 0, 6));
  expect_corrupt("names no byte", good + piece("<0xg1>", 0, 6));
  std::string nested = test::specials();
  for (size_t n = 1; n <= 64; ++n)
    nested += piece(std::string(n, 'a'), 0, 4) + piece(std::string(n, 'b') + "c", 0, 4);
  EXPECT_TRUE(survives(nested));
  expect_corrupt("each the beginning", nested + piece(std::string(65, 'a'), 0, 4));
  expect_corrupt("the unknown", piece("a"));
  expect_corrupt("the unknown", good + piece("other", 0, 2));
  expect_corrupt("model type", good + bytes_field(2, number_field(3, 7)));
  expect_corrupt("U+2581", good + bytes_field(3, number_field(5, 0)));
}

TEST_F(TokenizerMisuse, BrokenNormalisationTables) {
  const std::string good = test::specials() + piece("a");
  const auto with_table = [&](uint32_t trie_bytes, const std::string& units,
                              const std::string& texts) {
    std::string table;
    for (int i = 0; i < 4; ++i) table += static_cast<char>(trie_bytes >> (8 * i) & 0xff);
    return good + bytes_field(3, bytes_field(2, table + units + texts));
  };
  // 256 units: an empty trie whose nodes point to themselves. sentencepiece before 0.2.2 takes it.
  std::string units(1024, '\0');
  const std::string texts("x\0", 2);
  survives(with_table(1024, units, texts));
  expect_corrupt("wrong size", with_table(1023, units, texts));
  expect_corrupt("wrong size", with_table(4096, units, texts));
  expect_corrupt("wrong size", with_table(0xfffffc00, units, texts));
  expect_corrupt("wrong size", with_table(0, units, texts));
  expect_corrupt("wrong size", with_table(1024, units, ""));
  expect_corrupt("no end", with_table(1024, units, "x"));
  expect_corrupt("too long", with_table(1024, units, std::string(300, 'x') + std::string(1, '\0')));
  std::string far = units;
  far[1] = '\x04';  // unit 0: offset 1, in extended form << 8
  far[1] = static_cast<char>(far[1] | 2);
  expect_corrupt("points outside itself", with_table(1024, far, texts));
  far[3] = static_cast<char>(far[3] | 0x80);  // the root marked as a value: read all the same
  expect_corrupt("points outside itself", with_table(1024, far, texts));
  // Nodes of one letter after another, each with a value: node k at the base of the one before, XOR
  // 'a'; its base is 128 + k, where its value lies, but the last one's may be that of the first.
  const auto chain = [&](uint32_t nodes, bool closed) {
    std::vector<uint32_t> words(256, 0);
    words[0] = 1;  // the root: base 0, and no child's label
    uint32_t base = 0;
    for (uint32_t k = 1; k <= nodes; ++k) {
      const uint32_t id = base ^ 'a';
      base = closed && k == nodes ? 0 : 128 + k;
      words[id] = (id ^ base) << 10 | 0x100 | 'a';
      if (base != 0) words[base] = 0x80000000u;
    }
    std::string bytes;
    for (const uint32_t word : words) {
      for (int i = 0; i < 4; ++i) bytes += static_cast<char>(word >> (8 * i) & 0xff);
    }
    return with_table(1024, bytes, texts);
  };
  EXPECT_TRUE(survives(chain(32, false)));
  expect_corrupt("too deep", chain(33, false));
  expect_corrupt("no end", chain(3, true));
  std::string leaf = units;
  leaf[1] = '\x01';  // unit 0 has a value, which is in unit 0 ^ 0: itself, 0x100
  expect_corrupt("outside its texts", with_table(1024, leaf, texts));
}

// Truncated and flipped copies of the real models: the big one at places spread over it, dense
// where its structure is; the small ones everywhere.
TEST_F(TokenizerMisuse, TruncatedModels) {
  for (const char* name : {"siglip_small", "mt5"}) {
    const std::string model =
        test::slurp(test::data("tokenizers/").string() + name + "/spiece.model");
    ASSERT_TRUE(survives(model));
    for (size_t length = 0; length < model.size(); length += 7) survives(model.substr(0, length));
  }
  const std::string model = test::slurp(test::data("tokenizers/t5/spiece.model"));
  ASSERT_TRUE(survives(model));
  for (size_t i = 0; i < 50; ++i) survives(model.substr(0, model.size() * i / 50));
}

TEST_F(TokenizerMisuse, FlippedBitsOfSmallModels) {
  const std::string model = test::slurp(test::data("tokenizers/siglip_small/spiece.model"));
  int opened = 0;
  for (size_t bit = 0; bit < model.size() * 8; ++bit) {
    std::string flipped = model;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    opened += survives(flipped) ? 1 : 0;
  }
  EXPECT_GT(opened, 0);
}

TEST_F(TokenizerMisuse, FlippedBitsOfTheNormalisationTable) {
  const std::string model = test::slurp(test::data("tokenizers/t5/spiece.model"));
  uint64_t state = 1;  // Knuth's MMIX generator: the same places in every run
  for (int i = 0; i < 400; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const size_t bit = (state >> 33) % (model.size() * 8);
    std::string flipped = model;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ 1 << bit % 8);
    survives(flipped);
  }
}

}  // namespace
}  // namespace pali
