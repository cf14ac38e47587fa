// Converting, composing, inspecting; storage types at load.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <limits>

#include "fixtures.hpp"
#include "support/expect_error.hpp"

namespace pali {
namespace {

using testing::ask;
using testing::model;
using testing::picture;
using testing::TempFolder;
using testing::threads;

TEST(Checkpoint, ConvertedFileGivesTheSameBits) {
  const TempFolder scratch;
  for (const char* name : {"pali3", "pali3_bf16", "pali3_f16", "pali3_sharded", "ul2", "umt5"}) {
    ConvertOptions options;
    options.source = model(name);
    options.output = scratch / "converted.safetensors";
    const ConvertReport report = convert(options);
    EXPECT_GT(report.tensors, 10);
    const Engine folder = Engine::open(model(name), threads(1));
    const Engine file = Engine::open(options.output, threads(1));
    EXPECT_EQ(file.info().format, "pali");
    EXPECT_EQ(file.info().family, folder.info().family);
    EXPECT_EQ(file.info().parameters, folder.info().parameters);
    EXPECT_EQ(file.info().dtypes, folder.info().dtypes) << name;
    Request request = ask(1);
    if (!folder.info().has_vision) request.images.clear();
    const Result a = folder.run(request);
    const Result b = file.run(request);
    EXPECT_EQ(a.tokens, b.tokens) << name;
    EXPECT_EQ(a.logprob, b.logprob) << name;
  }
}

TEST(Checkpoint, ComposedPartsEqualTheWhole) {
  const TempFolder scratch;
  ConvertOptions options;
  options.vision = model("pali3_parts") / "vision";
  options.language = model("pali3_parts") / "language";
  options.projector = model("pali3_parts") / "projector.safetensors";
  options.output = scratch / "composed.safetensors";
  convert(options);
  const Engine whole = Engine::open(model("pali3"), threads(1));
  const Engine composed = Engine::open(options.output, threads(1));
  for (int seed = 0; seed < 3; ++seed) {
    EXPECT_EQ(whole.run(ask(seed)).tokens, composed.run(ask(seed)).tokens);
    EXPECT_EQ(whole.run(ask(seed)).logprob, composed.run(ask(seed)).logprob);
  }
  options.projector.clear();
  EXPECT_FALSE(convert(options).warnings.empty()) << "a random projector deserves a warning";
}

TEST(Checkpoint, CalibratedIntegersServeTheRequestsTheySaw) {
  const TempFolder scratch;
  ConvertOptions options;
  options.source = model("pali3");
  options.dtype = WeightType::int4;
  options.output = scratch / "plain.safetensors";
  convert(options);
  int calls = 0;
  options.output = scratch / "calibrated.safetensors";
  options.engine = threads(1);
  options.max_product_error = 1;
  options.calibrate = [&](const Engine& engine) {
    ++calls;
    EXPECT_EQ(engine.info().compute, "f32");
    for (int seed = 0; seed < 8; ++seed) engine.run(ask(seed));
  };
  const ConvertReport report = convert(options);
  EXPECT_EQ(calls, 1);
  size_t calibrated = 0;
  for (const QuantisedTensor& tensor : report.quantised) calibrated += tensor.product_error > 0;
  EXPECT_GT(calibrated, 10u);
  for (const KeptTensor& tensor : report.kept) EXPECT_EQ(tensor.product_error, 0) << tensor.name;
  // Visual tokens of the pictures that it saw lie nearer to those of f32.
  const Engine exact = Engine::open(model("pali3"), threads(1));
  const auto distance = [&](const char* file) {
    const Engine engine = Engine::open(scratch / file, threads(1));
    double missed = 0;
    for (int seed = 0; seed < 8; ++seed) {
      const std::vector<float> a = exact.embed_tokens(picture(seed)).values;
      const std::vector<float> b = engine.embed_tokens(picture(seed)).values;
      for (size_t i = 0; i < a.size(); ++i) missed += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    }
    return missed;
  };
  EXPECT_LT(distance("calibrated.safetensors"), 0.8 * distance("plain.safetensors"));
  // Nothing may err: all that was seen is int8.
  options.max_product_error = 0;
  for (const QuantisedTensor& tensor : convert(options).quantised) {
    EXPECT_TRUE(tensor.product_error == 0 || tensor.dtype == "int8") << tensor.name;
  }
}

TEST(Checkpoint, CalibrationsThatCannotBe) {
  const TempFolder scratch;
  ConvertOptions options;
  options.source = model("pali3");
  options.output = scratch / "out.safetensors";
  const auto fails = [&](ErrorCode code, const char* says) {
    test::expect_error(code, {says}, [&] { convert(options); });
  };
  options.calibrate = [](const Engine& engine) { engine.run(ask(1)); };
  fails(ErrorCode::invalid_argument, "int8 and int4 weights only");
  options.dtype = WeightType::int4;
  for (const double error : {-0.1, std::numeric_limits<double>::quiet_NaN()}) {
    options.max_product_error = error;
    fails(ErrorCode::invalid_argument, "0 or more");
  }
  options.max_product_error = 0.02;
  options.calibrate = [](const Engine&) {};
  fails(ErrorCode::invalid_argument, "without a request");
  options.calibrate = [](const Engine&) { throw Error(ErrorCode::cancelled, "enough; go on"); };
  fails(ErrorCode::cancelled, "enough");
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

TEST(Checkpoint, FailedConversionLeavesNothing) {
  const TempFolder scratch;
  ConvertOptions options;
  options.source = model("no_such_model");
  options.output = scratch / "out.safetensors";
  EXPECT_THROW(convert(options), Error);
  options.source = model("pali3");
  options.output = scratch / "missing/folder/out.safetensors";
  EXPECT_THROW(convert(options), Error);
  options.output.clear();
  EXPECT_THROW(convert(options), Error);
  EXPECT_TRUE(std::filesystem::is_empty(scratch.path()));
}

TEST(Checkpoint, InspectCountsWhatIsThere) {
  const CheckpointInfo info = inspect(model("pali3"));
  EXPECT_EQ(info.family, "pali3");
  int64_t bytes = 0;
  for (const TensorSummary& tensor : info.tensors) bytes += tensor.bytes;
  EXPECT_EQ(info.memory_bytes.at("weights"), bytes);
  EXPECT_EQ(inspect(model("pali3_sharded")).parameters, info.parameters);
}

TEST(Checkpoint, StorageTypesAtLoad) {
  EngineOptions options = threads(1);
  options.dtype = WeightType::bf16;
  const Engine rounded = Engine::open(model("pali3"), options);
  EXPECT_EQ(rounded.info().dtype, "bf16");
  EXPECT_EQ(rounded.info().parameters, inspect(model("pali3")).parameters);
  options.compute = ComputeType::f32;
  const Engine rounded_f32 = Engine::open(model("pali3"), options);
  options.dtype = WeightType::f32;
  options.compute = ComputeType::automatic;
  // pali3_bf16 holds the same weights, rounded by torch.
  const Engine stored = Engine::open(model("pali3_bf16"), options);
  const std::vector<float> a = rounded_f32.embed_tokens(picture(1)).values;
  const std::vector<float> b = stored.embed_tokens(picture(1)).values;
  ASSERT_EQ(a.size(), b.size());
  float largest = 0, difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    largest = std::max(largest, std::abs(b[i]));
    difference = std::max(difference, std::abs(a[i] - b[i]));
  }
  // Norms and biases stay f32 at load and are bf16 in the file: a bf16 step or two of the largest.
  EXPECT_LT(difference, largest * 0x1p-6f);
}

// Rounded at load or by conversion: the same bits, at any number of threads.
TEST(Checkpoint, QuantisedAtLoadEqualsTheConvertedFile) {
  const TempFolder scratch;
  for (const auto& [type, name] :
       {std::pair{WeightType::int8, "int8"}, {WeightType::int4, "int4"}}) {
    ConvertOptions convert_options;
    convert_options.source = model("pali3");
    convert_options.output = scratch / "quantised.safetensors";
    convert_options.dtype = type;
    const ConvertReport report = convert(convert_options);
    ASSERT_GT(report.quantised.size(), 10u);
    for (const QuantisedTensor& tensor : report.quantised) {
      EXPECT_GT(tensor.rms_error, 0) << tensor.name;
      EXPECT_LT(tensor.rms_error, type == WeightType::int8 ? 0.02 : 0.12) << tensor.name;
    }
    std::map<std::string, std::string> kept;
    for (const KeptTensor& tensor : report.kept) kept[tensor.name] = tensor.dtype;
    EXPECT_EQ(kept["vision.patch.weight"], "bf16");
    EXPECT_EQ(kept["projector.weight"], "bf16");
    EXPECT_EQ(kept.contains("lm.embed"), type == WeightType::int4);
    const CheckpointInfo info = inspect(convert_options.output);
    EXPECT_GT(info.dtypes.at(name), 0);
    EXPECT_EQ(info.parameters, inspect(model("pali3")).parameters);
    EXPECT_TRUE(std::any_of(info.tensors.begin(), info.tensors.end(), [&](const TensorSummary& t) {
      return t.dtype == name && t.shape.size() == 2;
    }));
    EngineOptions at_load = threads(1);
    at_load.dtype = type;
    const Engine cast = Engine::open(model("pali3"), at_load);
    const Engine file = Engine::open(convert_options.output, threads(1));
    const Engine wide = Engine::open(convert_options.output, threads(3));
    EXPECT_GT(cast.info().dtypes.at(name), 0);
    EXPECT_EQ(file.info().dtypes, cast.info().dtypes);
    for (int seed = 0; seed < 3; ++seed) {
      const Result a = cast.run(ask(seed)), b = file.run(ask(seed)), c = wide.run(ask(seed));
      EXPECT_EQ(a.tokens, b.tokens);
      EXPECT_EQ(a.logprob, b.logprob);
      EXPECT_EQ(b.logprob, c.logprob);
      EXPECT_EQ(file.embed_tokens(picture(seed)).values, wide.embed_tokens(picture(seed)).values);
    }
    // A quantised file converted to its own type is the same file; to f32, the same answers.
    convert_options.source = convert_options.output;
    convert_options.output = scratch / "again.safetensors";
    EXPECT_TRUE(convert(convert_options).quantised.empty());
    const auto bytes = [](const std::filesystem::path& path) {
      std::ifstream file_stream(path, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(file_stream), {});
    };
    EXPECT_EQ(bytes(convert_options.source), bytes(convert_options.output));
  }
}

TEST(Checkpoint, BuiltinModelOpens) {
  const Engine engine = Engine::open(builtin_model());
  EXPECT_EQ(engine.info().family, "pali3");
  EXPECT_LE(std::filesystem::file_size(builtin_model() / "model.safetensors"), 20'000'000u);
}

}  // namespace
}  // namespace pali
