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

}  // namespace
}  // namespace pali
