// Generation options that cannot be carried out are refused by name.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "generate/generate.hpp"
#include "pali/error.hpp"

namespace pali {
namespace {

GenerationOptions valid() {
  GenerationOptions options;
  options.max_tokens = 8;
  return options;
}

TEST(CheckOptions, DefaultsPass) { EXPECT_NO_THROW(check_options(valid())); }

TEST(CheckOptions, ExtremesThatMakeSensePass) {
  GenerationOptions options = valid();
  options.beams = 1024;
  options.n_best = 1024;
  options.length_penalty = -2.5;
  EXPECT_NO_THROW(check_options(options));
  options = valid();
  options.temperature = 1e-30;
  options.top_k = std::numeric_limits<int>::max();
  options.top_p = std::numeric_limits<double>::denorm_min();
  options.seed = std::numeric_limits<uint64_t>::max();
  EXPECT_NO_THROW(check_options(options));
}

TEST(CheckOptions, EveryBadValueIsRefusedByItsName) {
  const double nan = std::nan(""), infinite = std::numeric_limits<double>::infinity();
  struct Case {
    const char* name;
    std::function<void(GenerationOptions&)> spoil;
  };
  const Case cases[] = {
      {"--max-tokens", [](auto& o) { o.max_tokens = 0; }},
      {"--max-tokens", [](auto& o) { o.max_tokens = -3; }},
      {"--max-tokens", [](auto& o) { o.max_tokens = std::numeric_limits<int>::max(); }},
      {"--beams", [](auto& o) { o.beams = 0; }},
      {"--beams", [](auto& o) { o.beams = -1; }},
      {"--beams", [](auto& o) { o.beams = 1000000; }},
      {"--n-best", [](auto& o) { o.n_best = 0; }},
      {"--n-best", [](auto& o) { o.beams = 4, o.n_best = 5; }},
      {"--n-best", [](auto& o) { o.n_best = 2; }},
      {"--length-penalty", [&](auto& o) { o.length_penalty = nan; }},
      {"--length-penalty", [&](auto& o) { o.length_penalty = infinite; }},
      {"--temp", [&](auto& o) { o.temperature = nan; }},
      {"--temp", [&](auto& o) { o.temperature = infinite; }},
      {"--temp", [](auto& o) { o.temperature = -0.5; }},
      {"--top-k", [](auto& o) { o.top_k = -1; }},
      {"--top-p", [](auto& o) { o.top_p = 0; }},
      {"--top-p", [](auto& o) { o.top_p = 2; }},
      {"--top-p", [&](auto& o) { o.top_p = nan; }},
      {"--beams", [](auto& o) { o.beams = 2, o.temperature = 1; }},
  };
  for (const Case& bad : cases) {
    GenerationOptions options = valid();
    bad.spoil(options);
    try {
      check_options(options);
      ADD_FAILURE() << bad.name << " passed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      EXPECT_NE(std::string(error.what()).find(bad.name), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace pali
