// Every field of a model's configuration, replaced by values that no model has.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "fuzz/damage.hpp"
#include "support/paths.hpp"

namespace pali {
namespace {

using Json = nlohmann::json;
using test::DamagedModel;
using test::open_and_use;
using test::Outcome;

const std::filesystem::path kModels = test::data("models");

const Json kHostile = Json::parse(R"([0, 1, -1, 2, 7, 2147483647, 2147483648, 4294967296,
    1099511627776, 4611686018427387904, 9223372036854775807, -9223372036854775808,
    18446744073709551615, 1e30, 1e308, -1e308, 1e-300, 0.5, "", "x", true, false, null, [], [0],
    [1e30, 1e30, 1e30], {}, {"a": 1}])");

// Puts every hostile value in place of every member of `node`, at any depth, and opens the model.
void replace_each(const DamagedModel& model, const std::string& file, Json& whole, Json& node,
                  const std::string& place, int& errors) {
  for (auto& [key, value] : node.items()) {
    const Json good = value;
    const std::string here = place + "/" + key;
    for (const Json& hostile : kHostile) {
      value = hostile;
      model.write(file, whole.dump());
      const Outcome outcome = open_and_use(model.path(), file + here + " = " + hostile.dump());
      errors += outcome == Outcome::error ? 1 : 0;
    }
    value = good;
    if (value.is_structured()) replace_each(model, file, whole, value, here, errors);
  }
}

class ConfigValues : public testing::TestWithParam<const char*> {};

TEST_P(ConfigValues, EndInAnErrorOrAnAnswer) {
  test::limit_address_space();
  const DamagedModel model(kModels / GetParam());
  for (const char* file : {"config.json", "generation_config.json", "preprocessor_config.json",
                           "tokenizer_config.json"}) {
    if (!std::filesystem::exists(model.path() / file)) continue;
    const std::string good = model.read(file);
    Json whole = Json::parse(good);
    int errors = 0;
    replace_each(model, file, whole, whole, "", errors);
    const bool is_config = std::string(file) == "config.json";
    if (is_config) {
      EXPECT_GT(errors, 100);
    }
    model.write(file, good);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ConfigValues,
                         testing::Values("pali3", "umt5", "siglip_two_tower", "paligemma",
                                         "paligemma2", "t5gemma2", "vit", "clip"));

}  // namespace
}  // namespace pali
