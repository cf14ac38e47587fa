// Calibration in parts: a large model's matrices do not all fit at once.
#include "engine/calibrate.hpp"

#include <gtest/gtest.h>

#include "fixtures.hpp"
#include "pali/engine.hpp"

namespace pali {
namespace {

std::vector<std::byte> bytes_of(const StoredForm& form) {
  int64_t size = 1;
  for (const int64_t side : form.shape()) size *= side;
  std::vector<std::byte> bytes(static_cast<size_t>(size * dtype_bytes(form.container_type())));
  form.write(bytes);
  return bytes;
}

TEST(Calibrate, InPartsAsAtOnce) {
  const auto open = [] { return open_checkpoint(testing::model("pali3")); };
  Checkpoint checkpoint = open();
  checkpoint.table.load(checkpoint.store);
  int calls = 0;
  ConvertOptions options;
  options.engine = testing::threads(1);
  options.max_product_error = 1;
  options.calibrate = [&](const Engine& engine) {
    ++calls;
    engine.run(testing::ask(3));
  };
  const StoredForms whole = calibrated_forms(checkpoint, DType::i4, options, open);
  EXPECT_EQ(calls, 1);
  const StoredForms parts = calibrated_forms(checkpoint, DType::i4, options, open, 400000);
  EXPECT_GT(calls, 3);
  ASSERT_EQ(whole.size(), parts.size());
  EXPECT_GT(whole.size(), 10u);
  for (const auto& [name, form] : whole) {
    const auto part = parts.find(name);
    ASSERT_NE(part, parts.end()) << name;
    EXPECT_EQ(form.type(), part->second.type()) << name;
    EXPECT_EQ(bytes_of(form), bytes_of(part->second)) << name;
  }
}

// The embeddings of a tied head are never int4, and serve the head's products in int8.
TEST(Calibrate, ServesATiedHead) {
  const auto open = [] { return open_checkpoint(testing::model("t5_original")); };
  Checkpoint checkpoint = open();
  checkpoint.table.load(checkpoint.store);
  ASSERT_FALSE(checkpoint.table.has("lm.head.weight"));
  ConvertOptions options;
  options.engine = testing::threads(1);
  options.max_product_error = 1;
  options.calibrate = [](const Engine& engine) {
    Request request;
    request.prompt = "three words here";
    request.generation.max_tokens = 8;
    engine.run(request);
  };
  for (const DType type : {DType::i8, DType::i4}) {
    const StoredForms forms = calibrated_forms(checkpoint, type, options, open);
    const auto head = forms.find("lm.embed");
    ASSERT_NE(head, forms.end());
    EXPECT_EQ(head->second.type(), DType::i8);
    const StoredForm plain(checkpoint.table.bound().at("lm.embed"), type);
    EXPECT_NE(bytes_of(head->second), bytes_of(plain));
    EXPECT_GT(head->second.error()->products, 0);
    EXPECT_LT(head->second.error()->products, plain.error()->rms);
  }
}

}  // namespace
}  // namespace pali
