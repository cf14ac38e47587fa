// The tokenizer beyond the goldens: special ids, offsets, streaming, where models are looked for.
#include "text/tokenizer.hpp"

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "support/paths.hpp"
#include "support/temp_folder.hpp"
#include "unit/text/model_bytes.hpp"

namespace pali {
namespace {

using test::expect_error;
using test::TempFolder;

const std::string kT5 = test::data("tokenizers/t5/spiece.model");

TEST(Tokenizer, IdsOfTheT5Family) {
  const Tokenizer tokenizer = Tokenizer::open(kT5, {100});
  EXPECT_EQ(tokenizer.pad_id(), 0);
  EXPECT_EQ(tokenizer.eos_id(), 1);
  EXPECT_EQ(tokenizer.unk_id(), 2);
  EXPECT_EQ(tokenizer.size(), 330);
  EXPECT_EQ(tokenizer.extra_ids(), 100);
  EXPECT_EQ(Tokenizer::open(kT5).size(), 230);
  const std::string bytes = test::slurp(kT5);
  ASSERT_EQ(tokenizer.model_bytes().size(), bytes.size());
  EXPECT_EQ(std::memcmp(tokenizer.model_bytes().data(), bytes.data(), bytes.size()), 0);
}

TEST(Tokenizer, ExtraIdsInsideTheModelAreNotAppended) {
  const Tokenizer tokenizer = Tokenizer::open(test::data("tokenizers/mt5/spiece.model"), {100});
  EXPECT_EQ(tokenizer.extra_ids(), 0);
  EXPECT_EQ(tokenizer.size(), 176);
}

TEST(Tokenizer, DecodeLeavesSpecialAndForeignIdsOut) {
  const Tokenizer tokenizer = Tokenizer::open(kT5, {100});
  const std::vector<int32_t> cat = tokenizer.encode("a cat sits");
  std::vector<int32_t> ids = {0, -1, -2147483648, 329, 330, 2147483647, 2};
  ids.insert(ids.end(), cat.begin(), cat.end());
  ids.push_back(1);
  EXPECT_EQ(tokenizer.decode(ids), "a cat sits");
  EXPECT_EQ(tokenizer.decode({}), "");
}

TEST(Tokenizer, OffsetsEndWhereTheTextOfEachIdEnds) {
  const Tokenizer tokenizer = Tokenizer::open(kT5, {100});
  std::vector<int32_t> ids = tokenizer.encode("a cat sits on the table");
  ids.insert(ids.begin() + 2, 325);
  ids.push_back(1);
  const std::string text = tokenizer.decode(ids);
  const std::vector<size_t> offsets = tokenizer.decode_offsets(ids);
  ASSERT_EQ(offsets.size(), ids.size());
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string head = tokenizer.decode(std::span(ids).first(i + 1));
    EXPECT_EQ(offsets[i], head.size());
    EXPECT_EQ(text.substr(0, offsets[i]), head);
  }
  EXPECT_TRUE(tokenizer.decode_offsets({}).empty());
}

TEST(Tokenizer, ByteFallbackGathersCharacters) {
  const Tokenizer tokenizer = test::from_bytes(test::byte_model());
  const std::vector<int32_t> ids = tokenizer.encode("a€b");
  const std::string text = tokenizer.decode(ids);
  EXPECT_EQ(text, "a€b");
  const std::vector<size_t> offsets = tokenizer.decode_offsets(ids);
  EXPECT_EQ(offsets.back(), text.size());

  StreamDecoder stream(tokenizer);
  std::string streamed;
  int silent = 0;
  for (const int32_t id : ids) {
    const std::string_view fresh = stream.next(id);
    silent += fresh.empty() ? 1 : 0;
    for (size_t position = 0; position < fresh.size();) {
      ASSERT_NE(next_code_point(fresh, position), kInvalid) << "half a character was handed out";
    }
    streamed += fresh;
  }
  EXPECT_EQ(streamed, text);
  EXPECT_GE(silent, 2);  // the first two bytes of the euro sign
}

TEST(Tokenizer, BytesThatFormNoCharacterAreReplaced) {
  const Tokenizer tokenizer = test::from_bytes(test::byte_model());
  const auto decode = [&](std::vector<uint8_t> bytes) {
    std::vector<int32_t> ids;
    for (const uint8_t byte : bytes) ids.push_back(test::kFirstByteId + byte);
    const std::string text = tokenizer.decode(ids);
    StreamDecoder stream(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) streamed += stream.next(id);
    EXPECT_EQ(text.substr(0, streamed.size()), streamed);
    return text;
  };
  EXPECT_EQ(decode({'A'}), "A");
  EXPECT_EQ(decode({0xff}), "\ufffd");
  EXPECT_EQ(decode({0xe2, 0x82}), "\ufffd\ufffd");
  EXPECT_EQ(decode({0xe2, 'A'}), "\ufffdA");
  EXPECT_EQ(decode({0xf0, 0x9f, 0x90, 0xb1, 0x80}), "🐱\ufffd");
  EXPECT_EQ(decode({0xc0, 0x80, 0xed, 0xa0, 0x80}), "\ufffd\ufffd\ufffd\ufffd\ufffd");
}

TEST(Tokenizer, StreamingGivesTheDecodedText) {
  const Tokenizer tokenizer = Tokenizer::open(kT5, {100});
  const std::vector<int32_t> ids = tokenizer.encode("where is the dog? <extra_id_3> on the table");
  StreamDecoder stream(tokenizer);
  std::string streamed;
  for (const int32_t id : ids) streamed += stream.next(id);
  EXPECT_EQ(streamed, tokenizer.decode(ids));
}

TEST(Tokenizer, AnyTextCanBeEncoded) {
  const Tokenizer tokenizer = Tokenizer::open(kT5, {100});
  for (const std::string& text :
       {std::string("\0", 1), std::string("\xff\xfe"), std::string("\xe2\x96"), std::string(3, '<'),
        std::string("<extra_id_"), std::string(1000, '\n'), std::string("\xed\xa0\x80")}) {
    for (const int32_t id : tokenizer.encode(text)) {
      EXPECT_GE(id, 0);
      EXPECT_LT(id, tokenizer.size());
    }
    EXPECT_EQ(siglip_encode(tokenizer, text, 16, 1).size(), 16u);
  }
  std::string long_text;
  while (long_text.size() < 1 << 20) long_text += "a cat sits on the table <extra_id_7>";
  EXPECT_GT(tokenizer.encode(long_text).size(), 100000u);
}

TEST(Tokenizer, SiglipAlwaysEndsWithTheEndToken) {
  const Tokenizer tokenizer = Tokenizer::open(test::data("tokenizers/siglip/spiece.model"));
  for (const int64_t length : {1, 2, 3, 64}) {
    const std::vector<int32_t> ids = siglip_encode(tokenizer, "a photo of a cat", length, 1);
    ASSERT_EQ(static_cast<int64_t>(ids.size()), length);
    EXPECT_EQ(ids.back(), length < 10 ? tokenizer.eos_id() : 1);
  }
}

TEST(Tokenizer, FoundBesideTheModel) {
  const TempFolder folder;
  EXPECT_TRUE(Tokenizer::find_beside(folder.path()).empty());
  folder.write("tokenizer.json", "{}");
  EXPECT_EQ(Tokenizer::find_beside(folder.path()).filename(), "tokenizer.json");
  folder.write("paligemma_tokenizer.model", "x");
  EXPECT_EQ(Tokenizer::find_beside(folder.path()).filename(), "paligemma_tokenizer.model");
  folder.write("spiece.model", "x");
  EXPECT_EQ(Tokenizer::find_beside(folder.path()).filename(), "spiece.model");
  folder.write("tokenizer.model", "x");
  EXPECT_EQ(Tokenizer::find_beside(folder / "model.safetensors"), folder / "tokenizer.model");
}

TEST(Tokenizer, FilesThatAreNone) {
  const TempFolder folder;
  expect_error(ErrorCode::not_found, {"absent.model"},
               [&] { Tokenizer::open(folder / "absent.model"); });
  expect_error(ErrorCode::corrupt_file, {"empty file"},
               [&] { Tokenizer::open(folder.write("e.model", "")); });
  expect_error(ErrorCode::corrupt_file, {"text.model", "SentencePiece"},
               [&] { Tokenizer::open(folder.write("text.model", "not a model at all")); });
}

}  // namespace
}  // namespace pali
