// Canonical tensors bound to those of a store.
#include "io/tensor_table.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "support/expect_error.hpp"

namespace pali {
namespace {

using test::expect_error;

// Adds a tensor of floats 0, 1, 2, ... of the given type.
void add(WeightStore& store, const std::string& name, std::vector<int64_t> shape,
         DType type = DType::f32) {
  const std::span<std::byte> memory = store.add_owned(name, type, std::move(shape));
  std::memset(memory.data(), 0, memory.size());
  if (!is_float_weight(type)) return;
  const auto size = static_cast<size_t>(dtype_bytes(type));
  for (size_t i = 0; i < memory.size() / size; ++i) {
    const auto value = static_cast<float>(i);
    const uint16_t half = f32_to_bf16(value);
    if (type == DType::f32) std::memcpy(&memory[i * size], &value, size);
    if (type == DType::bf16) std::memcpy(&memory[i * size], &half, size);
  }
}

TensorRule rule(std::string name, std::vector<std::string> sources, std::vector<int64_t> shape,
                Transform transform = Transform::none, int part = 0, int parts = 1) {
  return {.name = std::move(name),
          .sources = std::move(sources),
          .shape = std::move(shape),
          .transform = transform,
          .part = part,
          .parts = parts};
}

TEST(TensorTable, CanonicalNameFirstThenSourcesInOrder) {
  WeightStore store;
  add(store, "second", {2, 3});
  add(store, "third", {2, 3});
  add(store, "own", {4});
  add(store, "other", {4});
  const TensorTable table = TensorTable::bind(
      store, {rule("w", {"first", "second", "third"}, {2, 3}), rule("own", {"other"}, {4})});
  EXPECT_EQ(table.bound().at("w").source, "second");
  EXPECT_EQ(table.bound().at("own").source, "own");
  EXPECT_EQ(table.unused(), (std::vector<std::string>{"other", "third"}));
  EXPECT_TRUE(table.has("w"));
  EXPECT_FALSE(table.has("second"));
  EXPECT_EQ(table.matrix("w").data, store.find("second")->data);
  EXPECT_EQ(table.matrix("w").at(1, 2), 5.0f);
  EXPECT_EQ(table.matrix("own").out, 1);
  EXPECT_EQ(table.matrix("own").in, 4);
  EXPECT_EQ(table.values("own"), (std::vector<float>{0, 1, 2, 3}));
  expect_error(ErrorCode::internal, {"'nothing'"}, [&] { table.matrix("nothing"); });
}

TEST(TensorTable, AConvolutionIsAMatrix) {
  WeightStore store;
  add(store, "patch", {5, 3, 2, 2}, DType::bf16);
  const TensorTable table =
      TensorTable::bind(store, {rule("p", {"patch"}, {5, 12}, Transform::flatten_in)});
  EXPECT_EQ(table.matrix("p").at(2, 7), 31.0f);
  EXPECT_EQ(table.matrix("p").dtype, DType::bf16);
}

TEST(TensorTable, PartsOfAFusedMatrixAndItsBias) {
  WeightStore store;
  add(store, "qkv", {6, 4});
  add(store, "qkv_bias", {6}, DType::bf16);
  std::vector<TensorRule> rules;
  for (int part = 0; part < 3; ++part) {
    const std::string name(1, "qkv"[part]);
    rules.push_back(rule(name, {"qkv"}, {2, 4}, Transform::rows_part, part, 3));
    rules.push_back(rule(name + "b", {"qkv_bias"}, {2}, Transform::rows_part, part, 3));
  }
  const TensorTable table = TensorTable::bind(store, rules);
  EXPECT_EQ(table.matrix("k").at(1, 3), 15.0f);
  EXPECT_EQ(table.values("vb"), (std::vector<float>{4, 5}));
  EXPECT_EQ(table.parameters(), 30);  // each stored tensor once, not once a part
  EXPECT_EQ(table.parameters_by_dtype(),
            (std::map<std::string, int64_t>{{"bf16", 6}, {"f32", 24}}));
  EXPECT_TRUE(table.unused().empty());
}

// A converted checkpoint holds the parts themselves, under their canonical names.
TEST(TensorTable, CanonicalTensorsNeedNoTransform) {
  WeightStore store;
  add(store, "k", {2, 4});
  add(store, "p", {5, 12});
  const TensorTable table =
      TensorTable::bind(store, {rule("k", {"qkv"}, {2, 4}, Transform::rows_part, 1, 3),
                                rule("p", {"patch"}, {5, 12}, Transform::flatten_in)});
  EXPECT_EQ(table.matrix("k").at(0, 0), 0.0f);
  EXPECT_EQ(table.matrix("p").at(4, 11), 59.0f);
}

TEST(TensorTable, AScalarIsAVectorOfOne) {
  WeightStore store;
  add(store, "logit_scale", {});
  const TensorTable table = TensorTable::bind(store, {rule("scale", {"logit_scale"}, {1})});
  EXPECT_EQ(table.values("scale").size(), 1u);
}

TEST(TensorTable, MissingTensorsAreCounted) {
  WeightStore store;
  add(store, "a", {1});
  std::vector<TensorRule> rules = {rule("a", {}, {1})};
  for (int i = 0; i < 7; ++i) rules.push_back(rule("m" + std::to_string(i), {}, {1}));
  expect_error(ErrorCode::corrupt_file, {"7 tensors are missing", "'m0'", "'m4', ..."},
               [&] { TensorTable::bind(store, rules); });
  rules.resize(2);
  rules[1].sources = {"their.name"};
  expect_error(ErrorCode::corrupt_file, {"1 tensor is missing: 'their.name'"},
               [&] { TensorTable::bind(store, rules); });
  rules[1].optional = true;
  EXPECT_FALSE(TensorTable::bind(store, rules).has("m0"));
}

TEST(TensorTable, WrongShapesAndTypes) {
  WeightStore store;
  add(store, "w", {2, 3});
  add(store, "i", {2, 3}, DType::i8);
  add(store, "d", {2, 3}, DType::f64);
  const auto expect = [&](std::initializer_list<std::string_view> parts, TensorRule one) {
    expect_error(ErrorCode::corrupt_file, parts, [&] { TensorTable::bind(store, {one}); });
  };
  expect({"'w'", "expected shape [3, 2]", "found [2, 3]"}, rule("c", {"w"}, {3, 2}));
  expect({"expected shape [6]"}, rule("c", {"w"}, {6}));
  expect({"[2, ...] of 4 elements"}, rule("c", {"w"}, {2, 4}, Transform::flatten_in));
  expect({"expected shape [6, 3]"}, rule("c", {"w"}, {2, 3}, Transform::rows_part, 0, 3));
  expect({"expected dtype f32, bf16 or f16, found i8"}, rule("c", {"i"}, {2, 3}));
  expect({"found f64"}, rule("c", {"d"}, {2, 3}));
}

// The same numbers in another order must come back as the matrix they were.
TEST(TensorTable, AxesAreTurnedPickedAndSplit) {
  WeightStore store;
  add(store, "dense", {2, 3});        // [in, out]
  add(store, "heads", {4, 2, 3});     // [in, H, Hd]
  add(store, "stack", {5, 2, 3});     // [L, in, out]
  add(store, "conv", {2, 2, 3, 5});   // [y, x, channel, out]
  add(store, "split", {2, 2, 4, 3});  // [L, H, in, Hd]
  add(store, "bias", {2, 3});         // [H, Hd]
  const auto axes = [](std::string name, std::vector<int64_t> shape, std::string spec,
                       std::vector<Pick> picks = {}) {
    TensorRule one = rule("our." + name, {name}, std::move(shape), Transform::axes);
    one.axes = std::move(spec);
    one.picks = std::move(picks);
    return one;
  };
  TensorTable table = TensorTable::bind(
      store, {axes("dense", {3, 2}, "io>o,i"), axes("heads", {6, 4}, "ihd>hd,i"),
              axes("stack", {3, 2}, "lio>o,i", {{3, 5}}), axes("conv", {5, 12}, "yxco>o,cyx"),
              axes("split", {6, 4}, "lhid>hd,i", {{1, 2}}), axes("bias", {6}, "hd>hd")});
  const auto at = [&](const char* name, int64_t o, int64_t i) {
    return table.matrix(name).at(o, i);
  };
  // What strides can describe lies in place; the rest is there once it is loaded.
  EXPECT_EQ(table.matrix("our.dense").data, store.find("dense")->data);
  EXPECT_TRUE(table.bound().at("our.conv").ref.empty());
  table.load(store);
  EXPECT_FALSE(table.matrix("our.dense").rows_contiguous());
  EXPECT_EQ(at("our.dense", 2, 1), 1 * 3 + 2);
  table.turn();
  EXPECT_TRUE(table.matrix("our.dense").rows_contiguous());
  EXPECT_EQ(at("our.dense", 2, 1), 1 * 3 + 2);
  EXPECT_EQ(at("our.heads", 4, 3), 3 * 6 + 4);
  EXPECT_EQ(at("our.stack", 2, 1), 3 * 6 + 1 * 3 + 2);
  EXPECT_EQ(at("our.conv", 3, 2 * 4 + 1 * 2 + 0), 1 * 30 + 0 * 15 + 2 * 5 + 3);
  EXPECT_EQ(at("our.split", 1 * 3 + 2, 3), 24 + 1 * 12 + 3 * 3 + 2);
  EXPECT_EQ(table.values("our.bias"), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  EXPECT_TRUE(table.unused().empty());

  for (const TensorRule& wrong :
       {axes("dense", {2, 3}, "io>o,i"), axes("heads", {6, 4}, "io>o,i"),
        axes("stack", {3, 2}, "lio>o,i", {{5, 6}}), axes("conv", {5, 13}, "yxco>o,cyx")}) {
    expect_error(ErrorCode::corrupt_file, {wrong.sources[0], wrong.axes},
                 [&] { TensorTable::bind(store, {wrong}); });
  }
}

TEST(TensorTable, TheTokenizerIsNoUnusedWeight) {
  WeightStore store;
  add(store, std::string(kTokenizerTensor), {5}, DType::u8);
  EXPECT_TRUE(TensorTable::bind(store, {}).unused().empty());
}

TEST(TensorTable, QuantisedTensorsAndTheirScales) {
  const auto bind = [](std::vector<int64_t> shape, DType type, std::vector<int64_t> scales,
                       DType scale_type, Precision least = Precision::any, uint8_t fill = 0) {
    WeightStore store;
    add(store, "w", std::move(shape), type);
    if (!scales.empty()) {
      const std::span<std::byte> memory = store.add_owned("w.scale", scale_type, scales);
      std::memset(memory.data(), fill, memory.size());
    }
    TensorRule one = rule("w", {"other"}, {3, 35});
    one.least = least;
    TensorTable table = TensorTable::bind(store, {one});
    table.load(store);
    EXPECT_TRUE(table.unused().empty());
    EXPECT_EQ(table.parameters(), 105);
    return table.matrix("w").dtype;
  };
  EXPECT_EQ(bind({3, 35}, DType::i8, {3}, DType::f32), DType::i8);
  EXPECT_EQ(bind({3, 18}, DType::u8, {3, 2}, DType::f16), DType::i4);
  // Conversion would not write it, but a file may hold it.
  EXPECT_EQ(bind({3, 35}, DType::i8, {3}, DType::f32, Precision::bf16), DType::i8);
  const auto refuse = [&](std::initializer_list<std::string_view> parts, auto... arguments) {
    expect_error(ErrorCode::corrupt_file, parts, [&] { bind(arguments...); });
  };
  using Shape = std::vector<int64_t>;
  refuse({"'w.scale'", "f32 [3]", "none"}, Shape{3, 35}, DType::i8, Shape{}, DType::f32);
  refuse({"'w.scale'", "f16 [3, 2]", "none"}, Shape{3, 18}, DType::u8, Shape{}, DType::f16);
  refuse({"'w.scale'", "found f32 [2]"}, Shape{3, 35}, DType::i8, Shape{2}, DType::f32);
  refuse({"'w.scale'", "found f16 [3]"}, Shape{3, 35}, DType::i8, Shape{3}, DType::f16);
  refuse({"'w.scale'", "found f16 [3, 1]"}, Shape{3, 18}, DType::u8, Shape{3, 1}, DType::f16);
  refuse({"'w'", "[3, 18]", "[3, 17]"}, Shape{3, 17}, DType::u8, Shape{3, 2}, DType::f16);
  refuse({"'w'", "[3, 35]", "[35, 3]"}, Shape{35, 3}, DType::i8, Shape{3}, DType::f32);
  refuse({"'w'", "found i8"}, Shape{3, 35}, DType::i8, Shape{3}, DType::f32, Precision::f32);
  refuse({"'w.scale'", "finite"}, Shape{3, 35}, DType::i8, Shape{3}, DType::f32, Precision::any,
         uint8_t{0xff});
  refuse({"'w.scale'", "finite"}, Shape{3, 18}, DType::u8, Shape{3, 2}, DType::f16, Precision::any,
         uint8_t{0x7c});
}

}  // namespace
}  // namespace pali
