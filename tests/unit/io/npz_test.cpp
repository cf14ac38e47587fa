// numpy's archives: arrays stored and deflated, as numpy and big_vision write them.
#include "io/npz.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "io/tensor_table.hpp"
#include "support/temp_folder.hpp"
#include "unit/io/zip_bytes.hpp"

namespace pali {
namespace {

using test::floats;
using test::npy_bytes;
using test::npy_header;
using test::zip_bytes;

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string six() { return npy_bytes(npy_header("<f4", "(2, 3)"), floats({0, 1, 2, 3, 4, 5})); }

TEST(Npz, StoredArraysLieInPlace) {
  for (const bool zip64 : {false, true}) {
    for (const bool descriptor : {false, true}) {
      const std::string file = zip_bytes(
          {{.name = "img/a.npy", .content = six(), .zip64 = zip64, .descriptor = descriptor},
           {.name = "b.npy", .content = six()}},
          zip64);
      const std::vector<StoredTensor> arrays = read_npz(bytes_of(file), "w.npz");
      ASSERT_EQ(arrays.size(), 2u);
      EXPECT_EQ(arrays[0].name, "img/a");
      EXPECT_EQ(arrays[0].shape, (std::vector<int64_t>{2, 3}));
      EXPECT_EQ(arrays[0].dtype, DType::f32);
      EXPECT_EQ(arrays[0].bytes, 24);
      ASSERT_TRUE(arrays[0].plain());
      EXPECT_GE(arrays[0].data, bytes_of(file).data());
      EXPECT_EQ(load_weight(arrays[0].data, DType::f32, 4), 4.0f);
      arrays[0].check();
    }
  }
}

TEST(Npz, DeflatedArraysAreUnpackedWhenAskedFor) {
  for (const bool zip64 : {false, true}) {
    const std::string file = zip_bytes(
        {{.name = "a.npy", .content = six(), .deflate = true, .zip64 = zip64, .descriptor = true}});
    const std::vector<StoredTensor> arrays = read_npz(bytes_of(file), "w.npz");
    ASSERT_EQ(arrays[0].data, nullptr);
    std::vector<float> values(6);
    arrays[0].unpack(std::as_writable_bytes(std::span(values)));
    EXPECT_EQ(values, (std::vector<float>{0, 1, 2, 3, 4, 5}));
  }
}

TEST(Npz, Types) {
  const std::pair<const char*, DType> types[] = {
      {"<f8", DType::f64},  {"<f2", DType::f16}, {"|V2", DType::bf16},
      {"<V2", DType::bf16}, {"<i8", DType::i64}, {"<i4", DType::i32},
      {"|i1", DType::i8},   {"|u1", DType::u8},  {"|b1", DType::boolean}};
  for (const auto& [name, type] : types) {
    const std::string data(static_cast<size_t>(3 * dtype_bytes(type)), '\1');
    const std::string file =
        zip_bytes({{.name = "a.npy", .content = npy_bytes(npy_header(name, "(3,)"), data)}});
    EXPECT_EQ(read_npz(bytes_of(file), "w.npz")[0].dtype, type) << name;
  }
  const std::string scalar =
      zip_bytes({{.name = "t.npy", .content = npy_bytes(npy_header("<f4", "()"), floats({2}))}});
  EXPECT_TRUE(read_npz(bytes_of(scalar), "w.npz")[0].shape.empty());
  const std::string old = zip_bytes(
      {{.name = "t.npy",
        .content = npy_bytes("{\"shape\": (1L, 2L), \"fortran_order\": False, \"descr\": \"<f4\"}",
                             floats({2, 3}))}});
  EXPECT_EQ(read_npz(bytes_of(old), "w.npz")[0].shape, (std::vector<int64_t>{1, 2}));
}

TEST(Npz, AnEmptyArchive) { EXPECT_TRUE(read_npz(bytes_of(zip_bytes({})), "w.npz").empty()); }

// A deflated stack of layers: each its own matrix, whether it has to be turned or not.
TEST(Npz, ATableOfDeflatedArrays) {
  const test::TempFolder folder;
  const std::string stack =
      npy_bytes(npy_header("<f4", "(2, 2, 3)"), floats({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  folder.write("w.npz", zip_bytes({{.name = "w.npy", .content = stack, .deflate = true},
                                   {.name = "v.npy", .content = stack, .deflate = true},
                                   {.name = "opt.npy", .content = stack, .deflate = true}}));
  for (const bool mmap : {true, false}) {
    const WeightStore store = WeightStore::open_npz(folder / "w.npz", mmap);
    std::vector<TensorRule> rules;
    for (int64_t layer = 0; layer < 2; ++layer) {
      TensorRule& turned = rules.emplace_back();
      turned.name = "w" + std::to_string(layer);
      turned.sources = {"w"};
      turned.shape = {3, 2};
      turned.transform = Transform::axes;
      turned.axes = "lio>o,i";
      turned.picks = {{layer, 2}};
      TensorRule straight = turned;
      straight.name = "v" + std::to_string(layer);
      straight.sources = {"v"};
      straight.shape = {2, 3};
      straight.axes = "loi>o,i";
      rules.push_back(straight);
    }
    TensorTable table = TensorTable::bind(store, rules);
    EXPECT_EQ(table.unused(), (std::vector<std::string>{"opt"}));
    EXPECT_EQ(table.parameters(), 24);
    table.load(store);
    EXPECT_EQ(table.values("w1"), (std::vector<float>{6, 9, 7, 10, 8, 11}));
    EXPECT_EQ(table.values("v1"), (std::vector<float>{6, 7, 8, 9, 10, 11}));
    EXPECT_TRUE(table.matrix("w1").rows_contiguous());
  }
}

}  // namespace
}  // namespace pali
