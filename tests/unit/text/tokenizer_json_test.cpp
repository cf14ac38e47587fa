// tokenizer.json against Hugging Face's tokenizers and sentencepiece (tools/golden), and files that
// are none.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/mapped_file.hpp"
#include "io/json.hpp"
#include "support/expect_error.hpp"
#include "support/paths.hpp"
#include "support/temp_folder.hpp"
#include "text/tokenizer.hpp"

namespace pali {
namespace {

using test::expect_error;
using test::TempFolder;
namespace fs = std::filesystem;

// PALI_TOKENIZER_LINES: a folder that make_tokenizer_json.py --lines wrote.
fs::path lines_folder() {
  const char* given = std::getenv("PALI_TOKENIZER_LINES");
  return given == nullptr ? test::data("tokenizer_json") : fs::path(given);
}

class TokenizerJsonLines : public testing::TestWithParam<const char*> {
 protected:
  fs::path folder_ = lines_folder() / GetParam();
  Tokenizer tokenizer_ = Tokenizer::open(folder_ / "tokenizer.json");

  template <class Check>
  void for_each_line(Check check) {
    std::ifstream lines(folder_ / "lines.jsonl");
    int count = 0;
    for (std::string line; std::getline(lines, line) && !HasFailure(); ++count) {
      const Json row = parse_json(line, "lines.jsonl");
      SCOPED_TRACE(row["text"].dump());
      check(row["text"].get<std::string>(), row);
    }
    EXPECT_GE(count, 100);
  }
};

std::vector<int32_t> ids_of(const Json& row, const char* library) {
  return row[library].get<std::vector<int32_t>>();
}

using BpeLines = TokenizerJsonLines;
TEST_P(BpeLines, IdsOfHuggingFace) {
  for_each_line([&](const std::string& text, const Json& row) {
    EXPECT_EQ(tokenizer_.encode(text), ids_of(row, "hf"));
  });
}
INSTANTIATE_TEST_SUITE_P(Models, BpeLines, testing::Values("gemma", "siglip2", "paired"));

// The same pieces in another order: one sum of scores, and which of the orders is found depends on
// how it was rounded on the way (sentencepiece 0.1.97 compares sums in double with sums in float).
bool is_tie(std::vector<int32_t> a, std::vector<int32_t> b) {
  std::sort(a.begin(), a.end());
  std::sort(b.begin(), b.end());
  return a == b;
}

// Run by sentencepiece: where the two libraries differ on plain text ("spm"), its ids are right. A
// line with special tokens on which they differ ("special") has no ids of both.
using UnigramLines = TokenizerJsonLines;
TEST_P(UnigramLines, IdsOfTheSentencePieceModelAndOfHuggingFace) {
  const Tokenizer model = Tokenizer::open(folder_ / "spiece.model", {100});
  EXPECT_EQ(tokenizer_.size(), model.size());
  int lines = 0, differ = 0, special = 0, ties = 0;
  for_each_line([&](const std::string& text, const Json& row) {
    const std::vector<int32_t> ids = tokenizer_.encode(text);
    // A sentinel that is spelt with its mark is found in the text by Hugging Face alone.
    if (text.find("\xe2\x96\x81<extra_id") == std::string::npos) {
      const std::vector<int32_t> of_model = model.encode(text);
      EXPECT_TRUE(ids == of_model || is_tie(ids, of_model)) << testing::PrintToString(ids) << "\n"
                                                            << testing::PrintToString(of_model);
    }
    EXPECT_EQ(tokenizer_.decode(ids), model.decode(ids));
    const std::vector<int32_t> expected = ids_of(row, row.contains("spm") ? "spm" : "hf");
    const bool compared = !row.contains("special");
    if (compared && ids != expected) {
      EXPECT_TRUE(is_tie(ids, expected)) << testing::PrintToString(ids) << "\n"
                                         << testing::PrintToString(expected);
      ++ties;
    }
    ++lines;
    differ += row.contains("spm") ? 1 : 0;
    special += compared ? 0 : 1;
  });
  EXPECT_LE(ties, lines / 50);
  std::printf("%d lines: %d ties, on %d the libraries differ, %d of special tokens alone\n", lines,
              ties, differ, special);
}
INSTANTIATE_TEST_SUITE_P(Models, UnigramLines, testing::Values("t5", "mt5"));

TEST(TokenizerJson, GemmasModelFileGivesTheSameIds) {
  const fs::path folder = lines_folder() / "gemma";
  const Tokenizer json = Tokenizer::open(folder / "tokenizer.json");
  const Tokenizer model = Tokenizer::open(folder / "tokenizer.model");
  EXPECT_EQ(json.size(), model.size());
  EXPECT_EQ(json.pad_id(), model.pad_id());
  EXPECT_EQ(json.eos_id(), model.eos_id());
  EXPECT_EQ(json.bos_id(), model.bos_id());
  EXPECT_EQ(json.unk_id(), model.unk_id());
  std::ifstream lines(folder / "lines.jsonl");
  int same = 0;
  for (std::string line; std::getline(lines, line) && !testing::Test::HasFailure();) {
    const Json row = parse_json(line, "lines.jsonl");
    const auto text = row["text"].get<std::string>();
    const std::vector<int32_t> ids = json.encode(text);
    if (text.find("<mask>") == std::string::npos) {  // special in tokenizer.json alone
      EXPECT_EQ(model.decode(ids), json.decode(ids)) << text;
    }
    if (row.contains("special")) continue;
    // A run of spaces is one user-defined piece, the longest that fits, for sentencepiece, and
    // merged from single marks by Hugging Face: each file gives what its own library gives.
    const std::vector<int32_t> expected = row.contains("spm") ? ids_of(row, "spm") : ids;
    EXPECT_EQ(model.encode(text), expected) << text;
    same += row.contains("spm") ? 0 : 1;
  }
  EXPECT_GE(same, 90);
}

constexpr const char* kSteps =
    R"("normalizer":{"type":"Replace","pattern":{"String":" "},"content":"▁"},"pre_tokenizer":null)";

std::string bpe_json(const std::string& vocab, const std::string& merges,
                     const std::string& more = "") {
  return "{" + std::string(kSteps) + more + R"(,"model":{"type":"BPE","vocab":)" + vocab +
         R"(,"merges":)" + merges + "}}";
}

Tokenizer from_text(const std::string& text) {
  return Tokenizer::from_bytes(std::as_bytes(std::span(text)), {}, "tokenizer.json");
}

TEST(TokenizerJson, MergesGoByRankAndOnlyWhereListed) {
  // "abc" is a piece, but only "ab c" is a merge: "a bc" stays two pieces, where sentencepiece
  // would join them.
  const std::string vocab = R"({"a":0,"b":1,"c":2,"ab":3,"bc":4,"abc":5})";
  EXPECT_EQ(from_text(bpe_json(vocab, R"(["b c","ab c","a b"])")).encode("abc"),
            (std::vector<int32_t>{0, 4}));
  EXPECT_EQ(from_text(bpe_json(vocab, R"([["a","b"],["ab","c"],["b","c"]])")).encode("abcbc"),
            (std::vector<int32_t>{5, 4}));
  EXPECT_EQ(from_text(bpe_json(vocab, "[]")).encode("a?b"), (std::vector<int32_t>{0, 1}));
}

TEST(TokenizerJson, AddedTokensAreFoundFirstAndSwallowSpaceWhereTheySaySo) {
  const std::string added =
      R"(,"added_tokens":[{"id":2,"content":"<l>","special":false,"normalized":false,"lstrip":true},
          {"id":3,"content":"<r>","special":true,"rstrip":true},
          {"id":4,"content":"<r>x","special":true},
          {"id":5,"content":"a b","special":false,"normalized":true}])";
  const Tokenizer tokenizer = from_text(bpe_json(R"({"a":0,"▁":1})", "[]", added));
  EXPECT_EQ(tokenizer.size(), 6);
  EXPECT_EQ(tokenizer.encode("a \t<l> a"), (std::vector<int32_t>{0, 2, 1, 0}));
  EXPECT_EQ(tokenizer.encode("a <r> \n a"), (std::vector<int32_t>{0, 1, 3, 0}));
  EXPECT_EQ(tokenizer.encode("<r>x<r> <l>"), (std::vector<int32_t>{4, 3, 2}));  // longest
  EXPECT_EQ(tokenizer.encode("a b"), (std::vector<int32_t>{5}));
  EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{0, 3, 2, 5}), "a<l>a b");
}

TEST(TokenizerJson, GemmasTextComesBackAsItWas) {
  const Tokenizer tokenizer = Tokenizer::open(lines_folder() / "gemma" / "tokenizer.json");
  for (const char* text :
       {"", " ", "a  b\n\n c\t", "🐱é<loc0123><seg007>x", "日本 \u2028 ῼ", "<loc", "▁"}) {
    const std::string back = tokenizer.decode(tokenizer.encode(text));
    EXPECT_EQ(back, std::string(text) == "▁" ? " " : text);
  }
  EXPECT_EQ(tokenizer.encode("<loc0123>").size(), 1u);
}

TEST(TokenizerJsonMisuse, OneLineErrors) {
  const std::string vocab = R"({"a":0,"b":1,"ab":2})";
  const std::pair<const char*, std::string> corrupt[] = {
      {"not valid JSON", "{"},
      {"field 'model' is missing", "{}"},
      {"model.vocab", bpe_json(R"({"a":-1})", "[]")},
      {"model.vocab", bpe_json(R"({"a":"x"})", "[]")},
      {"far beyond", bpe_json(R"({"a":4000000})", "[]")},
      {"model.vocab", bpe_json(R"({"a":99999999999999999999})", "[]")},
      {"two pieces with the id 0", bpe_json(R"({"a":0,"b":0})", "[]")},
      {"stands twice", bpe_json(R"({"a":0,"a":1})", "[]")},
      {"empty piece", bpe_json(R"({"":0})", "[]")},
      {"merge of 'a' and 'a'", bpe_json(vocab, R"(["a a"])")},
      {"no pair", bpe_json(vocab, R"(["ab"])")},
      {"no pair", bpe_json(vocab, R"([["a"]])")},
      {"no pair", bpe_json(vocab, R"([["a","b","c"]])")},
      {"no pair", bpe_json(vocab, R"([["a",3]])")},
      {"list of lists", bpe_json(vocab, R"([[["a"]]])")},
      {"no list", bpe_json(vocab, "[]", R"(,"added_tokens":{"a":1})")},
      {"far behind", bpe_json(vocab, "[]", R"(,"added_tokens":[{"id":999999,"content":"x"}])")},
      {"has the id of the piece 'a'",
       bpe_json(vocab, "[]", R"(,"added_tokens":[{"id":0,"content":"x"}])")},
      {"unk_token", R"({"model":{"type":"BPE","unk_token":"?","vocab":{"a":0},"merges":[]}})"},
      {"no pieces", R"({"model":{"type":"Unigram","unk_id":0,"vocab":[]}})"},
      {"finite score", R"({"model":{"type":"Unigram","unk_id":0,"vocab":[["a",1e300]]}})"},
      {"unk_id", R"({"model":{"type":"Unigram","unk_id":7,"vocab":[["a",0]]}})"},
      {"base64",
       R"({"normalizer":{"type":"Precompiled","precompiled_charsmap":"?"},"pre_tokenizer":{"type":"Metaspace",
           "replacement":"▁"},"model":{"type":"Unigram","unk_id":0,"vocab":[["a",0]]}})"},
      {"wrong size",
       R"({"normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"},"pre_tokenizer":{"type":"Metaspace",
           "replacement":"▁"},"model":{"type":"Unigram","unk_id":0,"vocab":[["a",0]]}})"},
  };
  for (const auto& [part, text] : corrupt) {
    SCOPED_TRACE(text);
    expect_error(ErrorCode::corrupt_file, {part, "tokenizer.json"}, [&] { from_text(text); });
  }
  const std::pair<const char*, std::string> unsupported[] = {
      {"'WordPiece'", R"({"model":{"type":"WordPiece","vocab":{"a":0}}})"},
      {"U+2581", R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})"},
      {"'ByteLevel'",
       R"({"normalizer":{"type":"Replace","pattern":{"String":" "},"content":"▁"},"pre_tokenizer":
                          {"type":"ByteLevel"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}})"},
      {"Metaspace", R"({"model":{"type":"Unigram","unk_id":0,"vocab":[["a",0]]}})"},
      {"single word",
       bpe_json(vocab, "[]", R"(,"added_tokens":[{"id":9,"content":"x","single_word":true}])")},
  };
  for (const auto& [part, text] : unsupported) {
    SCOPED_TRACE(text);
    expect_error(ErrorCode::unsupported, {part, "tokenizer.json"}, [&] { from_text(text); });
  }
}

TEST(TokenizerJsonMisuse, DamagedFilesNeverCrash) {
  for (const char* name : {"gemma", "t5"}) {
    const auto bytes = read_file(lines_folder() / name / "tokenizer.json", 1 << 26);
    const std::string whole(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    uint64_t state = 1;
    const auto random = [&](size_t below) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      return static_cast<size_t>(state >> 33) % below;
    };
    for (int round = 0; round < 60; ++round) {
      std::string damaged = whole;
      for (size_t hits = 1 + random(3); hits > 0; --hits) {
        damaged[random(damaged.size())] = "\"[]{},:0-9\\"[random(11)];
      }
      if (random(4) == 0) damaged.resize(random(damaged.size()) + 1);
      try {
        from_text(damaged).encode("a <loc0123> b\xff");
      } catch (const Error& error) {
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      }
    }
  }
}

}  // namespace
}  // namespace pali
