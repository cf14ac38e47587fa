// A copy of a tiny model to damage, and what must happen to it then.
#pragma once

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <exception>
#include <filesystem>
#include <fstream>
#include <new>
#include <string>
#include <vector>

#include "pali/pali.hpp"
#include "support/temp_folder.hpp"

namespace pali::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// The tiny models need some 50 MB of address space beyond the program's own; whatever asks for
// gigabytes has believed a number out of a file, and fails. (Sanitizers reserve terabytes.)
inline void limit_address_space() {
  if (kSanitized) return;
  struct rlimit limit = {};
  ::getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = rlim_t{3} << 30;
  ::setrlimit(RLIMIT_AS, &limit);
}

// The same numbers in every run. Ref: Knuth's MMIX generator.
class Places {
 public:
  explicit Places(uint64_t seed) : state_(seed) {}
  size_t next(size_t below) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>((state_ >> 33) % below);
  }

 private:
  uint64_t state_;
};

class DamagedModel {
 public:
  explicit DamagedModel(const std::filesystem::path& model) {
    std::filesystem::copy(model, folder_.path(), std::filesystem::copy_options::recursive);
  }
  const std::filesystem::path& path() const { return folder_.path(); }
  std::string read(const std::string& name) const { return slurp(folder_ / name); }
  void write(const std::string& name, const std::string& content) const {
    folder_.write(name, content);
  }

 private:
  TempFolder folder_;
};

enum class Outcome { answer, error };

// Opens, inspects and uses a model as far as it goes. The only exception let through is
// pali::Error, not of the code `internal`; any answer must be finite, and all within seconds: of
// the CPU, since a machine that is busy is no fault.
inline Outcome open_and_use(const std::filesystem::path& model, const std::string& what) {
  const std::clock_t start = std::clock();
  Outcome outcome = Outcome::answer;
  try {
    EngineOptions options;
    options.threads = 1;
    const Engine engine = Engine::open(model, options);
    std::vector<uint8_t> rgb(20 * 10 * 3, 90);
    const Image image = Image::from_rgb(20, 10, rgb);
    if (engine.info().has_language) {
      Request request;
      if (engine.info().has_vision) request.images = {image};
      request.prompt = "a cat <extra_id_0>";
      request.generation.max_tokens = 3;
      const Result result = engine.run(request);
      EXPECT_TRUE(std::isfinite(result.logprob)) << what;
    } else {
      for (const float value : engine.embed_tokens(image).values) {
        EXPECT_TRUE(std::isfinite(value)) << what;
      }
      for (const float value : engine.embed(image)) EXPECT_TRUE(std::isfinite(value)) << what;
      for (const float value : engine.embed("A cat.")) EXPECT_TRUE(std::isfinite(value)) << what;
    }
  } catch (const Error& error) {
    outcome = Outcome::error;
    const std::string text = error.what();
    EXPECT_NE(error.code(), ErrorCode::internal) << what << ": " << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << what << ": " << text;
    EXPECT_LT(text.size(), 3000u) << what;
  } catch (const std::bad_alloc&) {
    ADD_FAILURE() << what << ": memory asked for by an unchecked number";
  } catch (const std::exception& error) {
    ADD_FAILURE() << what << ": " << error.what();
  }
  EXPECT_LT((std::clock() - start) / CLOCKS_PER_SEC, kSanitized ? 60 : 10) << what;
  return outcome;
}

}  // namespace pali::test
