// Safetensors files read and written.
#include "io/safetensors.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "io/weight_store.hpp"
#include "support/expect_error.hpp"
#include "support/temp_folder.hpp"
#include "unit/io/safetensors_bytes.hpp"

namespace pali {
namespace {

using test::expect_error;
using test::TempFolder;

TEST(Safetensors, ReadsNamesTypesShapesAndMetadata) {
  const SafetensorsHeader header = test::parse(test::safetensors(
      R"({"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},"__metadata__":{"format":"pt"},)"
      R"("a":{"data_offsets":[0,8],"shape":[2],"dtype":"F32"},)"
      R"("s":{"dtype":"U8","shape":[],"data_offsets":[20,21]}}   )",
      21));
  ASSERT_EQ(header.entries.size(), 3u);
  EXPECT_EQ(header.entries[0].name, "a");
  EXPECT_EQ(header.entries[0].dtype, DType::f32);
  EXPECT_EQ(header.entries[1].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(header.entries[1].begin, 8);
  EXPECT_EQ(header.entries[2].dtype, DType::u8);
  EXPECT_TRUE(header.entries[2].shape.empty());
  EXPECT_EQ(header.metadata.at("format"), "pt");
}

TEST(Safetensors, EmptyTensorsAndEmptyFilesAreFine) {
  EXPECT_TRUE(test::parse(test::safetensors("{}", 0)).entries.empty());
  const SafetensorsHeader header =
      test::parse(test::safetensors(R"({"e":{"dtype":"F32","shape":[0,4],"data_offsets":[4,4]},)"
                                    R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                    R"("z":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}})",
                                    4));
  EXPECT_EQ(header.entries.size(), 3u);
}

TEST(Safetensors, EveryTypeOfOursIsRead) {
  const std::pair<const char*, DType> types[] = {
      {"F64", DType::f64}, {"F32", DType::f32},     {"BF16", DType::bf16}, {"F16", DType::f16},
      {"I64", DType::i64}, {"I32", DType::i32},     {"I16", DType::i16},   {"I8", DType::i8},
      {"U8", DType::u8},   {"BOOL", DType::boolean}};
  for (const auto& [name, type] : types) {
    const auto bytes = static_cast<size_t>(dtype_bytes(type) * 3);
    const SafetensorsHeader header = test::parse(
        test::safetensors(std::string(R"({"a":{"dtype":")") + name +
                              R"(","shape":[3],"data_offsets":[0,)" + std::to_string(bytes) + "]}}",
                          bytes));
    EXPECT_EQ(header.entries.at(0).dtype, type);
  }
}

// A tensor whose bytes are `value`, then counting up.
SafetensorsOutput counting(std::string name, DType dtype, std::vector<int64_t> shape, int value) {
  return {std::move(name), dtype, std::move(shape), [value](std::span<std::byte> out) {
            for (size_t i = 0; i < out.size(); ++i) {
              out[i] = static_cast<std::byte>(static_cast<size_t>(value) + i);
            }
          }};
}

TEST(SafetensorsWriter, WhatIsWrittenIsRead) {
  const TempFolder folder;
  const std::map<std::string, std::string> metadata = {{"pali_format", "1"},
                                                       {"text", "a \"quote\"\n – 图"}};
  write_safetensors(
      folder / "m.safetensors",
      {counting("odd", DType::u8, {7}, 1), counting("half", DType::bf16, {3, 5}, 2),
       counting("big", DType::f32, {16, 4}, 3), counting("scalar", DType::f32, {}, 4),
       counting("none", DType::f32, {0, 9}, 5), counting("big2", DType::f32, {32}, 6)},
      metadata);
  const WeightStore store = WeightStore::open_safetensors(folder / "m.safetensors");
  EXPECT_EQ(store.metadata(), metadata);
  ASSERT_EQ(store.tensors().size(), 6u);
  const std::pair<const char*, int> firsts[] = {
      {"odd", 1}, {"half", 2}, {"big", 3}, {"scalar", 4}, {"big2", 6}};
  for (const auto& [name, first] : firsts) {
    const StoredTensor* tensor = store.find(name);
    ASSERT_NE(tensor, nullptr) << name;
    for (int64_t i = 0; i < tensor->bytes; ++i) {
      ASSERT_EQ(tensor->data[i], static_cast<std::byte>(first + i)) << name;
    }
  }
  EXPECT_EQ(store.find("none")->bytes, 0);
  EXPECT_EQ(store.find("half")->elements(), 15);
}

TEST(SafetensorsWriter, DataIsAlignedWithoutGaps) {
  const TempFolder folder;
  std::vector<SafetensorsOutput> tensors;
  for (int i = 0; i < 40; ++i) {
    const DType type = i % 3 == 0 ? DType::f32 : i % 3 == 1 ? DType::bf16 : DType::u8;
    tensors.push_back(counting("t" + std::to_string(i), type, {i * 7 % 33, i % 4 * 8 + 1}, i));
  }
  write_safetensors(folder / "m.safetensors", tensors, {{"k", "v"}});
  const WeightStore store = WeightStore::open_safetensors(folder / "m.safetensors");
  EXPECT_EQ(store.tensors().size(), 40u);
  for (const auto& [name, tensor] : store.tensors()) {
    const int64_t wanted = tensor.bytes % 64 == 0 ? 64 : tensor.bytes & -tensor.bytes;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(wanted), 0u)
        << name;
  }
}

TEST(SafetensorsWriter, AThrowingFillLeavesNothing) {
  const TempFolder folder;
  const std::vector<SafetensorsOutput> tensors = {counting("a", DType::f32, {64}, 1),
                                                  {"b", DType::f32, {64}, [](std::span<std::byte>) {
                                                     throw Error(ErrorCode::cancelled,
                                                                 "stopped (test); go on");
                                                   }}};
  expect_error(ErrorCode::cancelled, {"stopped"},
               [&] { write_safetensors(folder / "m.safetensors", tensors, {}); });
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SafetensorsWriter, RefusesWhatCannotBeWritten) {
  const TempFolder folder;
  const std::vector<SafetensorsOutput> tensors = {counting("a", DType::f32, {2}, 1)};
  expect_error(ErrorCode::invalid_argument, {"not UTF-8"}, [&] {
    write_safetensors(folder / "m", tensors, {{"k", "\xff"}});
  });
  expect_error(ErrorCode::invalid_argument, {"missing/m"},
               [&] { write_safetensors(folder / "missing/m", tensors, {}); });
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace pali
