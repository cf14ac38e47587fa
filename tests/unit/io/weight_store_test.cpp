// Single files, folders and shards; indexes that lie.
#include "io/weight_store.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "base/assert.hpp"
#include "io/safetensors.hpp"
#include "support/expect_error.hpp"
#include "support/temp_folder.hpp"

namespace pali {
namespace {

using test::expect_error;
using test::TempFolder;

// Each tensor of 4 floats of one value.
void write(const std::filesystem::path& path, const std::map<std::string, float>& tensors) {
  std::vector<SafetensorsOutput> outputs;
  for (const auto& [name, value] : tensors) {
    outputs.push_back({name, DType::f32, {4}, [number = value](std::span<std::byte> out) {
                         for (int i = 0; i < 4; ++i) std::memcpy(&out[i * 4u], &number, 4);
                       }});
  }
  write_safetensors(path, outputs, {{"k", "v"}});
}

float first(const WeightStore& store, const char* name) {
  return load_weight(store.find(name)->data, DType::f32, 0);
}

TEST(WeightStore, AFolderWithOneFile) {
  const TempFolder folder;
  write(folder / "model.safetensors", {{"a", 1.0f}, {"b", 2.0f}});
  for (const bool use_mmap : {true, false}) {
    const WeightStore store = WeightStore::open_folder(folder.path(), use_mmap);
    EXPECT_EQ(store.tensors().size(), 2u);
    EXPECT_EQ(first(store, "b"), 2.0f);
    EXPECT_TRUE(store.metadata().empty());
    EXPECT_EQ(store.find("c"), nullptr);
    EXPECT_EQ(store.bytes(), 32);
  }
}

class ShardedTest : public testing::Test {
 protected:
  ShardedTest() {
    write(folder_ / "one.safetensors", {{"a", 1.0f}, {"extra", 9.0f}});
    write(folder_ / "two.safetensors", {{"b", 2.0f}, {"a", 5.0f}});
  }
  void index(const std::string& text) { folder_.write("model.safetensors.index.json", text); }
  void expect(ErrorCode code, std::initializer_list<std::string_view> parts) {
    expect_error(code, parts, [&] { WeightStore::open_folder(folder_.path()); });
  }
  TempFolder folder_;
};

TEST_F(ShardedTest, TakesWhatTheIndexLists) {
  index(R"({"metadata":{},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const WeightStore store = WeightStore::open_folder(folder_.path());
  EXPECT_EQ(store.tensors().size(), 2u);
  EXPECT_EQ(first(store, "a"), 1.0f);
  EXPECT_EQ(first(store, "b"), 2.0f);
}

TEST_F(ShardedTest, FollowsSymlinks) {
  const TempFolder cache;
  write(cache / "blob", {{"a", 7.0f}});
  std::filesystem::create_symlink(cache / "blob", folder_ / "link.safetensors");
  index(R"({"weight_map":{"a":"link.safetensors"}})");
  EXPECT_EQ(first(WeightStore::open_folder(folder_.path()), "a"), 7.0f);
}

TEST_F(ShardedTest, HostileNames) {
  for (const char* name : {"../x", "/etc/passwd", "a/b", "..", ".", "", "a\\\\b", "a\\u0000b"}) {
    index(std::string(R"({"weight_map":{"a":")") + name + "\"}}");
    expect(ErrorCode::corrupt_file, {"'a'", "plain file name", "index.json"});
  }
}

TEST_F(ShardedTest, HostileIndexes) {
  for (const char* text :
       {"", "[]", "{", "{}", R"({"weight_map":[]})", R"({"weight_map":{}})",
        R"({"weight_map":{"a":1}})", R"({"weight_map":{"a":["one.safetensors"]}})",
        R"({"weight_map":{"a":null}})", R"({"weight_map":"one.safetensors"})"}) {
    SCOPED_TRACE(text);
    index(text);
    expect(ErrorCode::corrupt_file, {"model.safetensors.index.json"});
  }
}

TEST_F(ShardedTest, MissingShardsAndTensors) {
  index(R"({"weight_map":{"a":"three.safetensors"}})");
  expect(ErrorCode::not_found, {"'three.safetensors'", "index.json"});
  index(R"({"weight_map":{"a":"one.safetensors","c":"one.safetensors"}})");
  expect(ErrorCode::corrupt_file, {"'c'", "one.safetensors"});
  index(R"({"weight_map":{"a":"model.safetensors.index.json"}})");
  expect(ErrorCode::corrupt_file, {"model.safetensors.index.json"});
}

TEST(WeightStore, FoldersWithoutSafetensors) {
  const TempFolder folder;
  expect_error(ErrorCode::not_found,
               {"model.safetensors", "model.safetensors.index.json", folder.path().string()},
               [&] { WeightStore::open_folder(folder.path()); });
  expect_error(ErrorCode::not_found, {"absent"},
               [&] { WeightStore::open_folder(folder / "absent"); });
  folder.write("pytorch_model.bin", "x");
  expect_error(ErrorCode::unsupported,
               {"pytorch_model.bin", "a bare pickle", "python3 -c \"", "save_file",
                "weights_only=True", "clone()", "'" + folder.path().string() + "'"},
               [&] { WeightStore::open_folder(folder.path()); });
}

TEST(WeightStore, FilesThatAreNone) {
  const TempFolder folder;
  expect_error(ErrorCode::not_found, {"absent.safetensors"},
               [&] { WeightStore::open_safetensors(folder / "absent.safetensors"); });
  expect_error(ErrorCode::corrupt_file, {"empty file"},
               [&] { WeightStore::open_safetensors(folder.write("e.safetensors", "")); });
  expect_error(ErrorCode::corrupt_file, {"png.safetensors"}, [&] {
    WeightStore::open_safetensors(folder.write("png.safetensors", "\x89PNG\r\n\x1a\n----"));
  });
}

TEST(WeightStore, OwnsAndAbsorbs) {
  const TempFolder folder;
  write(folder / "model.safetensors", {{"a", 1.0f}});
  WeightStore part = WeightStore::open_folder(folder.path());
  const std::span<std::byte> memory = part.add_owned("made", DType::bf16, {3, 5});
  EXPECT_EQ(memory.size(), 30u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.data()) % 64, 0u);
  std::memset(memory.data(), 0, memory.size());
  EXPECT_THROW(part.add_owned("made", DType::f32, {1}), Error);
  EXPECT_THROW(part.add_owned("huge", DType::f32, {int64_t{1} << 62}), Error);

  WeightStore whole;
  whole.absorb(std::move(part), "language.");
  EXPECT_EQ(first(whole, "language.a"), 1.0f);
  EXPECT_EQ(whole.find("language.made")->shape, (std::vector<int64_t>{3, 5}));
  EXPECT_EQ(whole.find("language.made")->name, "language.made");
  EXPECT_EQ(whole.bytes(), 16 + 30);
  const WeightStore moved = std::move(whole);
  EXPECT_EQ(first(moved, "language.a"), 1.0f);
}

}  // namespace
}  // namespace pali
