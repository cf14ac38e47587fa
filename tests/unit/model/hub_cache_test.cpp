// The layout of huggingface_hub's cache, links included, and what is refused in it.
#include "model/hub_cache.hpp"

#include <gtest/gtest.h>

#include <cstdlib>

#include "model/assemble.hpp"
#include "support/expect_error.hpp"
#include "support/paths.hpp"
#include "support/temp_folder.hpp"

namespace pali {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::TempFolder;

constexpr const char* kCommit = "0123456789abcdef0123456789abcdef01234567";

class HubCache : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"}) {
      ::unsetenv(name);
    }
    ::setenv("HF_HOME", home_.path().c_str(), 1);
  }
  void TearDown() override { ::unsetenv("HF_HOME"); }

  fs::path repository(const std::string& name) const { return home_ / "hub" / name; }
  // A model of tests/data as the cache holds it: links into blobs/.
  fs::path add(const std::string& name, const std::string& model,
               const std::string& commit = kCommit) const {
    const fs::path blobs = repository(name) / "blobs";
    const fs::path snapshot = repository(name) / "snapshots" / commit;
    fs::create_directories(blobs);
    fs::create_directories(snapshot);
    for (const auto& entry : fs::directory_iterator(test::data("models") / model)) {
      const fs::path file = entry.path().filename();
      fs::copy(entry.path(), blobs / ("blob-" + file.string()),
               fs::copy_options::overwrite_existing);
      fs::create_symlink(fs::path("../../blobs") / ("blob-" + file.string()), snapshot / file);
    }
    return snapshot;
  }
  void set_main(const std::string& name, const std::string& text) const {
    fs::create_directories(repository(name) / "refs");
    std::ofstream(repository(name) / "refs" / "main") << text;
  }
  TempFolder home_;
};

TEST_F(HubCache, TheSnapshotThatMainNames) {
  const fs::path snapshot = add("models--google--tiny-ul2", "ul2");
  add("models--google--tiny-ul2", "ul2", "ffff");
  set_main("models--google--tiny-ul2", std::string(kCommit) + "\n");
  EXPECT_EQ(find_model("google/tiny-ul2"), snapshot);
  const Checkpoint checkpoint = open_checkpoint("google/tiny-ul2");
  EXPECT_EQ(checkpoint.format, "huggingface");
  EXPECT_TRUE(checkpoint.tokenizer.has_value());
  EXPECT_EQ(model_name(checkpoint.path), "google/tiny-ul2");
}

TEST_F(HubCache, FoldersOfBigVision) {
  const fs::path snapshot = add("models--google--paligemma-3b-mix-44-jax", "paligemma_npz");
  const std::string name = "google/paligemma-3b-mix-44-jax";  // refs/ is not needed for one
  EXPECT_EQ(find_model(name), snapshot / "paligemma-3b-pt-44.bf16.npz");
  const Checkpoint checkpoint = open_checkpoint(name);
  EXPECT_EQ(checkpoint.format, "big_vision");
  EXPECT_TRUE(checkpoint.tokenizer.has_value());
  std::ofstream(snapshot / "vae-oid.npz") << "x";
  EXPECT_EQ(find_model(name), snapshot / "paligemma-3b-pt-44.bf16.npz");
  std::ofstream(snapshot / "another.npz") << "x";
  expect_error(ErrorCode::invalid_argument, {"several .npz"}, [&] { find_model(name); });
}

TEST_F(HubCache, Variables) {
  const fs::path snapshot = add("models--a--b", "ul2");
  ::unsetenv("HF_HOME");
  ::setenv("XDG_CACHE_HOME", (home_ / "nothing").c_str(), 1);
  expect_error(ErrorCode::not_found, {"nothing/huggingface/hub", "hf download a/b"},
               [] { find_model("a/b"); });
  ::unsetenv("XDG_CACHE_HOME");
  ::setenv("HF_HUB_CACHE", (home_ / "hub").c_str(), 1);
  EXPECT_EQ(find_model("a/b"), snapshot);
  ::unsetenv("HF_HUB_CACHE");
}

TEST_F(HubCache, WhatIsNotThereOrDamaged) {
  expect_error(ErrorCode::not_found, {"hub", "hf download google/none"},
               [] { find_model("google/none"); });
  for (const char* path : {"nowhere", "./a/b", "a/b/c", "/a/b", "../a", "a/..", "a/b c", "a/"}) {
    try {
      find_model(path);
      ADD_FAILURE() << path;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::not_found);
      EXPECT_EQ(std::string(error.what()).find("hf download"), std::string::npos) << path;
    }
  }
  add("models--a--b", "ul2");
  for (const char* text : {"../../../etc", "/etc", "main", "0123\nabc", " \n"}) {
    set_main("models--a--b", text);
    expect_error(ErrorCode::corrupt_file, {"refs/main"}, [] { find_model("a/b"); });
  }
  set_main("models--a--b", "00ff");  // not downloaded
  expect_error(ErrorCode::not_found, {"hf download a/b"}, [] { find_model("a/b"); });
  add("models--a--two", "ul2");
  add("models--a--two", "ul2", "ffff");  // and no refs/main
  expect_error(ErrorCode::not_found, {"hf download a/two"}, [] { find_model("a/two"); });
}

TEST(ModelName, IsTheLastComponentOrThatOfTheHub) {
  EXPECT_EQ(model_name("a/b"), "b");
  EXPECT_EQ(model_name("a/b/"), "b");
  EXPECT_EQ(model_name("x/models--google--t5--v1_1/snapshots/00ff"), "google/t5--v1_1");
  EXPECT_EQ(model_name("x/models--t5-small/snapshots/00ff"), "t5-small");
}

}  // namespace
}  // namespace pali
